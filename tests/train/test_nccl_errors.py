"""Errors of NCCL as one line; the GPUs are imitated."""

from __future__ import annotations

import pytest

from persianmind.common.errors import CollectiveError
from persianmind.train.gpu_errors import named_gpu_error
from tests.model.helpers import make_recipe
from tests.train.gpu_texts import NCCL, SETTINGS, line

torch = pytest.importorskip("torch")


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)


SYSTEM = (
    "ncclSystemError: System call (e.g. socket, malloc) or external library call failed or device error. "
)
EXCHANGES = [
    (
        "remote process exited or there was a network error",
        "ncclRemoteError: A call failed possibly due to a network error or a remote process "
        "exiting prematurely.",
        "socketProgressOpt: Call to recv from 172.16.0.2<33759> failed : Connection reset by peer",
        "another rank ended first",
    ),
    (
        "invalid usage",
        "ncclInvalidUsage: This usually reflects invalid usage of NCCL library.",
        "Duplicate GPU detected : rank 1 and rank 0 both on CUDA device a000",
        "two ranks use one GPU",
    ),
    (
        "unhandled system error",
        SYSTEM,
        "Error while creating shared memory segment /dev/shm/nccl-x (size 9637888)",
        "docker run --shm-size",
    ),
    (
        "unhandled system error",
        SYSTEM,
        "Bootstrap : no socket interface found",
        "try, in this order: NCCL_P2P_DISABLE=1, NCCL_IB_DISABLE=1, NCCL_SOCKET_IFNAME=",
    ),
    (
        "unhandled cuda error",
        "ncclUnhandledCudaError: Call to CUDA function failed.",
        "Cuda failure 217 'peer access is not supported between these two devices'",
        "cannot exchange data directly; try, in this order: NCCL_P2P_DISABLE=1",
    ),
]


@pytest.mark.parametrize(("kind", "interpreted", "last", "words"), EXCHANGES)
def test_imitated_nccl_errors_quote_nccl_and_say_what_helps(
    monkeypatch: pytest.MonkeyPatch, kind: str, interpreted: str, last: str, words: str
) -> None:
    text = NCCL.format(kind=kind, interpreted=interpreted, last=last)
    for error in (torch.distributed.DistBackendError(text), RuntimeError(text)):
        assert isinstance(named_gpu_error(error, make_recipe()), CollectiveError)
        said = line(error)
        assert words in said and kind in said and last[:60] in said and "(version 2.28.9)" in said
        assert ("NCCL_DEBUG=INFO" in said) == ("in this order" in words)
    monkeypatch.setenv("NCCL_P2P_DISABLE", "1")  # what is set is not advised again
    assert "NCCL_P2P_DISABLE" not in line(torch.distributed.DistBackendError(text))
