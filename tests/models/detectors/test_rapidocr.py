from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.graphs import make_card, save_constant_graph
from prelabel_models.base import Detector, detect
from prelabel_models.catalogue import catalogue
from prelabel_models.detectors import load_detector
from prelabel_models.detectors._text import as_read, cut_strip, find_lines, read_characters
from prelabel_models.detectors.rapidocr import batches, fit
from prelabel_models.errors import CardError, ModelUnusableError, NonFiniteOutputError
from prelabel_models.types import Detections, DetectOptions, RgbImage

rapidocr = pytest.importorskip("rapidocr")
MODELS = Path(rapidocr.__file__).parent / "models"
LINES = (
    "Invoice No 2024-117",
    "Total amount due 1,234.50 EUR",
    "The quick brown fox jumps over the lazy dog",
)
ANGLES = (0, 5, -12)


@pytest.fixture(scope="module")
def reader() -> Detector:
    card = catalogue()["rapidocr"]
    files = {role: MODELS / ref.package.rpartition("/")[2] for role, ref in card.files.items()}
    return load_detector(card, files)


def page(
    lines: Sequence[str], size: tuple[int, int], *, letter: int = 24, angle: float = 0
) -> RgbImage:
    image = Image.new("RGB", size, "white")
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=letter)
    for row, line in enumerate(lines):
        draw.text((30, 20 + row * 2 * letter), line, fill="black", font=font)
    turned = image.rotate(angle, expand=True, fillcolor="white", resample=Image.Resampling.BICUBIC)
    return np.array(turned)


def joined(text: str) -> str:
    # Spaces are the recogniser's weakest point, on small print above all.
    return text.replace(" ", "")


def in_reading_order(found: Detections) -> list[str]:
    assert found.texts is not None
    return [joined(found.texts[i]) for i in np.argsort(found.boxes_xyxy[:, 1])]


@pytest.mark.parametrize("angle", ANGLES)
def test_lines_of_print_are_read_at_slight_angles(reader: Detector, angle: float) -> None:
    found = detect(reader, page(LINES, (620, 180), angle=angle), DetectOptions())
    assert in_reading_order(found) == [joined(line) for line in LINES]
    assert (np.diff(found.scores) <= 0).all()
    assert found.class_ids.tolist() == [0, 0, 0]


def test_box_and_outline_enclose_the_ink(reader: Detector) -> None:
    image = page(["Proposal"], (300, 120), letter=32)
    rows, columns = np.nonzero(image.min(axis=2) < 128)
    ink = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
    found = detect(reader, image, DetectOptions())
    assert found.texts == ("Proposal",)
    np.testing.assert_allclose(found.boxes_xyxy[0], ink, atol=9)
    assert found.outlines is not None
    assert found.outlines.shape == (1, 4, 2)
    top_left, top_right, bottom_right, bottom_left = found.outlines[0]
    assert top_left[0] < top_right[0]
    assert bottom_left[0] < bottom_right[0]
    assert top_left[1] < bottom_left[1]


def test_small_print_is_read(reader: Detector) -> None:
    found = detect(reader, page(LINES, (320, 90), letter=12), DetectOptions())
    assert in_reading_order(found) == [joined(line) for line in LINES]


def test_long_line_in_a_thin_image_is_read_as_one(reader: Detector) -> None:
    line = f"{LINES[2]} and then returns to its den for a long and restful sleep"
    found = detect(reader, page([line], (1800, 60), letter=20), DetectOptions())
    assert in_reading_order(found) == [joined(line)]


def test_upside_down_lines_are_turned(reader: Detector) -> None:
    image = np.ascontiguousarray(page(["Total amount due 1,234.50"], (500, 90))[::-1, ::-1])
    assert in_reading_order(detect(reader, image, DetectOptions())) == ["Totalamountdue1,234.50"]


def test_lines_beside_the_package_own_pipeline(reader: Detector) -> None:
    image = page(LINES, (620, 180))
    # Its own choice of threads makes the runs slower where cores are shared.
    quiet = {"Global.log_level": "critical", "EngineConfig.onnxruntime.intra_op_num_threads": 1}
    oracle = rapidocr.RapidOCR(params=quiet)(image[:, :, ::-1])
    found = detect(reader, image, DetectOptions())
    assert in_reading_order(found) == [joined(text) for text in oracle.txts]
    order = np.argsort(found.boxes_xyxy[:, 1])
    corners = np.asarray(oracle.boxes, np.float32)
    theirs = np.concatenate([corners.min(axis=1), corners.max(axis=1)], axis=1)
    np.testing.assert_allclose(found.boxes_xyxy[order], theirs, atol=3)


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1), (60, 80)])
def test_images_without_text_give_nothing(reader: Detector, size: tuple[int, int]) -> None:
    found = detect(reader, np.full((*size, 3), 255, np.uint8), DetectOptions())
    assert len(found) == 0
    assert found.texts == ()
    assert found.outlines is not None
    assert found.outlines.shape == (0, 4, 2)


def test_count_and_threshold_bound_the_answer(reader: Detector) -> None:
    prepared = reader.preprocess(page(LINES, (620, 180)))
    (output,) = reader.infer([prepared])
    first = reader.postprocess(output, prepared, DetectOptions(max_detections=1))
    assert len(first) == 1
    assert first.truncated
    assert len(reader.postprocess(output, prepared, DetectOptions(min_score=1.0))) == 0


def synthetic(
    folder: Path,
    *,
    det: NDArray[Any] | None = None,
    rec: NDArray[Any] | None = None,
    characters: str = "a\nb",
) -> dict[str, Path]:
    """A detector that sees one line in any image of 128x128, read as `ab`."""
    if det is None:
        det = np.zeros((1, 1, 512, 512), np.float32)
        det[0, 0, 100:120, 100:300] = 0.9
    if rec is None:
        rec = 0.8 * np.eye(4, dtype=np.float32)[[0, 1, 1, 0, 2]][None]
    found = save_constant_graph(folder / "det.onnx", {"map": det}, inputs={"x": (1, 3, 512, 512)})
    read = save_constant_graph(
        folder / "rec.onnx",
        {"steps": rec},
        inputs={"x": ("batch", 3, 48, "width")},
        tile_batch=True,
        metadata={"character": characters} if characters else {},
    )
    return {"det": found, "rec": read}


CARD = make_card("rapidocr", roles=("det", "rec"))
GRAY = np.full((128, 128, 3), 90, np.uint8)


def test_score_is_the_product_of_finding_and_reading(tmp_path: Path) -> None:
    found = detect(load_detector(CARD, synthetic(tmp_path)), GRAY, DetectOptions())
    assert found.texts == ("ab",)
    np.testing.assert_allclose(found.scores, [0.9 * 0.8], atol=1e-3)
    # 200x20 pixels, grown by 200 * 20 * 1.6 / 440 = 14.55 on each side; a quarter of all that.
    np.testing.assert_allclose(found.boxes_xyxy[0], [21.36, 21.36, 78.64, 33.64], atol=0.02)


def test_lines_without_a_character_are_left_out(tmp_path: Path) -> None:
    blank = np.eye(4, dtype=np.float32)[[0, 0, 0]][None]
    reader = load_detector(CARD, synthetic(tmp_path, rec=blank))
    assert len(detect(reader, GRAY, DetectOptions(min_score=0.0))) == 0


@pytest.mark.parametrize("role", ["det", "rec"])
def test_answers_that_are_no_numbers_are_refused(tmp_path: Path, role: str) -> None:
    shapes = {"det": (1, 1, 512, 512), "rec": (1, 5, 4)}
    files = synthetic(tmp_path, **{role: np.full(shapes[role], np.nan, np.float32)})  # type: ignore[arg-type]
    with pytest.raises(NonFiniteOutputError, match=role):
        detect(load_detector(CARD, files), GRAY, DetectOptions())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"characters": ""}, "character"),
        ({"characters": "a\nb\nc"}, "5 columns"),
        ({"rec": np.zeros((1, 4), np.float32)}, "rec: expected one output with 3 axes"),
        ({"det": np.zeros((1, 4), np.float32)}, "det: expected one output with 4 axes"),
    ],
)
def test_graphs_that_do_not_fit_their_role_are_refused(
    tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    with pytest.raises(ModelUnusableError, match=words):
        load_detector(CARD, synthetic(tmp_path, **change))


def test_map_of_another_size_than_the_input_is_refused(tmp_path: Path) -> None:
    files = synthetic(tmp_path, det=np.zeros((1, 1, 128, 128), np.float32))
    with pytest.raises(ModelUnusableError, match="det: expected a map"):
        detect(load_detector(CARD, files), GRAY, DetectOptions())


def test_missing_role_is_named(tmp_path: Path) -> None:
    with pytest.raises(CardError, match="'det' and 'rec'"):
        load_detector(CARD, {"det": synthetic(tmp_path)["det"]})


@given(st.integers(1, 20_000), st.integers(1, 20_000))
def test_detector_input_is_bounded_and_divides_by_32(width: int, height: int) -> None:
    transform = fit((width, height))
    assert all(side % 32 == 0 and 32 <= side <= 2016 for side in transform.input_size)
    assert max(transform.input_size) <= 8 * min(transform.input_size)
    corner = transform.points_to_image(transform.points_to_input(np.array([[width, height]])))
    np.testing.assert_allclose(corner, [[width, height]], rtol=1e-4)


@given(st.lists(st.integers(1, 4800), max_size=40))
def test_batches_hold_each_strip_once_and_stay_small(widths: list[int]) -> None:
    runs = batches(widths)
    assert sorted(i for rows, _ in runs for i in rows) == list(range(len(widths)))
    for rows, width in runs:
        assert width >= max(widths[i] for i in rows)
        assert len(rows) == 1 or len(rows) * width <= 7200


@given(st.lists(st.sampled_from("ab "), max_size=12))
def test_decoding_inverts_the_spelling_with_blanks(letters: list[str]) -> None:
    columns = [c for letter in letters for c in (0, 1 + "ab ".index(letter))]
    steps = np.eye(4, dtype=np.float32)[[*columns, 0]]
    assert read_characters(steps, "ab ")[0] == "".join(letters)


@pytest.mark.parametrize("angle", [-40.0, -10.0, 0.0, 25.0])
def test_line_at_an_angle_keeps_its_corners_in_reading_order(angle: float) -> None:
    turn = np.deg2rad(angle)
    matrix = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    corners = (np.array([[0, 0], [90, 0], [90, 10], [0, 10]]) @ matrix.T).astype(np.float32)
    np.testing.assert_allclose(as_read(corners[[2, 0, 3, 1]]), corners)


def test_strip_is_cut_out_exactly() -> None:
    image = np.random.default_rng(1).integers(0, 255, (40, 60, 3), np.uint8)
    corners = np.array([[10, 5], [50, 5], [50, 25], [10, 25]], np.float32)
    np.testing.assert_array_equal(cut_strip(image, corners), image[5:25, 10:50])
    upright = np.array([[10, 5], [20, 5], [20, 35], [10, 35]], np.float32)
    np.testing.assert_array_equal(cut_strip(image, upright), np.rot90(image[5:35, 10:20]))


def test_specks_and_faint_regions_are_no_lines() -> None:
    page_map = np.zeros((64, 64), np.float32)
    page_map[10, 10] = 1.0
    page_map[30:40, 10:50] = 0.35
    assert len(find_lines(page_map).scores) == 0
