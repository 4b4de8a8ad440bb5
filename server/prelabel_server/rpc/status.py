"""The one table from errors to gRPC statuses."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from prelabel_models import errors as models
from prelabel_server import errors as server

logger = logging.getLogger(__name__)

DOMAIN = "prelabel"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a class of errors becomes.

    Attributes:
        code: gRPC status code.
        reason: A name of `ErrorReason` without its prefix.
        field: The refused field, where the class implies it.
    """

    code: grpc.StatusCode
    reason: str
    field: str = ""


_C = grpc.StatusCode

# The most specific class wins: lookups follow the error's own method resolution order.
TABLE: Mapping[type[Exception], Outcome] = {
    server.InvalidFieldError: Outcome(_C.INVALID_ARGUMENT, "INVALID_FIELD"),
    models.OptionError: Outcome(_C.INVALID_ARGUMENT, "INVALID_FIELD"),
    models.ImageFormatError: Outcome(_C.INVALID_ARGUMENT, "IMAGE_FORMAT", "image"),
    models.ImageDamagedError: Outcome(_C.INVALID_ARGUMENT, "IMAGE_DAMAGED", "image"),
    models.ImageTooLargeError: Outcome(_C.RESOURCE_EXHAUSTED, "IMAGE_TOO_LARGE", "image"),
    server.ImageNotCachedError: Outcome(_C.NOT_FOUND, "IMAGE_NOT_CACHED"),
    server.MaskNotCachedError: Outcome(_C.NOT_FOUND, "MASK_NOT_CACHED"),
    models.ModelNotFoundError: Outcome(_C.NOT_FOUND, "MODEL_NOT_FOUND"),
    models.ModelUnusableError: Outcome(_C.FAILED_PRECONDITION, "MODEL_UNUSABLE"),
    server.WrongTaskError: Outcome(_C.FAILED_PRECONDITION, "WRONG_TASK"),
    server.ModelNotLoadedError: Outcome(_C.FAILED_PRECONDITION, "MODEL_NOT_LOADED"),
    models.DeviceUnavailableError: Outcome(_C.FAILED_PRECONDITION, "DEVICE_UNAVAILABLE"),
    models.MissingExtraError: Outcome(_C.FAILED_PRECONDITION, "MODEL_UNUSABLE"),
    server.SourceNotAllowedError: Outcome(_C.PERMISSION_DENIED, "SOURCE_NOT_ALLOWED"),
    server.QueueFullError: Outcome(_C.RESOURCE_EXHAUSTED, "QUEUE_FULL"),
    server.DrainingError: Outcome(_C.UNAVAILABLE, "DRAINING"),
    server.DeadlineError: Outcome(_C.DEADLINE_EXCEEDED, "DEADLINE"),
    models.NonFiniteOutputError: Outcome(_C.INTERNAL, "NON_FINITE_OUTPUT"),
}


def to_status(error: Exception, request_id: str) -> status_pb2.Status:
    """The status for an error; one that is not in the table is logged and told nothing of.

    Args:
        error: What was raised.
        request_id: Goes into the details, and into the log of unexpected errors.
    """
    outcome = next((TABLE[c] for c in type(error).__mro__ if c in TABLE), None)
    request_id = request_id or uuid.uuid4().hex
    if outcome is None:
        logger.error("request %s failed unexpectedly", request_id, exc_info=error)
        outcome = Outcome(_C.INTERNAL, "INTERNAL")
        message = f"internal error; the server's log has it under request id {request_id}"
    else:
        message = str(error)
    info = error_details_pb2.ErrorInfo(
        reason=outcome.reason, domain=DOMAIN, metadata={"request_id": request_id[:128]}
    )
    details = [_packed(info)]
    field = getattr(error, "field", "") or outcome.field
    if field and outcome.code is _C.INVALID_ARGUMENT:
        violation = error_details_pb2.BadRequest.FieldViolation(field=field, description=message)
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    if isinstance(error, server.QueueFullError):
        delay = duration_pb2.Duration(nanos=0)
        delay.FromMilliseconds(max(1, int(error.retry_after_s * 1000)))
        details.append(_packed(error_details_pb2.RetryInfo(retry_delay=delay)))
    return status_pb2.Status(code=outcome.code.value[0], message=message, details=details)


def _packed(message: error_details_pb2.ErrorInfo) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
