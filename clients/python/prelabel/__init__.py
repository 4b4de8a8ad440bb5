"""prelabel: the first pass of every annotation.

The light client of a prelabel server. It needs grpcio and protobuf, nothing else; arrays go in and
come out where numpy is installed.

    from prelabel import Client

    with Client("127.0.0.1:50051") as client:
        result = client.detect("photo.jpg", model="yolox-nano", min_score=0.05)
        for proposal in result.proposals:
            print(proposal.label, proposal.score, proposal.box)
"""

from __future__ import annotations

from prelabel._calls import StreamItem
from prelabel._version import __version__
from prelabel.aio import AsyncClient
from prelabel.client import Client
from prelabel.errors import (
    Cancelled,
    ConnectionFailed,
    DeadlineExceeded,
    ImageNotCached,
    InvalidRequest,
    ModelUnusable,
    NotFound,
    PermissionDenied,
    PrelabelError,
    ResourceExhausted,
    ServerError,
)
from prelabel.session import SegmentSession
from prelabel.types import (
    DetectOptions,
    DetectResult,
    EmbedResult,
    EverythingOptions,
    ImageInfo,
    Mask,
    MaskProposal,
    Model,
    ModelRef,
    Polygon,
    Proposal,
    RotatedBox,
    Scribble,
    SegmentOptions,
    SegmentResult,
    ServerInfo,
    Tiling,
    Timings,
)

__all__ = [
    "AsyncClient",
    "Cancelled",
    "Client",
    "ConnectionFailed",
    "DeadlineExceeded",
    "DetectOptions",
    "DetectResult",
    "EmbedResult",
    "EverythingOptions",
    "ImageInfo",
    "ImageNotCached",
    "InvalidRequest",
    "Mask",
    "MaskProposal",
    "Model",
    "ModelRef",
    "ModelUnusable",
    "NotFound",
    "PermissionDenied",
    "Polygon",
    "PrelabelError",
    "Proposal",
    "ResourceExhausted",
    "RotatedBox",
    "Scribble",
    "SegmentOptions",
    "SegmentResult",
    "SegmentSession",
    "ServerError",
    "ServerInfo",
    "StreamItem",
    "Tiling",
    "Timings",
    "__version__",
]
