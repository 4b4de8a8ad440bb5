from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from prelabel import (
    AsyncClient,
    InvalidRequest,
    ModelUnusable,
    NotFound,
    PrelabelError,
    ResourceExhausted,
    ServerError,
    Tiling,
)
from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    image_pb2,
)
from prelabel_models.images import digest
from prelabel_models.store import ModelStore
from prelabel_server.app import running_server
from prelabel_server.config import Settings
from server.conftest import add_model, photo

# 128x96 on a 64x64 input: half size, so image pixels are twice the input's.
DOG = (16.0, 24.0, 48.0, 40.0)
CAT = (88.0, 64.0, 104.0, 96.0)


async def test_proposals_come_in_pixels_of_the_image_highest_score_first(
    client: AsyncClient,
) -> None:
    result = await client.detect(photo(), model="constant", min_score=0.3)
    assert [(p.label, p.class_id) for p in result.proposals] == [("dog", 1), ("cat", 0)]
    assert [p.score for p in result.proposals] == pytest.approx([0.9, 0.4])
    assert result.proposals[0].box == pytest.approx(DOG)
    assert result.proposals[1].box == pytest.approx(CAT)
    assert all(p.confidence is None for p in result.proposals)


async def test_answer_names_model_image_and_time(client: AsyncClient, store: ModelStore) -> None:
    data = photo()
    result = await client.detect(data, model="constant", request_id="mine")
    assert result.request_id == "mine"
    assert result.model.name == "constant"
    assert result.model.digest == store.get("constant").card.digest()
    assert (result.image.width, result.image.height) == (128, 96)
    assert result.image.digest == digest(data)
    assert result.image.format == "JPEG"
    assert result.image.coordinate_frame == "displayed"
    assert result.timings.total_ms >= result.timings.inference_ms > 0
    assert result.timings.decode_ms > 0
    assert result.timings.batch_size == 1


async def test_a_path_bytes_and_an_array_give_the_same(client: AsyncClient, tmp_path: Path) -> None:
    data = photo()
    path = tmp_path / "photo.jpg"
    path.write_bytes(data)
    pixels = np.zeros((96, 128, 3), np.uint8)
    boxes = {
        tuple(p.box for p in (await client.detect(image, model="constant")).proposals)
        for image in (data, path, str(path), pixels)
    }
    assert len(boxes) == 1


async def test_options_reach_the_model(client: AsyncClient) -> None:
    async def labels(**options: Any) -> list[str]:
        result = await client.detect(photo(), model="constant", **options)
        return [p.label for p in result.proposals]

    assert await labels(min_score=0.5) == ["dog"]
    assert await labels(min_score=0.3, labels=["cat"]) == ["cat"]
    assert await labels(min_score=0.3, label_min_scores={"cat": 0.5}) == ["dog"]
    assert await labels(min_score=0.3, label_map={"dog": "Hund"}) == ["Hund", "cat"]
    assert await labels(min_score=0.3, max_proposals=1) == ["dog"]


async def test_min_score_of_zero_keeps_what_has_no_score(client: AsyncClient) -> None:
    result = await client.detect(photo(), model="constant", min_score=0.0, nms_disabled=True)
    # Two boxes with three classes each; the other cells are empty boxes.
    assert len(result.proposals) == 6
    assert sum(p.score == 0 for p in result.proposals) == 4


async def test_tiles_are_merged_into_one_answer(client: AsyncClient) -> None:
    tiling = Tiling(tile_size_px=64, overlap=0.0, skip_full_image=True)
    result = await client.detect(photo(128, 64), model="constant", min_score=0.5, tiling=tiling)
    assert sorted(p.box for p in result.proposals) == [
        pytest.approx((8, 12, 24, 20)),
        pytest.approx((72, 12, 88, 20)),
    ]


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"min_score": 1.5}, "options.min_score", "1.5"),
        ({"min_score": float("nan")}, "options.min_score", "nan"),
        ({"nms_iou": -1.0}, "options.nms.iou_threshold", "-1"),
        ({"labels": ["cta"]}, "options.labels", "did you mean cat"),
        ({"label_min_scores": {"fish": 0.5}}, "options.label_min_scores", "fish"),
        ({"label_min_scores": {"cat": 2.0}}, "options.label_min_scores", "2"),
        ({"label_map": {"cat": ""}}, "options.label_map", "expected"),
        ({"tiling": Tiling(overlap=0.95)}, "options.tiling.overlap", "0.95"),
        ({"tiling": Tiling(tile_size_px=1)}, "options.tiling.tile_size_px", "at most 100"),
        ({"polygon_tolerance_px": -1.0}, "options.polygon_tolerance_px", "-1"),
    ],
)
async def test_bad_options_are_refused_by_name(
    client: AsyncClient, options: dict[str, Any], field: str, words: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await client.detect(photo(), model="constant", **options)
    assert refused.value.code == "INVALID_ARGUMENT"
    assert refused.value.reason == "INVALID_FIELD"
    assert refused.value.field == field
    assert words in str(refused.value)


async def test_unknown_enum_values_are_refused(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_service_pb2_grpc.DetectionServiceStub(channel)
        options = detection_service_pb2.DetectOptions()
        options.MergeFromString(b"\x40\x63")  # coordinate_frame = 99
        request = detection_service_pb2.DetectRequest(
            image=image_pb2.ImageSource(data=photo()), model="constant", options=options
        )
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Detect(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "coordinate_frame" in (refused.value.details() or "")


@pytest.mark.parametrize(
    ("image", "model", "error", "reason"),
    [
        (b"", "constant", InvalidRequest, "INVALID_FIELD"),
        (b"hello, I am not a picture", "constant", InvalidRequest, "IMAGE_FORMAT"),
        (photo()[:-200], "constant", InvalidRequest, "IMAGE_DAMAGED"),
        (photo(), "", InvalidRequest, "INVALID_FIELD"),
        (photo(), "no-such-model", NotFound, "MODEL_NOT_FOUND"),
        (photo(), "../../etc/passwd", InvalidRequest, "INVALID_FIELD"),
        (photo(), "nan", ServerError, "NON_FINITE_OUTPUT"),
    ],
)
async def test_what_cannot_be_answered_is_refused_with_a_reason(
    client: AsyncClient, image: bytes, model: str, error: type[PrelabelError], reason: str
) -> None:
    with pytest.raises(error) as refused:
        await client.detect(image, model=model, request_id="r-1")
    assert refused.value.reason == reason
    assert refused.value.request_id == "r-1"


async def test_no_image_at_all_is_refused(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_service_pb2_grpc.DetectionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="expected one of data, digest"):
            await stub.Detect(detection_service_pb2.DetectRequest(model="constant"))


async def test_an_unexpected_error_tells_an_id_and_nothing_else(
    client: AsyncClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*args: object) -> None:
        raise RuntimeError("secret /srv/path")

    monkeypatch.setattr("prelabel_server.rpc.converters.detect_answer_to_proto", explode)
    with pytest.raises(ServerError) as failed:
        await client.detect(photo(), model="constant", request_id="r-2")
    assert failed.value.reason == "INTERNAL"
    assert "secret" not in str(failed.value)
    assert "r-2" in str(failed.value)
    assert "secret /srv/path" in caplog.text


async def test_the_second_time_an_image_goes_by_its_digest(address: str) -> None:
    data = photo(640, 480)
    async with AsyncClient(address) as client:
        first = await client.detect(data, model="constant")
        assert client._sent.source(data).WhichOneof("source") == "digest"
        second = await client.detect(data, model="constant")
    assert second.proposals == first.proposals


async def test_an_image_that_the_server_lost_is_sent_again(settings: Settings) -> None:
    data = photo(640, 480)
    async with running_server(settings) as port, AsyncClient(f"127.0.0.1:{port}") as client:
        client._sent.remember(digest(data))  # as if a server before this one had had it
        result = await client.detect(data, model="constant")
        assert result.image.digest == digest(data)


async def test_an_unknown_digest_is_answered_with_its_reason(address: str) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_service_pb2_grpc.DetectionServiceStub(channel)
        source = image_pb2.ImageSource(digest="sha256:" + "0" * 64)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Detect(detection_service_pb2.DetectRequest(image=source, model="constant"))
        assert refused.value.code() is grpc.StatusCode.NOT_FOUND
        assert (
            b"IMAGE_NOT_CACHED"
            in dict(refused.value.trailing_metadata())["grpc-status-details-bin"]
        )


async def source_error(address: str, source: image_pb2.ImageSource) -> grpc.aio.AioRpcError:
    async with grpc.aio.insecure_channel(address) as channel:
        stub = detection_service_pb2_grpc.DetectionServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Detect(detection_service_pb2.DetectRequest(image=source, model="constant"))
        return refused.value


async def test_paths_and_urls_are_off_by_default(address: str) -> None:
    path = image_pb2.ImageSource(path=image_pb2.RootedPath(root="photos", path="a.jpg"))
    url = image_pb2.ImageSource(url="http://127.0.0.1/a.jpg")
    for source in (path, url):
        refused = await source_error(address, source)
        assert refused.code() is grpc.StatusCode.PERMISSION_DENIED


@pytest.mark.parametrize(
    "path", ["../secret.jpg", "/etc/passwd", "a/../../secret.jpg", "link.jpg", "", ".", "no.jpg"]
)
async def test_rooted_paths_do_not_leave_their_folder(
    settings: Settings, tmp_path: Path, path: str
) -> None:
    root = tmp_path / "photos"
    root.mkdir()
    (root / "a.jpg").write_bytes(photo())
    (tmp_path / "secret.jpg").write_bytes(photo())
    (root / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    async with running_server(replace(settings, roots={"photos": root})) as port:
        address = f"127.0.0.1:{port}"
        source = image_pb2.ImageSource(path=image_pb2.RootedPath(root="photos", path=path))
        refused = await source_error(address, source)
        assert refused.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with grpc.aio.insecure_channel(address) as channel:
            stub = detection_service_pb2_grpc.DetectionServiceStub(channel)
            good = image_pb2.ImageSource(path=image_pb2.RootedPath(root="photos", path="a.jpg"))
            reply = await stub.Detect(
                detection_service_pb2.DetectRequest(image=good, model="constant")
            )
            assert len(reply.proposals) == 2


async def test_a_stream_answers_every_image_and_survives_bad_ones(client: AsyncClient) -> None:
    images = [photo(seed=i) if i % 5 else b"broken" for i in range(40)]
    items = [item async for item in client.detect_many(images, model="constant", window=7)]
    assert [item.index for item in items] == list(range(40))
    for item in items:
        if item.index % 5:
            assert item.unwrap().image.digest == digest(images[item.index])
        else:
            assert isinstance(item.error, InvalidRequest)
            assert item.error.reason == "IMAGE_FORMAT"


async def test_a_stream_reads_no_further_ahead_than_its_window(client: AsyncClient) -> None:
    read = 0

    def images() -> Iterator[bytes]:
        nonlocal read
        for i in range(60):
            read += 1
            yield photo(seed=i)

    seen = 0
    async for _ in client.detect_many(images(), model="constant", window=4):
        seen += 1
        assert read <= seen + 5
    assert seen == 60


async def test_an_image_over_the_limit_names_the_limit(settings: Settings) -> None:
    image_limits = replace(settings.limits.image, max_pixels=1000)
    small = replace(settings, limits=replace(settings.limits, image=image_limits))
    async with running_server(small) as port, AsyncClient(f"127.0.0.1:{port}") as client:
        with pytest.raises(ResourceExhausted, match=r"1,?000") as refused:
            await client.detect(photo(), model="constant")
        assert refused.value.reason == "IMAGE_TOO_LARGE"
        assert (await client.server_info()).limits["max_image_pixels"] == 1000


async def test_models_are_listed_loaded_unloaded_and_loaded_again(client: AsyncClient) -> None:
    names = [model.name for model in await client.models()]
    assert {"constant", "nan"} <= set(names)
    assert names == sorted(names)
    loaded = await client.load_model("constant")
    assert loaded.state == "ready"
    assert loaded.device == "cpu"
    assert loaded.execution_provider == "CPUExecutionProvider"
    assert loaded.input_size == (64, 64)
    assert loaded.labels == ("cat", "dog", "bird")
    assert (await client.unload_model("constant")).state == "available"
    with pytest.raises(ModelUnusable) as refused:
        await client.detect(photo(), model="constant")
    assert refused.value.reason == "MODEL_NOT_LOADED"
    await client.load_model("constant")
    assert len((await client.detect(photo(), model="constant")).proposals) == 2


async def test_a_damaged_model_is_refused_and_the_others_go_on(
    tmp_path: Path, settings: Settings
) -> None:
    store = ModelStore(tmp_path / "root")
    add_model(store, tmp_path, "good")
    card = add_model(store, tmp_path, "bad", np.zeros((1, 84, 8), np.float32))
    (blob,) = (tmp_path / "root").rglob(card.files["model"].sha256)
    blob.chmod(0o644)
    data = bytearray(blob.read_bytes())
    data[len(data) // 2] ^= 1
    blob.write_bytes(data)
    async with (
        running_server(replace(settings, store_root=store.root)) as port,
        AsyncClient(f"127.0.0.1:{port}") as client,
    ):
        with pytest.raises(ModelUnusable) as refused:
            await client.detect(photo(), model="bad")
        assert refused.value.reason == "MODEL_UNUSABLE"
        assert str(tmp_path) not in str(refused.value)
        assert (await client.model("bad")).state == "failed"
        assert len((await client.detect(photo(), model="good")).proposals) == 2


async def test_many_first_requests_load_a_model_once(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "prelabel_server")
    async with running_server(settings) as port, AsyncClient(f"127.0.0.1:{port}") as client:
        await asyncio.gather(*(client.detect(photo(), model="constant") for _ in range(16)))
    assert caplog.text.count("loaded model constant") == 1
