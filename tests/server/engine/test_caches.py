from __future__ import annotations

import asyncio
import threading
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prelabel_models.images import read_header
from prelabel_models.segmenters.base import Embedding
from prelabel_server.engine.budget import ByteBudget
from prelabel_server.engine.embedding_cache import EmbeddedImage, EmbeddingCache, EmbeddingKey
from prelabel_server.engine.image_cache import ImageCache, ImageKey
from prelabel_server.engine.mask_cache import MaskCache
from server.conftest import photo

HEADER = read_header(photo())


def embedded(nbytes: int) -> EmbeddedImage:
    return EmbeddedImage(Embedding("m", (128, 96), None, nbytes), HEADER, "d")


def key(image: str, owner: str = "", model: str = "m") -> EmbeddingKey:
    return EmbeddingKey(owner, image, model)


text = st.text(max_size=6)


@given(st.tuples(text, text, text, text), st.tuples(text, text, text, text))
def test_keys_are_equal_only_if_every_part_is(
    a: tuple[str, str, str, str], b: tuple[str, str, str, str]
) -> None:
    assert (EmbeddingKey(*a) == EmbeddingKey(*b)) == (a == b)
    assert len({EmbeddingKey(*a), EmbeddingKey(*b)}) == len({a, b})


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(0, 60)), max_size=60))
def test_images_never_take_more_than_the_bound(puts: list[tuple[str, int]]) -> None:
    cache = ImageCache(100)
    for name, size in puts:
        cache.put(ImageKey("", name), bytes(size))
        assert cache.used_bytes <= 100
    held = [cache.get(ImageKey("", name)) for name in "abcdef"]
    assert sum(len(data) for data in held if data is not None) == cache.used_bytes


def test_the_least_recently_used_image_goes_first() -> None:
    cache = ImageCache(30)
    for name in "abc":
        cache.put(ImageKey("", name), bytes(10))
    cache.get(ImageKey("", "a"))
    cache.put(ImageKey("", "d"), bytes(10))
    assert cache.get(ImageKey("", "a")) is not None
    assert cache.get(ImageKey("", "b")) is None


def test_an_image_is_its_owners_alone() -> None:
    cache = ImageCache(100)
    cache.put(ImageKey("ann", "x"), b"1")
    assert cache.get(ImageKey("bob", "x")) is None
    assert cache.get(ImageKey("ann", "x")) == b"1"


class Maker:
    def __init__(self, nbytes: int = 10) -> None:
        self.calls = 0
        self.go = asyncio.Event()
        self.nbytes = nbytes
        self.error: Exception | None = None

    async def __call__(self) -> EmbeddedImage:
        self.calls += 1
        await self.go.wait()
        if self.error:
            raise self.error
        return embedded(self.nbytes)


async def test_all_who_ask_meanwhile_share_one_making() -> None:
    cache, maker = EmbeddingCache(100, 60), Maker()
    tasks = [asyncio.create_task(cache.get_or_make(key("a"), maker)) for _ in range(32)]
    await asyncio.sleep(0)
    maker.go.set()
    results = await asyncio.gather(*tasks)
    assert maker.calls == 1
    assert all(result is results[0] for result in results)
    assert cache.get(key("a")) is results[0]


async def test_one_who_leaves_does_not_take_it_from_the_others() -> None:
    cache, maker = EmbeddingCache(100, 60), Maker()
    first = asyncio.create_task(cache.get_or_make(key("a"), maker))
    second = asyncio.create_task(cache.get_or_make(key("a"), maker))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.sleep(0)
    maker.go.set()
    assert (await second).embedding.nbytes == 10
    assert maker.calls == 1


async def test_when_all_leave_the_making_ends() -> None:
    cache, maker = EmbeddingCache(100, 60), Maker()
    tasks = [asyncio.create_task(cache.get_or_make(key("a"), maker)) for _ in range(2)]
    await asyncio.sleep(0)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await asyncio.sleep(0)
    maker.go.set()
    assert cache.get(key("a")) is None
    assert (await cache.get_or_make(key("a"), maker)).embedding.nbytes == 10
    assert maker.calls == 2


async def test_a_failure_reaches_everyone_and_is_not_kept() -> None:
    cache, maker = EmbeddingCache(100, 60), Maker()
    maker.error = ValueError("no")
    maker.go.set()
    results = await asyncio.gather(
        *(cache.get_or_make(key("a"), maker) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(result, ValueError) for result in results)
    maker.error = None
    assert (await cache.get_or_make(key("a"), maker)).embedding.nbytes == 10


async def test_embeddings_are_bounded_by_bytes_and_time() -> None:
    now = 0.0
    cache = EmbeddingCache(25, 60, clock=lambda: now)
    for name in "abc":
        maker = Maker()
        maker.go.set()
        await cache.get_or_make(key(name), maker)
    assert cache.get(key("a")) is None
    assert cache.stats.used_bytes == 20
    now = 59
    assert cache.get(key("c")) is not None
    now = 61
    assert cache.get(key("b")) is None
    assert cache.get(key("c")) is not None
    assert cache.stats.evictions == 2


async def test_one_that_exceeds_the_bound_is_handed_over_and_not_kept() -> None:
    cache, maker = EmbeddingCache(5, 60), Maker()
    maker.go.set()
    assert (await cache.get_or_make(key("a"), maker)).embedding.nbytes == 10
    assert cache.get(key("a")) is None
    assert cache.stats.used_bytes == 0


@pytest.mark.parametrize("other", [key("b"), key("a", owner="bob"), key("a", model="n")])
def test_a_mask_token_works_for_its_key_only(other: EmbeddingKey) -> None:
    cache = MaskCache(10_000)
    token = cache.put(key("a"), np.zeros((4, 4), np.float32))
    assert cache.get(key("a"), token) is not None
    assert cache.get(other, token) is None
    assert cache.get(key("a"), token + "x") is None


def test_masks_are_bounded() -> None:
    cache = MaskCache(200)
    tokens = [cache.put(key("a"), np.zeros((5, 5), np.float32)) for _ in range(5)]
    held: list[Any] = [cache.get(key("a"), token) for token in tokens]
    assert [mask is not None for mask in held] == [False, False, False, True, True]
    assert len(set(tokens)) == 5


def test_a_budget_is_never_exceeded_and_serves_everyone() -> None:
    budget = ByteBudget(100)
    peak = 0
    lock = threading.Lock()

    def work() -> None:
        nonlocal peak
        for _ in range(50):
            budget.acquire(40)
            with lock:
                peak = max(peak, budget.used_bytes)
            budget.release(40)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()
    assert peak <= 80
    assert budget.used_bytes == 0


def test_a_demand_above_the_budget_is_granted_alone() -> None:
    budget = ByteBudget(100)
    budget.acquire(500)
    assert budget.used_bytes == 500
    budget.release(500)
