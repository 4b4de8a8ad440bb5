from __future__ import annotations

import grpc
import pytest

from prelabel.errors import from_status
from prelabel.v1 import errors_pb2
from prelabel_models import errors as models
from prelabel_server import errors as server
from prelabel_server.rpc.status import TABLE, to_status


def own_errors(module: object, base: type[Exception]) -> set[type[Exception]]:
    return {cls for cls in vars(module).values() if isinstance(cls, type) and issubclass(cls, base)}


def test_every_error_made_on_purpose_has_a_status() -> None:
    made = own_errors(models, models.ModelsError) | own_errors(server, server.RequestError)
    bases = {models.ModelsError, models.ImageError, server.RequestError}
    covered = {cls for cls in made if any(parent in TABLE for parent in cls.__mro__)}
    assert made - bases == covered


def test_every_reason_is_in_the_contract() -> None:
    names = errors_pb2.ErrorReason.DESCRIPTOR.values_by_name
    known = {name.removeprefix("ERROR_REASON_") for name in names}
    reasons = {outcome.reason for outcome in TABLE.values()} | {"INTERNAL"}
    assert reasons == known - {"UNSPECIFIED"}


def test_a_refusal_at_the_door_says_when_to_come_back() -> None:
    status = to_status(server.QueueFullError("full", 1.25), "r")
    error = from_status(errors_pb2.ErrorStatus.FromString(status.SerializeToString()))
    assert error.code == "RESOURCE_EXHAUSTED"
    assert error.retry_after_s == pytest.approx(1.25)


def test_unexpected_errors_keep_their_text_to_the_log(caplog: pytest.LogCaptureFixture) -> None:
    status = to_status(ValueError("password=hunter2"), "r-9")
    assert status.code == grpc.StatusCode.INTERNAL.value[0]
    assert "hunter2" not in status.message
    assert "r-9" in status.message
    assert "hunter2" in caplog.text
