"""What the two clients share: requests, channel options, and the memory of images already sent."""

from __future__ import annotations

import threading
import uuid
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import PurePath
from typing import Any

from prelabel import _convert, _images, types
from prelabel.errors import PrelabelError
from prelabel.v1 import detection_service_pb2, image_pb2

# The contract's own limit on a message (a server may set a lower one).
_MAX_MESSAGE_BYTES = 64 * 2**20
# Below this the bytes cost less than asking whether the server still has them.
_REUSE_FROM_BYTES = 16 * 2**10
_REMEMBERED_IMAGES = 1024

CHANNEL_OPTIONS: Sequence[tuple[str, Any]] = (
    ("grpc.max_send_message_length", _MAX_MESSAGE_BYTES),
    ("grpc.max_receive_message_length", _MAX_MESSAGE_BYTES),
    # A dead server is noticed within half a minute instead of at TCP's leisure.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    # Labeling tools run beside HTTP proxies that do not speak gRPC.
    ("grpc.enable_http_proxy", 0),
)

# Needs no weights, hence always there.
DEFAULT_SEGMENTER = "classical"
DEFAULT_ADDRESS = "127.0.0.1:50051"
DEFAULT_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class StreamItem:
    """One answer of `detect_many`.

    Attributes:
        index: Position of the image in the iterable, counted from 0.
        name: The path, where the image was given as one; else empty.
        result: The pre-label; None if the image failed.
        error: Why it failed; None if it did not.
    """

    index: int
    name: str
    result: types.DetectResult | None = None
    error: PrelabelError | None = None

    def unwrap(self) -> types.DetectResult:
        """The result.

        Raises:
            PrelabelError: The image failed.
        """
        if self.result is None:
            raise self.error or PrelabelError("the stream ended before the answer")
        return self.result


class SentImages:
    """Digests of images that the server has had from this client. Thread-safe."""

    def __init__(self) -> None:
        self._digests: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()

    def source(self, data: bytes) -> image_pb2.ImageSource:
        """The digest where the server should still hold the image, else the bytes."""
        if self._digests and len(data) >= _REUSE_FROM_BYTES:
            digest = _images.digest(data)
            with self._lock:
                if digest in self._digests:
                    self._digests.move_to_end(digest)
                    return image_pb2.ImageSource(digest=digest)
        return image_pb2.ImageSource(data=data)

    def remember(self, digest: str) -> None:
        """The server has answered for this image."""
        with self._lock:
            self._digests[digest] = None
            self._digests.move_to_end(digest)
            if len(self._digests) > _REMEMBERED_IMAGES:
                self._digests.popitem(last=False)

    def forget(self, digest: str) -> None:
        """The server no longer holds it."""
        with self._lock:
            self._digests.pop(digest, None)


def detect_request(
    source: image_pb2.ImageSource, model: str, options: types.DetectOptions, request_id: str
) -> detection_service_pb2.DetectRequest:
    """A request; an empty `request_id` is filled in."""
    return detection_service_pb2.DetectRequest(
        request_id=request_id or uuid.uuid4().hex,
        image=source,
        model=model,
        options=_convert.options_to_proto(options),
    )


def merged(options: types.DetectOptions | None, changes: dict[str, Any]) -> types.DetectOptions:
    """`options` with the keyword arguments of a call in place.

    Raises:
        TypeError: An unknown keyword.
    """
    return replace(options or types.DetectOptions(), **changes)


def merged_segment(
    options: types.SegmentOptions | None, changes: dict[str, Any]
) -> types.SegmentOptions:
    """As `merged`, for segmentation."""
    return replace(options or types.SegmentOptions(), **changes)


def name_of(image: _images.ImageInput) -> str:
    """The path, where the image is one."""
    return str(image) if isinstance(image, (str, PurePath)) else ""


def metadata(token: str | None) -> tuple[tuple[str, str], ...]:
    """Call credentials as metadata."""
    return () if token is None else (("authorization", f"Bearer {token}"),)
