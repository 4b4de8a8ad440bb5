"""Many image files through a model, here or on a server; no file stops the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prelabel import Client, StreamItem, types
from prelabel.errors import PrelabelError, ResourceExhausted

if TYPE_CHECKING:
    from prelabel_server.local import LocalClient

# What is taken for an image in a folder; a file that is named itself may end in anything.
IMAGE_SUFFIXES = frozenset(
    {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"},
)
# Images under way at a time: enough to keep a server busy, few enough that the last of them is not
# kept waiting beyond a server's default deadline by a model that takes seconds.
_WINDOW = 8
# Nobody waits at the other end of a run in this process, so that a slow model may be slow.
_LOCAL_DEADLINE_S = 3600.0


class Detecting(Protocol):
    """What `Client` and `LocalClient` have in common."""

    def detect_many(
        self,
        images: Iterable[bytes],
        *,
        model: str,
        options: types.DetectOptions | None = None,
        window: int = 16,
    ) -> Iterator[StreamItem]:
        """See `prelabel.Client.detect_many`."""
        ...

    def model(self, name: str) -> types.Model:
        """See `prelabel.Client.model`."""
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """Where the model runs.

    Attributes:
        client: Asks it.
        max_image_bytes: Larger files are not sent; 0 where the engine refuses them itself.
    """

    client: Detecting
    max_image_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one file: a result, or an error."""

    path: Path
    result: types.DetectResult | None = None
    error: PrelabelError | None = None


@contextmanager
def engine(server: str | None, store: Path | None, device: str) -> Iterator[Engine]:
    """A server's, or one in this process.

    Args:
        server: Address of a server; None runs the model here.
        store: Folder of the model store, for a run here.
        device: Likewise.

    Raises:
        PrelabelError: The server does not answer.
        MissingExtraError: A run here needs a part that is not installed.
    """
    if server is not None:
        with Client(server) as client:
            # Asked first: one message over the server's limit would end the stream of all images.
            limit = client.server_info().limits["max_image_bytes"]
            yield Engine(client, limit)
        return
    with local_client(store, device) as local:
        yield Engine(local)


@contextmanager
def local_client(store: Path | None, device: str) -> Iterator[LocalClient]:
    """The handlers in this process.

    Args:
        store: Folder of the model store; None for the user's.
        device: Where the model runs.

    Raises:
        MissingExtraError: A run here needs a part that is not installed.
    """
    with missing_part("running a model in this process", "cpu"):
        from prelabel_server.config import Limits, Settings
        from prelabel_server.local import LocalClient
    settings = Settings(device=device, limits=Limits(default_deadline_s=_LOCAL_DEADLINE_S))
    if store is not None:
        settings = replace(settings, store_root=store)
    with LocalClient(settings) as local:
        yield local


@contextmanager
def missing_part(what: str, extra: str) -> Iterator[None]:
    """Turn a failed import of an optional dependency into a sentence.

    Raises:
        PrelabelError: A module that is not part of prelabel is missing; says what to install.
    """
    try:
        yield
    except ModuleNotFoundError as err:
        if (err.name or "").partition(".")[0].startswith("prelabel"):
            raise  # a defect, not a choice of the person who installed
        raise PrelabelError(
            f"{what} needs an optional part: pip install 'prelabel[{extra}]'"
        ) from err


def find_images(inputs: Sequence[Path]) -> list[Path]:
    """Files as given, folders as the images below them in alphabetical order; each file once.

    Raises:
        ValueError: An input does not exist, or nothing was found.
    """
    found: dict[Path, None] = {}
    for path in inputs:
        if path.is_dir():
            below = (f for f in path.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
            found.update(dict.fromkeys(sorted(f for f in below if f.is_file())))
        elif path.exists():
            found[path] = None
        else:
            raise ValueError(f"IMAGE: there is no file or folder {str(path)!r}")
    if not found:
        raise ValueError("IMAGE: expected at least one image, found none in the folders given")
    return list(found)


def run(
    where: Engine, paths: Sequence[Path], model: str, options: types.DetectOptions
) -> Iterator[Outcome]:
    """Pre-label files; in their order, each as soon as it and those before it are done.

    Args:
        where: The engine.
        paths: Image files.
        model: Name of the model.
        options: For every image.

    Raises:
        PrelabelError: The stream as a whole failed, for example because the server went away; or
            the model or an option was refused, which no further image would change.
    """
    where.client.model(model)  # one error for a wrong name, instead of one per image
    feed = _Feed(paths, where.max_image_bytes)
    upcoming = 0
    for item in where.client.detect_many(feed, model=model, options=options, window=_WINDOW):
        if item.error is not None and item.error.field.startswith("options."):
            raise item.error
        position = feed.sent[item.index]
        for unsent in range(upcoming, position):
            yield feed.failed[unsent]
        yield Outcome(paths[position], item.result, item.error)
        upcoming = position + 1
    for unsent in range(upcoming, len(paths)):
        yield feed.failed[unsent]


class _Feed:
    """The bytes of the files that can be read; may be iterated in a thread of its own.

    Attributes:
        sent: Position of each file that was sent.
        failed: Position to outcome, for those that could not be.
    """

    def __init__(self, paths: Sequence[Path], max_bytes: int) -> None:
        self._paths = paths
        self._max_bytes = max_bytes
        self.sent: list[int] = []
        self.failed: dict[int, Outcome] = {}

    def __iter__(self) -> Iterator[bytes]:
        for position, path in enumerate(self._paths):
            try:
                size = path.stat().st_size
                if self._max_bytes and size > self._max_bytes:
                    self.failed[position] = Outcome(path, error=_too_large(size, self._max_bytes))
                    continue
                data = path.read_bytes()
            except OSError as err:
                self.failed[position] = Outcome(path, error=_unreadable(err))
                continue
            self.sent.append(position)
            yield data


def _too_large(size: int, limit: int) -> PrelabelError:
    return ResourceExhausted(
        f"image: expected at most {limit} bytes, got {size}",
        code="RESOURCE_EXHAUSTED",
        reason="IMAGE_TOO_LARGE",
    )


def _unreadable(err: OSError) -> PrelabelError:
    return PrelabelError(
        f"image: the file cannot be read: {err.strerror or err}",
        code="INVALID_ARGUMENT",
        reason="FILE_UNREADABLE",
    )


def record(outcome: Outcome) -> dict[str, Any]:
    """An outcome as plain values for JSON; what a proposal does not have is left out."""
    if outcome.result is None:
        error = outcome.error or PrelabelError("the run ended before the answer")
        failure = {"code": error.code, "reason": error.reason, "message": str(error)}
        return {"path": str(outcome.path), "error": failure}
    result = outcome.result
    image, timings = result.image, result.timings
    return {
        "path": str(outcome.path),
        "model": {
            "name": result.model.name,
            "version": result.model.version,
            "digest": result.model.digest,
        },
        "image": {
            "digest": image.digest,
            "width": image.width,
            "height": image.height,
            "format": image.format,
            "coordinate_frame": image.coordinate_frame,
            "exif_orientation": image.exif_orientation,
        },
        "proposals": [_proposal(p) for p in result.proposals],
        "truncated": result.truncated,
        "timings_ms": {
            "decode": timings.decode_ms,
            "queue": timings.queue_ms,
            "preprocess": timings.preprocess_ms,
            "inference": timings.inference_ms,
            "postprocess": timings.postprocess_ms,
            "total": timings.total_ms,
        },
    }


def _proposal(proposal: types.Proposal) -> dict[str, Any]:
    plain: dict[str, Any] = {
        "label": proposal.label,
        "class_id": proposal.class_id,
        "score": proposal.score,
        "box": list(proposal.box),
    }
    rotated, mask = proposal.rotated_box, proposal.mask
    if proposal.confidence is not None:
        plain["confidence"] = proposal.confidence
    if rotated is not None:
        plain["rotated_box"] = {
            "center_x": rotated.center_x,
            "center_y": rotated.center_y,
            "width": rotated.width,
            "height": rotated.height,
            "angle_degrees": rotated.angle_degrees,
        }
    if proposal.outline is not None:
        plain["outline"] = [list(point) for point in proposal.outline]
    if mask is not None and mask.rle is not None and mask.size is not None:
        plain["mask"] = {"size": list(mask.size), "counts": mask.rle}
    if proposal.text is not None:
        plain["text"] = proposal.text
    if proposal.key_points:
        plain["key_points"] = [list(point) for point in proposal.key_points]
    return plain
