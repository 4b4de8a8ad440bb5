"""Use cases: the same code behind gRPC, HTTP and the command line. No transport is known here."""

from __future__ import annotations

from prelabel_server.handlers.handlers import Handlers

__all__ = ["Handlers"]
