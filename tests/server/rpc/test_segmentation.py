from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import numpy as np
import pytest

from models.segmenters import sam_graphs
from prelabel import (
    AsyncClient,
    Client,
    EverythingOptions,
    InvalidRequest,
    Mask,
    ModelUnusable,
    NotFound,
    Scribble,
    SegmentResult,
)
from prelabel.v1 import image_pb2, segmentation_service_pb2_grpc
from prelabel.v1 import segmentation_service_pb2 as pb
from prelabel_models.cards import FileRef, ModelCard
from prelabel_models.images import digest
from prelabel_models.segmenters.sam import SamSegmenter
from prelabel_models.store import ModelStore
from prelabel_server.app import running_server
from prelabel_server.config import Settings
from server.conftest import photo
from server.serving import serving

# 1024 px wide: image and input pixels are the same, so the discs have their radii in the image.
WIDTH, HEIGHT = 1024, 768
CENTRE = (500.0, 400.0)


@pytest.fixture(scope="module")
def discs(tmp_path_factory: pytest.TempPathFactory) -> ModelStore:
    """A store with a SAM whose masks are discs around the mean click."""
    folder = tmp_path_factory.mktemp("discs")
    paths = {
        "encoder": sam_graphs.write_encoder(folder / "encoder.onnx"),
        "decoder": sam_graphs.write_decoder(folder / "decoder.onnx"),
    }
    files = {
        role: FileRef(sha256=hashlib.sha256(path.read_bytes()).hexdigest())
        for role, path in paths.items()
    }
    store = ModelStore(folder / "root")
    store.add(ModelCard(name="discs", task="segment", family="sam", files=files), paths)
    return store


@pytest.fixture
def settings(discs: ModelStore) -> Settings:
    return Settings(
        listen="127.0.0.1:0", store_root=discs.root, device="cpu", workers=2, drain_s=5.0
    )


@pytest.fixture
def picture() -> bytes:
    return photo(WIDTH, HEIGHT, seed=7)


@pytest.fixture
def server(settings: Settings) -> Iterator[str]:
    with serving(settings) as address:
        yield address


@pytest.fixture
def sync_client(server: str) -> Iterator[Client]:
    with Client(server, timeout_s=20) as client:
        yield client


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each time that an encoder ran."""
    runs: list[int] = []
    embed = SamSegmenter.embed

    def counted(self: SamSegmenter, image: Any) -> Any:
        runs.append(1)
        return embed(self, image)

    monkeypatch.setattr(SamSegmenter, "embed", counted)
    return runs


def centre(result: SegmentResult) -> tuple[float, float]:
    x1, y1, x2, y2 = result.masks[0].box
    return (x1 + x2) / 2, (y1 + y2) / 2


async def test_a_click_gives_three_masks_the_best_first(
    client: AsyncClient, picture: bytes
) -> None:
    result = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
    ious = [m.predicted_iou for m in result.masks]
    assert len(ious) == 3
    assert ious == sorted(ious, reverse=True)
    assert centre(result) == pytest.approx(CENTRE, abs=3)
    best = result.masks[0]
    array = best.to_array()
    assert array.shape == (HEIGHT, WIDTH)
    assert array.sum() == best.area_px
    assert 0 <= best.stability_score <= 1
    assert result.image.digest == digest(picture)


async def test_the_image_is_encoded_once_and_travels_once(
    client: AsyncClient, picture: bytes, encodings: list[int]
) -> None:
    first = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
    second = await client.segment(picture, model="discs", points=[(100, 100, True)])
    assert (first.embedding_was_cached, second.embedding_was_cached) == (False, True)
    assert len(encodings) == 1
    source = client._sent.source(picture)
    assert source.WhichOneof("source") == "digest"
    prompts = pb.Prompts(points=[pb.PointPrompt(positive=True)])
    request = pb.SegmentRequest(image=source, model="discs", prompts=prompts, request_id="r" * 32)
    assert request.ByteSize() <= 300


async def test_embedding_ahead_makes_the_first_click_a_later_one(
    client: AsyncClient, picture: bytes, encodings: list[int]
) -> None:
    held = await client.embed(picture, model="discs")
    assert not held.was_cached
    assert held.embedding_bytes > 0
    assert held.expires_at > 0
    assert (await client.embed(picture, model="discs")).was_cached
    click = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
    assert click.embedding_was_cached
    assert len(encodings) == 1


async def test_32_first_clicks_at_once_encode_the_image_once(
    client: AsyncClient, picture: bytes, encodings: list[int]
) -> None:
    results = await asyncio.gather(
        *(client.segment(picture, model="discs", points=[(*CENTRE, True)]) for _ in range(32))
    )
    assert len(encodings) == 1
    assert len({m.masks[0].mask.rle for m in results}) == 1


async def test_users_on_different_images_do_not_meet(client: AsyncClient) -> None:
    pictures = [photo(1024, 512 + 16 * i, seed=i) for i in range(8)]
    random = np.random.default_rng(0)
    clicks = [
        (int(random.integers(8)), float(x), float(y))
        for x, y in random.uniform((100, 100), (900, 400), (64, 2))
    ]

    async def click(image: int, x: float, y: float) -> str | None:
        result = await client.segment(pictures[image], model="discs", points=[(x, y, True)])
        assert result.image.height == 512 + 16 * image
        return result.masks[0].mask.rle

    together = await asyncio.gather(*(click(*c) for c in clicks))
    alone = [await click(*c) for c in clicks]
    assert list(together) == alone


async def test_all_kinds_of_prompts_arrive(client: AsyncClient, picture: bytes) -> None:
    box = await client.segment(picture, model="discs", box=(400, 300, 600, 500))
    assert centre(box) == pytest.approx((500, 400), abs=3)
    line = Scribble(points=[(300, 300), (340, 300)], width_px=4)
    scribbled = await client.segment(picture, model="discs", scribbles=[line])
    assert centre(scribbled) == pytest.approx((320, 300), abs=6)
    shape = np.zeros((HEIGHT, WIDTH), bool)
    shape[100:200, 300:500] = True
    for mask in (shape, Mask.from_array(shape)):
        refined = await client.segment(picture, model="discs", mask=mask)
        assert refined.masks[0].box == pytest.approx((300, 100, 500, 200), abs=6)


async def test_an_earlier_mask_is_refined_by_its_token(client: AsyncClient, picture: bytes) -> None:
    first = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
    refined = await client.segment(
        picture, model="discs", points=[(100, 100, True)], previous_mask=first.masks[0]
    )
    # This decoder gives back the mask that it is given.
    assert refined.masks[0].mask == first.masks[0].mask


async def test_a_token_is_good_for_its_image_only(client: AsyncClient, picture: bytes) -> None:
    first = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
    for image, token in ((photo(seed=99), first.masks[0].token), (picture, "made-up")):
        with pytest.raises(NotFound) as refused:
            await client.segment(image, model="discs", points=[(5, 5, True)], previous_mask=token)
        assert refused.value.reason == "MASK_NOT_CACHED"


@pytest.mark.parametrize("encoding", ["rle", "polygons", "png"])
async def test_masks_come_in_three_encodings(
    client: AsyncClient, picture: bytes, encoding: str
) -> None:
    result = await client.segment(
        picture, model="discs", points=[(*CENTRE, True)], mask_encoding=encoding, max_masks=1
    )
    (mask,) = (m.mask for m in result.masks)
    assert (mask.rle is not None) == (encoding == "rle")
    assert (mask.polygons is not None) == (encoding == "polygons")
    assert (mask.png is not None) == (encoding == "png")


@pytest.mark.parametrize(
    ("prompts", "field"),
    [
        ({}, "prompts"),
        ({"points": [(float("nan"), 1, True)]}, "prompts.points"),
        ({"points": [(5000, 1, True)]}, "prompts.points"),
        ({"points": [(1, 1, True)] * 65}, "prompts.points"),
        ({"box": (10, 10, 5, 20)}, "prompts.boxes"),
        ({"scribbles": [Scribble(points=[(1, 1)])]}, "prompts.scribbles"),
        ({"mask": Mask(size=(4, 4), rle="04")}, "prompts.mask"),
        ({"mask": Mask(size=(2, 2), rle="zzz")}, "prompts.mask"),
        ({"points": [(1, 1, True)], "max_masks": 4}, "options.max_masks"),
    ],
)
async def test_bad_prompts_are_refused_by_name(
    client: AsyncClient, picture: bytes, prompts: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidRequest) as refused:
        await client.segment(picture, model="discs", **prompts)
    assert refused.value.field == field


async def test_a_detector_does_not_segment_and_a_segmenter_does_not_detect(
    client: AsyncClient, picture: bytes
) -> None:
    with pytest.raises(ModelUnusable) as refused:
        await client.detect(picture, model="discs")
    assert refused.value.reason == "WRONG_TASK"


async def test_an_evicted_embedding_is_made_again_and_a_lost_image_is_asked_for(
    settings: Settings, picture: bytes, encodings: list[int]
) -> None:
    tiny = replace(settings.limits, embedding_cache_bytes=0, image_cache_bytes=0)
    async with (
        running_server(replace(settings, limits=tiny)) as port,
        AsyncClient(f"127.0.0.1:{port}") as client,
    ):
        for _ in range(2):
            result = await client.segment(picture, model="discs", points=[(*CENTRE, True)])
            assert not result.embedding_was_cached
        assert len(encodings) == 2
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub: Any = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
            source = image_pb2.ImageSource(digest=digest(picture))
            prompts = pb.Prompts(points=[pb.PointPrompt(positive=True)])
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await stub.Segment(pb.SegmentRequest(image=source, model="discs", prompts=prompts))
            trailers = dict(refused.value.trailing_metadata())
            assert b"IMAGE_NOT_CACHED" in trailers["grpc-status-details-bin"]


def test_undo_and_redo_give_the_masks_of_a_fresh_replay(
    sync_client: Client, picture: bytes
) -> None:
    clicks = [(300.0, 300.0, True), (500.0, 500.0, True), (700.0, 200.0, False)]

    def replayed(count: int) -> list[str | None]:
        with sync_client.session(picture, model="discs") as fresh:
            for x, y, positive in clicks[:count]:
                result = fresh.click(x, y, positive=positive)
        return [m.mask.rle for m in result.masks]

    with sync_client.session(picture, model="discs") as session:
        for x, y, positive in clicks:
            session.click(x, y, positive=positive)
        assert session.prompt_count == 3
        assert [m.mask.rle for m in session.undo().masks] == replayed(2)
        assert [m.mask.rle for m in session.undo().masks] == replayed(1)
        assert session.redo_count == 2
        assert [m.mask.rle for m in session.redo().masks] == replayed(2)
        assert session.undo().masks
        assert session.undo().masks == ()
        assert session.prompt_count == 0


def test_a_refused_action_does_not_end_the_session(sync_client: Client, picture: bytes) -> None:
    with sync_client.session(picture, model="discs") as session:
        with pytest.raises(InvalidRequest):
            session.click(9999, 5)
        assert centre(session.click(*CENTRE)) == pytest.approx(CENTRE, abs=3)
        assert session.prompt_count == 1
        with pytest.raises(InvalidRequest):
            session.choose(7)


def test_a_session_encodes_its_image_once(
    sync_client: Client, picture: bytes, encodings: list[int]
) -> None:
    with sync_client.session(picture, model="discs") as session:
        for i in range(5):
            session.click(100 + i, 100)
    assert len(encodings) == 1


def test_a_session_outlives_a_restart_of_the_server(
    settings: Settings, picture: bytes, tmp_path: Path
) -> None:
    socket = replace(settings, listen=f"unix:{tmp_path}/s")
    with Client(f"unix:{tmp_path}/s", timeout_s=20) as client:
        with serving(socket):
            session = client.session(picture, model="discs")
            before = session.click(*CENTRE)
        with serving(socket):
            after = session.click(100, 100)
            assert session.prompt_count == 2
            # The second click refines the first one's mask, which this decoder gives back.
            assert after.masks[0].mask == before.masks[0].mask
            session.close()


async def test_the_latest_action_wins(server: str, picture: bytes) -> None:
    def action(sequence: int, **what: Any) -> pb.SegmentSessionRequest:
        return pb.SegmentSessionRequest(sequence=sequence, **what)

    def click(sequence: int, x: float) -> pb.SegmentSessionRequest:
        point = pb.PointPrompt(positive=True)
        point.point.x, point.point.y = x, 300
        return action(sequence, point=point)

    start = pb.SessionStart(image=image_pb2.ImageSource(data=picture), model="discs")
    requests = [action(1, start=start), *(click(i, 100.0 + i) for i in range(2, 12))]
    async with grpc.aio.insecure_channel(server) as channel:
        stub: Any = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
        call = stub.SegmentSession(iter(requests))
        replies = [reply async for reply in call]
    kinds = {reply.sequence: reply.WhichOneof("result") for reply in replies}
    assert kinds[1] == "started"
    assert kinds[11] == "masks"
    assert sorted(kinds) == list(range(1, 12))
    # All clicks were sent at once: those in between give way.
    assert sum(kind == "superseded" for kind in kinds.values()) >= 5


async def test_a_session_begins_with_start(server: str) -> None:
    async with grpc.aio.insecure_channel(server) as channel:
        stub: Any = segmentation_service_pb2_grpc.SegmentationServiceStub(channel)
        call = stub.SegmentSession(iter([pb.SegmentSessionRequest(undo=pb.UndoAction())]))
        (reply,) = [reply async for reply in call]
    assert "start" in reply.error.message


def test_everything_is_found_where_the_grid_points(sync_client: Client, picture: bytes) -> None:
    few = EverythingOptions(points_per_side=4, min_predicted_iou=0.75, min_stability_score=0.0)
    result = sync_client.segment_everything(picture, model="discs", everything=few)
    assert len(result.masks) == 4 * 3
    strict = replace(few, min_predicted_iou=0.95)
    assert not sync_client.segment_everything(picture, model="discs", everything=strict).masks
