"""Every error the SDK raises.

    PrelabelError
    ├── ConnectionFailed           the server cannot be reached, or is shutting down
    ├── DeadlineExceeded           no answer within the timeout
    ├── InvalidRequest             a field or the image was refused; `field` names it
    ├── ImageNotCached             the server no longer holds an image named by digest
    ├── NotFound                   no such model
    ├── ModelUnusable              the model is damaged, of another task, or not loaded
    ├── ResourceExhausted          over a limit, or the queue is full; `retry_after_s` may be set
    ├── PermissionDenied           not allowed, or no valid token
    ├── Cancelled                  the call was cancelled
    └── ServerError                a defect on the server; `request_id` finds it in its log

Each carries `reason` (a name of `ErrorReason` without its prefix, or empty) and `code` (the name
of the gRPC status code). The text is the server's sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import grpc

from prelabel.v1 import errors_pb2

_DETAILS_KEY = "grpc-status-details-bin"


class PrelabelError(Exception):
    """Base of every error of the SDK.

    Attributes:
        code: Name of the gRPC status code, for example `NOT_FOUND`.
        reason: The server's reason, for example `MODEL_NOT_FOUND`; empty if it gave none.
        field: Path of the refused field, for example `options.min_score`; empty if none was.
        retry_after_s: Seconds to wait before the next try; None if the server named none.
        metadata: Further facts from the server, for example `request_id`.
    """

    def __init__(
        self,
        message: str,
        *,
        code: str = "UNKNOWN",
        reason: str = "",
        field: str = "",
        retry_after_s: float | None = None,
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.field = field
        self.retry_after_s = retry_after_s
        self.metadata = dict(metadata or {})

    @property
    def request_id(self) -> str:
        """Id of the failed request in the server's log; empty if unknown."""
        return self.metadata.get("request_id", "")


class ConnectionFailed(PrelabelError):  # noqa: N818 - named for what happened, like its siblings
    """The server cannot be reached, or is shutting down."""


class DeadlineExceeded(PrelabelError):  # noqa: N818
    """No answer within the timeout."""


class InvalidRequest(PrelabelError):  # noqa: N818
    """A field or the image was refused."""


class ImageNotCached(PrelabelError):  # noqa: N818
    """The server no longer holds an image that was named by digest."""


class NotFound(PrelabelError):  # noqa: N818
    """There is no such model."""


class ModelUnusable(PrelabelError):  # noqa: N818
    """The model is damaged, of another task, or not loaded."""


class ResourceExhausted(PrelabelError):  # noqa: N818
    """Over a limit, or the queue is full."""


class PermissionDenied(PrelabelError):  # noqa: N818
    """Not allowed, or no valid token."""


class Cancelled(PrelabelError):  # noqa: N818
    """The call was cancelled."""


class ServerError(PrelabelError):
    """A defect on the server."""


_BY_REASON: Mapping[str, type[PrelabelError]] = {"IMAGE_NOT_CACHED": ImageNotCached}
_BY_CODE: Mapping[str, type[PrelabelError]] = {
    "UNAVAILABLE": ConnectionFailed,
    "DEADLINE_EXCEEDED": DeadlineExceeded,
    "INVALID_ARGUMENT": InvalidRequest,
    "NOT_FOUND": NotFound,
    "FAILED_PRECONDITION": ModelUnusable,
    "RESOURCE_EXHAUSTED": ResourceExhausted,
    "UNAUTHENTICATED": PermissionDenied,
    "PERMISSION_DENIED": PermissionDenied,
    "CANCELLED": Cancelled,
}
_CODE_NAMES: Mapping[int, str] = {code.value[0]: code.name for code in grpc.StatusCode}


def from_status(status: errors_pb2.ErrorStatus) -> PrelabelError:
    """The error that a status message stands for."""
    info, violations, retry_after_s = errors_pb2.ErrorInfo(), errors_pb2.BadRequest(), None
    for detail in status.details:
        kind = detail.type_url.rpartition("/")[2]
        if kind == "google.rpc.ErrorInfo":
            info.ParseFromString(detail.value)
        elif kind == "google.rpc.BadRequest":
            violations.ParseFromString(detail.value)
        elif kind == "google.rpc.RetryInfo":
            delay = errors_pb2.RetryInfo.FromString(detail.value).retry_delay
            retry_after_s = delay.seconds + delay.nanos / 1e9
    code = _CODE_NAMES.get(status.code, "UNKNOWN")
    kind_of_error = _BY_REASON.get(info.reason) or _BY_CODE.get(code, ServerError)
    return kind_of_error(
        status.message,
        code=code,
        reason=info.reason,
        field=violations.field_violations[0].field if violations.field_violations else "",
        retry_after_s=retry_after_s,
        metadata=info.metadata,
    )


def from_rpc_error(error: grpc.RpcError) -> PrelabelError:
    """The error that a failed call stands for."""
    failed: Any = error  # code, details and trailers are not part of RpcError's declared type
    for key, value in _pairs(failed.trailing_metadata()):
        if key == _DETAILS_KEY:
            return from_status(errors_pb2.ErrorStatus.FromString(value))
    status = errors_pb2.ErrorStatus(code=failed.code().value[0], message=failed.details() or "")
    return from_status(status)


def _pairs(metadata: Any) -> Sequence[tuple[str, Any]]:
    return [(str(key), value) for key, value in metadata or ()]
