"""Builds the gRPC server: options, services, health, reflection."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from prelabel.v1 import (
    detection_service_pb2,
    detection_service_pb2_grpc,
    model_service_pb2,
    model_service_pb2_grpc,
    segmentation_service_pb2,
    segmentation_service_pb2_grpc,
)
from prelabel_server.config import Limits
from prelabel_server.handlers import Handlers
from prelabel_server.rpc.segmentation import SegmentationServicer
from prelabel_server.rpc.servicers import DetectionServicer, ModelServicer

SERVICES: Sequence[str] = (
    detection_service_pb2.DESCRIPTOR.services_by_name["DetectionService"].full_name,
    segmentation_service_pb2.DESCRIPTOR.services_by_name["SegmentationService"].full_name,
    model_service_pb2.DESCRIPTOR.services_by_name["ModelService"].full_name,
)


class RpcServer:
    """The gRPC transport.

    Args:
        handlers: The use cases.
        version: Reported by GetServerInfo.
    """

    def __init__(self, handlers: Handlers, version: str) -> None:
        self._server = grpc.aio.server(options=channel_options(handlers.settings.limits))
        self._health = health.aio.HealthServicer()
        server: Any = self._server  # the generated functions are declared for either kind
        detection_service_pb2_grpc.add_DetectionServiceServicer_to_server(
            DetectionServicer(handlers), server
        )
        segmentation_service_pb2_grpc.add_SegmentationServiceServicer_to_server(
            SegmentationServicer(handlers), server
        )
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(
            ModelServicer(handlers, version), server
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = (*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection(names, server)

    async def start(self, listen: str) -> int:
        """Open the port and report SERVING.

        Args:
            listen: `host:port` or `unix:/path`; port 0 takes a free one.

        Returns:
            The port; 1 for a Unix socket, as gRPC has it.

        Raises:
            OSError: The address is taken or not ours.
        """
        try:
            port: int = self._server.add_insecure_port(listen)
        except RuntimeError as err:
            raise OSError(f"cannot listen on {listen}: is it taken?") from err
        await self._server.start()
        await self._set_health(health_pb2.HealthCheckResponse.SERVING)
        return port

    async def refuse(self) -> None:
        """Report NOT_SERVING: load balancers send nothing more."""
        await self._set_health(health_pb2.HealthCheckResponse.NOT_SERVING)

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more; calls in flight have `grace_s` to finish."""
        await self._server.stop(grace_s)

    async def _set_health(self, status: Any) -> None:
        for name in ("", *SERVICES):
            await self._health.set(name, status)


def channel_options(limits: Limits) -> list[tuple[str, Any]]:
    """GRPC's own limits; the numbers are those of `Limits` or explained here."""
    return [
        ("grpc.max_receive_message_length", limits.max_message_bytes),
        ("grpc.max_send_message_length", limits.max_message_bytes),
        ("grpc.max_metadata_size", limits.max_metadata_bytes),
        ("grpc.so_reuseport", 0),  # a second server on the port is an error, not a lottery
        ("grpc.server_handshake_timeout_ms", 10_000),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        # Clients may ping idle connections, but not faster than this.
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.min_ping_interval_without_data_ms", 30_000),
    ]
