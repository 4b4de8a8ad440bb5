from __future__ import annotations

import io
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from prelabel import DetectOptions, InvalidRequest, Mask, ResourceExhausted, ServerError
from prelabel._convert import options_to_proto
from prelabel._images import digest, encoded
from prelabel.errors import from_status
from prelabel.v1 import errors_pb2
from prelabel_models.masks import encode_rle


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_masks_are_decoded_as_they_were_encoded(height: int, width: int, seed: int) -> None:
    mask = np.random.default_rng(seed).random((height, width)) > 0.5
    rle = encode_rle(mask)
    assert (Mask(size=(rle.height, rle.width), rle=rle.counts).to_array() == mask).all()


@pytest.mark.parametrize("mask", [Mask(size=(2, 2), rle="9"), Mask(size=(2, 2), rle="P"), Mask()])
def test_masks_that_do_not_add_up_are_refused(mask: Mask) -> None:
    with pytest.raises(ValueError, match="to_array"):
        mask.to_array()


@given(st.integers(1, 30), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_arrays_travel_without_loss(height: int, width: int, seed: int) -> None:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    with Image.open(io.BytesIO(encoded(pixels))) as image:
        assert image.format == "PNG"
        assert (np.asarray(image.convert("RGB")) == pixels).all()


def test_arrays_need_not_be_contiguous() -> None:
    pixels = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[:, ::-1]
    with Image.open(io.BytesIO(encoded(pixels))) as image:
        assert (np.asarray(image) == pixels).all()


def test_paths_and_bytes_are_sent_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    path.write_bytes(b"abc")
    assert encoded(path) == encoded(str(path)) == encoded(b"abc") == encoded(bytearray(b"abc"))
    assert digest(b"abc").startswith("sha256:ba7816bf")


@pytest.mark.parametrize(
    "wrong", [np.zeros((2, 2), np.uint8), np.zeros((2, 2, 3)), np.zeros((0, 2, 3), np.uint8)]
)
def test_arrays_of_another_shape_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected an array of shape"):
        encoded(wrong)


def test_other_things_are_refused() -> None:
    with pytest.raises(TypeError, match="got int"):
        encoded(7)  # type: ignore[arg-type]


@pytest.mark.parametrize("wrong", [{"coordinate_frame": "mirror"}, {"mask_encoding": "jpeg"}])
def test_unknown_words_are_refused_before_anything_is_sent(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="expected one of"):
        options_to_proto(DetectOptions(**wrong))  # type: ignore[arg-type]


def test_unset_options_stay_unset() -> None:
    message = options_to_proto(DetectOptions())
    assert not message.HasField("min_score")
    assert not message.HasField("nms")
    assert not message.HasField("tiling")
    assert options_to_proto(DetectOptions(min_score=0.0)).HasField("min_score")


def status_with_all_details(code: grpc.StatusCode) -> errors_pb2.ErrorStatus:
    """Google's own messages on the wire, read with ours."""
    info = error_details_pb2.ErrorInfo(
        reason="INVALID_FIELD", domain="prelabel", metadata={"request_id": "r"}
    )
    bad = error_details_pb2.BadRequest(
        field_violations=[error_details_pb2.BadRequest.FieldViolation(field="image")]
    )
    retry = error_details_pb2.RetryInfo(
        retry_delay=duration_pb2.Duration(seconds=1, nanos=500_000_000)
    )
    details = []
    for message in (info, bad, retry):
        packed = any_pb2.Any()
        packed.Pack(message)
        details.append(packed)
    status = status_pb2.Status(code=code.value[0], message="no", details=details)
    return errors_pb2.ErrorStatus.FromString(status.SerializeToString())


def test_rich_errors_are_read_without_googleapis() -> None:
    error = from_status(status_with_all_details(grpc.StatusCode.INVALID_ARGUMENT))
    assert type(error) is InvalidRequest
    assert str(error) == "no"
    assert (error.reason, error.field, error.retry_after_s) == ("INVALID_FIELD", "image", 1.5)
    assert error.request_id == "r"


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, ResourceExhausted),
        (grpc.StatusCode.INTERNAL, ServerError),
        (grpc.StatusCode.DATA_LOSS, ServerError),
    ],
)
def test_codes_without_details_still_have_a_class(
    code: grpc.StatusCode, kind: type[Exception]
) -> None:
    error = from_status(errors_pb2.ErrorStatus(code=code.value[0], message="no"))
    assert type(error) is kind
    assert error.code == code.name
