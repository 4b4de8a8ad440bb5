"""One annotator on one image: prompts as a history that can be walked back and forth."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from prelabel_models.segmenters.base import MAX_POINTS, Prompts, Scribble
from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.commands import (
    Caller,
    HeldImage,
    SegmentAnswer,
    SegmentCommand,
    SegmentOptions,
)
from prelabel_server.handlers.segmentation import Segmentation


@dataclass(frozen=True, slots=True)
class PointStep:
    """A click; pixels of the displayed image."""

    x: float
    y: float
    positive: bool


@dataclass(frozen=True, slots=True)
class BoxStep:
    """A box, in place of an earlier one."""

    box_xyxy: tuple[float, float, float, float]


@dataclass(frozen=True, slots=True)
class ScribbleStep:
    """A free line."""

    scribble: Scribble


@dataclass(frozen=True, slots=True, eq=False)
class MaskStep:
    """A shape to start from, in place of all prompts so far."""

    mask: NDArray[np.bool_]


PromptStep = PointStep | BoxStep | ScribbleStep | MaskStep


@dataclass(slots=True, eq=False)
class _Entry:
    step: PromptStep
    chosen: int = 0
    answer: SegmentAnswer | None = None


class PromptHistory:
    """Prompts in force, and those that were taken back.

    Example:
        >>> history = PromptHistory()
        >>> history.add(PointStep(1, 2, True)); history.add(PointStep(3, 4, False))
        >>> history.undo(); history.prompts().point_labels.tolist()
        [True]
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []
        self._count = 0

    @property
    def count(self) -> int:
        """Prompts in force."""
        return self._count

    @property
    def redo_count(self) -> int:
        """Prompts that redo can put back."""
        return len(self._entries) - self._count

    def add(self, step: PromptStep) -> None:
        """A new prompt; what was taken back is gone.

        Raises:
            InvalidFieldError: Too many.
        """
        if self._count >= MAX_POINTS:
            raise InvalidFieldError("action", f"expected at most {MAX_POINTS} prompts per object")
        del self._entries[self._count :]
        self._entries.append(_Entry(step))
        self._count += 1

    def undo(self) -> None:
        """Take the last prompt back; nothing to take back is no error."""
        self._count = max(0, self._count - 1)

    def redo(self) -> None:
        """Put the last one back; nothing to put back is no error."""
        self._count = min(len(self._entries), self._count + 1)

    def reset(self) -> None:
        """A new object."""
        self._entries.clear()
        self._count = 0

    def choose(self, index: int) -> None:
        """Refine this candidate of the last answer from now on.

        Raises:
            InvalidFieldError: There is no such candidate.
        """
        last = self._entries[self._count - 1] if self._count else None
        candidates = len(last.answer.masks) if last is not None and last.answer is not None else 0
        if last is None or index >= candidates:
            raise InvalidFieldError("choose.index", f"expected below {candidates}, got {index}")
        del self._entries[self._count :]
        last.chosen = index

    def prompts(self, count: int | None = None) -> Prompts | None:
        """The first `count` prompts (all in force if None) as one set; None if there are none."""
        entries = self._entries[: self._count if count is None else count]
        steps = [entry.step for entry in entries]
        masks = [i for i, step in enumerate(steps) if isinstance(step, MaskStep)]
        if masks:
            steps = steps[masks[-1] :]
        if not steps:
            return None
        points = [step for step in steps if isinstance(step, PointStep)]
        boxes = [step.box_xyxy for step in steps if isinstance(step, BoxStep)][-1:]
        return Prompts(
            points_xy=np.asarray([(p.x, p.y) for p in points], np.float32).reshape(-1, 2),
            point_labels=np.asarray([p.positive for p in points], bool),
            boxes_xyxy=np.asarray(boxes, np.float32).reshape(-1, 4),
            scribbles=tuple(s.scribble for s in steps if isinstance(s, ScribbleStep)),
            mask=next((s.mask for s in steps if isinstance(s, MaskStep)), None),
        )

    def pending(self) -> list[int]:
        """Positions in force whose answer is not known, in order."""
        return [i for i in range(self._count) if self._entries[i].answer is None]

    def answer(self) -> SegmentAnswer | None:
        """The answer for the prompts in force; None if there are none or it is not known."""
        return self._entries[self._count - 1].answer if self._count else None

    def record(self, position: int, answer: SegmentAnswer) -> None:
        """The answer for the prompts up to and including `position`."""
        self._entries[position].answer = answer

    def previous_logits(self, position: int) -> NDArray[np.float32] | None:
        """The mask that the prompt at `position` refines; None if it starts afresh."""
        if position == 0 or isinstance(self._entries[position].step, BoxStep | MaskStep):
            return None
        before = self._entries[position - 1]
        if before.answer is None or not before.answer.masks:
            return None
        return before.answer.masks[min(before.chosen, len(before.answer.masks) - 1)].low_res_logits


@dataclass(slots=True)
class AnnotationSession:
    """The state of one session.

    What each prompt refines depends on the answer to the one before, so answers are computed in
    order, also those that a faster annotator never saw: undo, redo and a fresh replay of the same
    prompts give the same masks.

    Attributes:
        segmentation: The use cases.
        image: Held for the session, so that an evicted embedding is rebuilt.
        model: Name of the segmenter.
        options: For every answer.
        history: The prompts.
    """

    segmentation: Segmentation
    image: HeldImage
    model: str
    options: SegmentOptions
    history: PromptHistory = field(default_factory=PromptHistory)

    async def refresh(self, request_id: str, caller: Caller) -> SegmentAnswer | None:
        """The answer for the prompts now in force; None if there are none.

        Raises:
            RequestError: See `prelabel_server.errors`.
            ModelsError: See `prelabel_models.errors`.
        """
        for position in self.history.pending():
            prompts = self.history.prompts(position + 1)
            logits = self.history.previous_logits(position)
            if prompts is not None and prompts.mask is None and logits is not None:
                prompts = replace(prompts, low_res_logits=logits)
            command = SegmentCommand(
                image=self.image,
                model=self.model,
                prompts=prompts,
                request_id=request_id,
                options=self.options,
            )
            self.history.record(position, await self.segmentation.segment(command, caller))
        return self.history.answer()
