from __future__ import annotations

from pathlib import Path

import numpy as np

from models.graphs import save_constant_graph
from prelabel_models.session import open_session


def test_constant_graph_answers_its_values_and_keeps_its_metadata(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    graph = save_constant_graph(tmp_path / "m.onnx", {"out": value}, metadata={"k": "v"})
    session = open_session(graph)
    (answer,) = session.run({"images": np.zeros((1, 3, 64, 64), np.float32)})
    np.testing.assert_array_equal(answer, value)
    assert session.metadata == {"k": "v"}
    assert not session.batchable


def test_tiled_graph_answers_once_for_each_item(tmp_path: Path) -> None:
    value = np.arange(6, dtype=np.float32).reshape(1, 2, 3)
    session = open_session(
        save_constant_graph(tmp_path / "m.onnx", {"out": value}, tile_batch=True)
    )
    assert session.batchable
    answers = session.run_stacked([np.zeros((3, 64, 64), np.float32)] * 3)
    assert len(answers) == 3
    np.testing.assert_array_equal(answers[2][0], value[0])
