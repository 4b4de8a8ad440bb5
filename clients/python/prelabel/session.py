"""One annotator on one image: the image travels once, then clicks of a hundred bytes."""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, Self

import grpc

from prelabel import _segment, types
from prelabel.errors import ConnectionFailed, PrelabelError, from_rpc_error, from_status
from prelabel.v1 import image_pb2
from prelabel.v1 import segmentation_service_pb2 as pb

Connect = Callable[[Iterator[pb.SegmentSessionRequest]], Any]


class SegmentSession:
    """Clicks on one image; made by `Client.session`.

    Each action waits for its masks. If the server restarts, the session opens again on the next
    action: the image and the prompts that are in force are sent once more.

    Example:
        with client.session("photo.jpg", model="classical") as session:
            masks = session.click(120, 80).masks
            masks = session.click(300, 90, positive=False).masks
            masks = session.undo().masks
    """

    def __init__(
        self, connect: Connect, data: bytes, model: str, options: types.SegmentOptions
    ) -> None:
        self._connect = connect
        self._start = pb.SessionStart(
            image=image_pb2.ImageSource(data=data),
            model=model,
            options=_segment.options_to_proto(options),
        )
        self._sequence = 0
        self._requests: queue.SimpleQueue[pb.SegmentSessionRequest | None]
        self._call: Any = None
        # What to replay: actions since the last reset, as they were sent.
        self._actions: list[pb.SegmentSessionRequest] = []
        self.prompt_count = 0
        self.redo_count = 0
        self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session."""
        self._requests.put(None)
        self._call.cancel()

    def click(self, x: float, y: float, *, positive: bool = True) -> types.SegmentResult:
        """A click; pixels of the displayed image.

        Raises:
            PrelabelError: See `prelabel.errors`; the session goes on without the click.
        """
        return self._act(pb.SegmentSessionRequest(point=_segment.point_to_proto(x, y, positive)))

    def box(self, x1: float, y1: float, x2: float, y2: float) -> types.SegmentResult:
        """A box, in place of an earlier one."""
        return self._act(pb.SegmentSessionRequest(box=_segment.box_to_proto((x1, y1, x2, y2))))

    def scribble(self, scribble: types.Scribble) -> types.SegmentResult:
        """A free line."""
        return self._act(pb.SegmentSessionRequest(scribble=_segment.scribble_to_proto(scribble)))

    def mask(self, mask: Any) -> types.SegmentResult:
        """A shape to start from, in place of all prompts so far; a `Mask` or a boolean array."""
        return self._act(pb.SegmentSessionRequest(mask=_segment.mask_to_proto(mask)))

    def undo(self) -> types.SegmentResult:
        """Take the last prompt back; the answer is for those that remain."""
        return self._act(pb.SegmentSessionRequest(undo=pb.UndoAction()))

    def redo(self) -> types.SegmentResult:
        """Put the last one back."""
        return self._act(pb.SegmentSessionRequest(redo=pb.RedoAction()))

    def reset(self) -> types.SegmentResult:
        """Forget all prompts: a new object."""
        result = self._act(pb.SegmentSessionRequest(reset=pb.ResetAction()))
        self._actions.clear()
        return result

    def choose(self, index: int) -> types.SegmentResult:
        """Refine this candidate of the last answer from now on."""
        return self._act(pb.SegmentSessionRequest(choose=pb.ChooseAction(index=index)))

    def _act(self, request: pb.SegmentSessionRequest) -> types.SegmentResult:
        try:
            result = self._send(request)
        except ConnectionFailed:
            self._open()
            for earlier in self._actions:
                self._send(earlier)
            result = self._send(request)
        self._actions.append(request)
        return result

    def _open(self) -> None:
        self._requests = queue.SimpleQueue()
        self._call = self._connect(iter(self._requests.get, None))
        self._sequence = 0
        self._send(pb.SegmentSessionRequest(start=self._start))

    def _send(self, request: pb.SegmentSessionRequest) -> types.SegmentResult:
        self._sequence += 1
        sent = pb.SegmentSessionRequest()
        sent.CopyFrom(request)
        sent.sequence = self._sequence
        self._requests.put(sent)
        try:
            for reply in self._call:
                if reply.sequence == self._sequence:
                    return self._result(reply)
        except grpc.RpcError as err:
            raise from_rpc_error(err) from None
        raise PrelabelError("the session ended before the answer")

    def _result(self, reply: pb.SegmentSessionResponse) -> types.SegmentResult:
        if reply.WhichOneof("result") == "error":
            raise from_status(reply.error)
        self.prompt_count, self.redo_count = reply.prompt_count, reply.redo_count
        return _segment.segment_result(reply.masks)
