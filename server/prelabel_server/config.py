"""Settings: one frozen value, made by the command line, handed down by the composition root."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from prelabel_models.images import ImageLimits
from prelabel_models.store import default_store_root


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that the server holds every caller to, and reports.

    Attributes:
        image: Bytes, pixels, sides and formats of an image.
        max_message_bytes: Largest gRPC message; leaves room for a full image and its options.
        max_proposals: In one answer.
        max_tiles: Per image: 100 tiles of a small detector already take seconds.
        max_queue_length: Images waiting for a worker.
        max_stream_window: Requests of one stream under way at a time.
        default_deadline_s: Where a caller sets none.
        decode_budget_bytes: Decoded images held at a time.
        image_cache_bytes: Encoded images kept for reuse by digest.
        embedding_cache_bytes: Encoded images of segmenters, 4 to 10 MiB each for SAM.
        embedding_ttl_s: An embedding that nobody used for so long is let go.
        mask_cache_bytes: Low-resolution masks that later requests refine, 256 KiB each for SAM.
        max_metadata_bytes: Of one call.
    """

    image: ImageLimits = field(default_factory=ImageLimits)
    max_message_bytes: int = 32 * 2**20
    max_proposals: int = 1000
    max_tiles: int = 100
    max_queue_length: int = 64
    max_stream_window: int = 16
    default_deadline_s: float = 30.0
    decode_budget_bytes: int = 512 * 2**20
    image_cache_bytes: int = 256 * 2**20
    embedding_cache_bytes: int = 512 * 2**20
    embedding_ttl_s: float = 3600.0
    mask_cache_bytes: int = 64 * 2**20
    max_metadata_bytes: int = 16 * 2**10


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything that `prelabel serve` can be told.

    Attributes:
        listen: gRPC address, `host:port` or `unix:/path`; port 0 takes a free one.
        store_root: Folder of the model store.
        load: Models to load before the first answer; others load on first use.
        device: `auto`, `cpu`, `cuda[:N]` or `tensorrt[:N]`.
        workers: Threads that decode and run models; one per core, since each run uses one.
        drain_s: How long requests in flight may take after SIGTERM.
        roots: Named folders below which requests may name files; none by default.
        limits: Bounds.
    """

    listen: str = "127.0.0.1:50051"
    store_root: Path = field(default_factory=default_store_root)
    load: tuple[str, ...] = ()
    device: str = "auto"
    workers: int = field(default_factory=lambda: available_cores())
    drain_s: float = 30.0
    roots: Mapping[str, Path] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)


def available_cores() -> int:
    """Cores that this process may use: a container's share, not the machine's count."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_OPT_IN_FORMATS = frozenset({"TIFF", "GIF"})


def image_limits(extra_formats: Sequence[str]) -> ImageLimits:
    """The default limits, with further formats allowed.

    Raises:
        ValueError: Not a format that can be allowed.
    """
    wanted = {name.upper() for name in extra_formats}
    if not wanted <= _OPT_IN_FORMATS:
        raise ValueError(
            f"--allow-format: expected {' or '.join(sorted(_OPT_IN_FORMATS))}, "
            f"got {', '.join(sorted(wanted - _OPT_IN_FORMATS))}"
        )
    default = ImageLimits()
    return replace(default, formats=default.formats | wanted)


def parse_roots(pairs: Sequence[str]) -> Mapping[str, Path]:
    """`NAME=FOLDER` to a mapping.

    Raises:
        ValueError: Not of that form, a name given twice, or no such folder.
    """
    roots: dict[str, Path] = {}
    for pair in pairs:
        name, equals, folder = pair.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"--root: expected NAME=FOLDER, got {pair!r}")
        if name in roots:
            raise ValueError(f"--root: the name {name!r} is given twice")
        path = Path(folder)
        if not path.is_dir():
            raise ValueError(f"--root: expected a folder, got {folder!r}")
        roots[name] = path
    return roots
