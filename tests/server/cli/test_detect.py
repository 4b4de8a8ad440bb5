from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from prelabel.errors import PrelabelError
from prelabel.types import (
    DetectOptions,
    DetectResult,
    ImageInfo,
    Mask,
    ModelRef,
    Proposal,
    RotatedBox,
    Timings,
)
from prelabel_models.store import ModelStore
from prelabel_server.cli.root import app
from prelabel_server.cli.runs import Outcome, engine, find_images, missing_part, record, run
from prelabel_server.config import Settings
from server.conftest import photo
from server.serving import serving


def detect(store: ModelStore, *arguments: str | Path) -> Result:
    environment = {"PRELABEL_STORE": str(store.root), "PRELABEL_DEVICE": "cpu", "NO_COLOR": "1"}
    words = ["detect", "--model", "constant", *map(str, arguments)]
    result = CliRunner().invoke(app, words, env=environment)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def lines(result: Result) -> list[dict[str, Any]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    (folder / "more").mkdir(parents=True)
    (folder / "b.jpg").write_bytes(photo(seed=1))
    (folder / "more" / "b.jpg").write_bytes(photo(seed=2))
    (folder / "a.JPG").write_bytes(photo(seed=3))
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.fixture(scope="module")
def address(store: ModelStore) -> Iterator[str]:
    settings = Settings(listen="127.0.0.1:0", store_root=store.root, device="cpu", workers=2)
    with serving(settings) as made:
        yield made


def test_json_has_one_line_per_image_in_order(store: ModelStore, pictures: Path) -> None:
    result = detect(store, pictures, "--json")

    found = lines(result)
    assert result.exit_code == 0
    assert [Path(line["path"]).relative_to(pictures).as_posix() for line in found] == [
        "a.JPG",
        "b.jpg",
        "more/b.jpg",
    ]
    assert found[0]["model"]["name"] == "constant"
    assert found[0]["model"]["digest"].startswith("sha256:")
    assert found[0]["image"]["width"] == 128
    assert [p["label"] for p in found[0]["proposals"]] == ["dog", "cat"]
    assert found[0]["proposals"][0]["score"] == pytest.approx(0.9)
    # 64 input pixels stand for 128 of the image: centre 16, 16 and size 16 x 8, doubled.
    assert found[0]["proposals"][0]["box"] == pytest.approx([16, 24, 48, 40])
    assert found[0]["timings_ms"]["total"] > 0


def test_a_server_gives_what_the_process_gives(
    store: ModelStore, pictures: Path, address: str
) -> None:
    here = lines(detect(store, pictures, "--json"))
    there = lines(detect(store, pictures, "--json", "--server", address))

    for line in (*here, *there):
        del line["timings_ms"]
    assert here == there


def test_options_reach_the_model(store: ModelStore, pictures: Path) -> None:
    cats = lines(detect(store, pictures / "b.jpg", "--json", "--label", "cat"))
    sure = lines(detect(store, pictures / "b.jpg", "--json", "--min-score", "0.5"))
    one = lines(detect(store, pictures / "b.jpg", "--json", "--max", "1"))
    tiled = lines(detect(store, pictures / "b.jpg", "--json", "--tile", "64"))

    assert [p["label"] for p in cats[0]["proposals"]] == ["cat"]
    assert [p["label"] for p in sure[0]["proposals"]] == ["dog"]
    assert (len(one[0]["proposals"]), one[0]["truncated"]) == (1, True)
    assert len(tiled[0]["proposals"]) > 2


@pytest.mark.parametrize("where", ["here", "server"])
def test_a_bad_image_does_not_stop_the_others(
    store: ModelStore, pictures: Path, address: str, where: str
) -> None:
    (pictures / "ab.jpg").write_bytes(b"not a picture")
    (pictures / "z.jpg").write_bytes(photo(seed=4)[:900])
    server = ["--server", address] if where == "server" else []

    result = detect(store, pictures, "--json", *server)

    found = lines(result)
    assert result.exit_code == 1
    assert ["error" in line for line in found] == [False, True, False, False, True]
    assert found[1]["error"]["code"] == "INVALID_ARGUMENT"
    assert found[1]["error"]["reason"] == "IMAGE_FORMAT"
    assert found[4]["error"]["reason"] == "IMAGE_DAMAGED"
    assert "2 of 5 images failed" in result.stderr


def test_files_that_vanish_before_their_turn_keep_their_places(
    store: ModelStore, pictures: Path
) -> None:
    gone = pictures / "gone.jpg"

    with engine(None, store.root, "cpu") as where:
        found = list(
            run(where, [gone, pictures / "b.jpg", gone, gone], "constant", DetectOptions())
        )

    assert [outcome.error is None for outcome in found] == [False, True, False, False]
    assert found[0].error is not None
    assert (found[0].error.reason, found[0].path) == ("FILE_UNREADABLE", gone)


def test_a_folder_named_like_a_picture_and_a_dead_link_are_passed_over(
    store: ModelStore, pictures: Path
) -> None:
    (pictures / "c.jpg").mkdir()
    (pictures / "d.jpg").symlink_to(pictures / "gone.jpg")

    assert len(lines(detect(store, pictures, "--json"))) == 3


def test_a_file_over_the_servers_limit_is_not_sent(
    store: ModelStore, pictures: Path, address: str
) -> None:
    with (pictures / "b.jpg").open("ab") as file:
        file.truncate(40 * 2**20)

    result = detect(store, pictures, "--json", "--server", address)

    found = lines(result)
    assert [line.get("error", {}).get("reason") for line in found] == [
        None,
        "IMAGE_TOO_LARGE",
        None,
    ]


def test_one_image_is_shown_proposal_by_proposal(store: ModelStore, pictures: Path) -> None:
    out = detect(store, pictures / "b.jpg").stdout

    assert "dog" in out
    assert "0.900" in out
    assert "2 proposals by constant in 128x96 JPEG" in out


def test_several_images_are_a_row_each(store: ModelStore, pictures: Path) -> None:
    out = detect(store, pictures).stdout

    assert out.count("dog 1, cat 1") == 3
    assert "6 proposals in 3 images" in out


def test_draw_writes_a_picture_per_image_and_never_over_an_original(
    store: ModelStore, pictures: Path
) -> None:
    before = (pictures / "b.jpg").read_bytes()

    result = detect(store, pictures, "--draw", pictures)

    drawn = sorted(path.name for path in pictures.glob("*.proposals.jpg"))
    assert result.exit_code == 0
    assert drawn == ["a.proposals.jpg", "b-2.proposals.jpg", "b.proposals.jpg"]
    assert (pictures / "b.jpg").read_bytes() == before
    picture = cv2.imread(str(pictures / "b.proposals.jpg"))
    original = cv2.imread(str(pictures / "b.jpg"))
    assert picture is not None
    assert original is not None
    assert picture.shape == original.shape
    assert np.abs(picture.astype(int) - original).max() > 100


def test_a_wrong_option_is_said_once_and_not_for_every_image(
    store: ModelStore, pictures: Path
) -> None:
    result = detect(store, pictures, "--json", "--label", "dgo")

    assert result.exit_code == 1
    assert result.stdout == ""
    assert "did you mean dog" in result.stderr


def test_an_unknown_model_is_said_once(store: ModelStore, pictures: Path, address: str) -> None:
    for server in ([], ["--server", address]):
        result = detect(store, pictures, "--json", "--model", "nothing", *server)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.count("'nothing'") == 1


def test_usage_errors_exit_with_2(store: ModelStore, tmp_path: Path) -> None:
    assert detect(store, tmp_path / "gone.jpg").exit_code == 2
    assert detect(store, tmp_path).exit_code == 2


def test_a_server_that_does_not_answer_is_one_line(store: ModelStore, pictures: Path) -> None:
    result = detect(store, pictures, "--server", "127.0.0.1:1")

    assert result.exit_code == 1
    assert len(result.stderr.strip().splitlines()) == 1


def test_a_file_is_taken_once(pictures: Path) -> None:
    assert len(find_images([pictures, pictures / "b.jpg", pictures])) == 3


def test_a_record_has_everything_that_a_proposal_has() -> None:
    rich = Proposal(
        "text",
        0,
        0.5,
        0.25,
        (1, 2, 3, 4),
        rotated_box=RotatedBox(2, 3, 4, 5, 6),
        outline=((1, 2), (3, 4), (5, 6)),
        mask=Mask(size=(1, 3), rle="111"),
        text="ö",
        key_points=((7, 8),),
    )
    result = DetectResult(
        "r", ModelRef("m", "1", "sha256:0"), ImageInfo("d", 3, 1), (rich,), Timings()
    )

    plain = json.loads(json.dumps(record(Outcome(Path("a"), result))))["proposals"][0]

    assert plain == {
        "label": "text",
        "class_id": 0,
        "score": 0.5,
        "confidence": 0.25,
        "box": [1, 2, 3, 4],
        "rotated_box": {
            "center_x": 2,
            "center_y": 3,
            "width": 4,
            "height": 5,
            "angle_degrees": 6,
        },
        "outline": [[1, 2], [3, 4], [5, 6]],
        "mask": {"size": [1, 3], "counts": "111"},
        "text": "ö",
        "key_points": [[7, 8]],
    }


def test_a_missing_part_says_what_to_install() -> None:
    def use_something_absent() -> None:
        with missing_part("reading tea leaves", "tea"):
            raise ModuleNotFoundError("No module named 'tea'", name="tea")

    with pytest.raises(PrelabelError, match=r"pip install 'prelabel\[tea\]'"):
        use_something_absent()


_LIGHT = """
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"numpy", "cv2", "PIL", "onnxruntime", "onnx", "msgspec"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
sys.argv = ["prelabel", *sys.argv[1:]]
from prelabel_server.cli import main
main()
"""


def light(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """The command line where only `prelabel[cli]` is installed."""
    words = [sys.executable, "-c", _LIGHT, *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(words, capture_output=True, text=True, env=env, check=False, timeout=60)


def test_the_light_client_detects_on_a_server(address: str, pictures: Path) -> None:
    words = ("detect", pictures / "b.jpg", "--model", "constant", "--server", address, "--json")

    done = light(*words)

    assert done.returncode == 0, done.stderr
    assert [p["label"] for p in json.loads(done.stdout)["proposals"]] == ["dog", "cat"]


def test_the_light_client_says_what_a_run_in_this_process_needs(pictures: Path) -> None:
    done = light("detect", pictures / "b.jpg", "--model", "constant")

    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'prelabel[cpu]'")
    assert len(done.stderr.splitlines()) == 1
