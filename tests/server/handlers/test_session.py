from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel_server.errors import InvalidFieldError
from prelabel_server.handlers.session import BoxStep, PointStep, PromptHistory, PromptStep

step = st.one_of(
    st.builds(PointStep, st.integers(0, 99), st.integers(0, 99), st.booleans()),
    st.builds(BoxStep, st.just((1.0, 2.0, 30.0, 40.0)) | st.just((5.0, 6.0, 70.0, 80.0))),
)
action = st.one_of(step, st.sampled_from(["undo", "redo", "reset"]))


@given(st.lists(action, max_size=40))
def test_any_walk_equals_a_fresh_replay_of_what_is_left(
    actions: list[PromptStep | str],
) -> None:
    history = PromptHistory()
    kept: list[PromptStep] = []
    taken_back: list[PromptStep] = []
    for what in actions:
        if what == "undo":
            history.undo()
            if kept:
                taken_back.append(kept.pop())
        elif what == "redo":
            history.redo()
            if taken_back:
                kept.append(taken_back.pop())
        elif what == "reset":
            history.reset()
            kept, taken_back = [], []
        elif not isinstance(what, str):
            history.add(what)
            kept.append(what)
            taken_back = []
    assert (history.count, history.redo_count) == (len(kept), len(taken_back))
    fresh = PromptHistory()
    for prompt in kept:
        fresh.add(prompt)
    left, right = history.prompts(), fresh.prompts()
    assert (left is None) == (right is None)
    if left is not None and right is not None:
        assert left.points_xy.tolist() == right.points_xy.tolist()
        assert left.point_labels.tolist() == right.point_labels.tolist()
        assert left.boxes_xyxy.tolist() == right.boxes_xyxy.tolist()


def test_a_later_box_takes_the_place_of_an_earlier_one() -> None:
    history = PromptHistory()
    history.add(BoxStep((1, 2, 3, 4)))
    history.add(BoxStep((5, 6, 7, 8)))
    prompts = history.prompts()
    assert prompts is not None
    assert prompts.boxes_xyxy.tolist() == [[5, 6, 7, 8]]


def test_prompts_are_bounded() -> None:
    history = PromptHistory()
    for i in range(64):
        history.add(PointStep(i, i, True))
    with pytest.raises(InvalidFieldError, match="64"):
        history.add(PointStep(0, 0, True))


def test_only_a_candidate_of_the_last_answer_can_be_chosen() -> None:
    history = PromptHistory()
    with pytest.raises(InvalidFieldError, match=r"choose\.index"):
        history.choose(0)
