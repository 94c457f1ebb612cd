"""The start-up exchange: a rank that does not come, stops or is cut off is named in seconds."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from typing import Any

import pytest

from persianmind.common.errors import HangError, MachineError, RankUnreachableError
from persianmind.engine import rollcall
from persianmind.engine.presence import Presence, check_agreement, presence
from persianmind.engine.ranks import Ranks
from persianmind.engine.rollcall import LEAST_LIMIT_S, START_LIMIT_S, RollCall, start_limit_s
from tests.engine.start_worker import LIMIT_S, PATIENCE_S, UNGUARDED_S
from tests.support.launch import ROOT
from tests.support.log import logged

HANGS = HangError.exit_code
GPU = "NVIDIA GeForce RTX 3090"


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What every scenario of start_worker.py came to."""
    out = tmp_path_factory.mktemp("start") / "seen.json"
    worker = ROOT / "tests" / "engine" / "start_worker.py"
    done = subprocess.run(
        [sys.executable, str(worker), str(out)], cwd=ROOT, capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def errors(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("persianmind: error:")]


@pytest.mark.integration
def test_ranks_that_all_come_join_and_say_what_was_set(seen: dict[str, Any]) -> None:
    here = seen["none:0"]
    assert here["codes"] == [0, 0], here["texts"]
    assert "environment on box0: NAME=0 (a test sets it)" in here["texts"][0]
    assert "environment on box0: NAME=1 (a test sets it)" in here["texts"][0]
    assert "environment" not in here["texts"][1]


@pytest.mark.integration
def test_a_rank_that_never_starts_is_named_with_its_imitated_gpu(seen: dict[str, Any]) -> None:
    here = seen["absent:1"]
    assert here["codes"] == [HANGS, None] and here["seconds"] < LIMIT_S + 15
    (line,) = errors(here["texts"][0])
    assert f"for rank 1 (GPU 1 ({GPU}) on box0), which did not come" in line
    assert "firewall at 127.0.0.1:" in line and "NCCL_DEBUG=INFO" in line and "NCCL_SOCKET_IFNAME" in line


@pytest.mark.integration
@pytest.mark.parametrize("stopped", [0, 1])
def test_a_rank_that_stops_before_it_joins_is_named(seen: dict[str, Any], stopped: int) -> None:
    """Also rank 0, whose process hosts the store that everybody asks."""
    here = seen[f"stopped:{stopped}"]
    assert here["codes"][1 - stopped] == HANGS and here["seconds"] < LIMIT_S + 15
    (line,) = errors(here["texts"][1 - stopped])
    assert f"rank {stopped} (pid " in line and "gives no sign of life" in line
    assert f"GPU {stopped} ({GPU}) on box0" in line and f"rank {1 - stopped} (pid" not in line


@pytest.mark.integration
def test_a_rank_that_dies_before_it_joins_is_named(seen: dict[str, Any]) -> None:
    here = seen["killed:1"]
    assert here["codes"] == [HANGS, -9], here["texts"]
    assert "rank 1 (pid " in errors(here["texts"][0])[0]


@pytest.mark.integration
def test_a_rank_that_cannot_reach_rank_0_says_so_itself(seen: dict[str, Any]) -> None:
    here = seen["unreachable:1"]
    assert here["codes"][0] == HANGS and "for rank 1 (" in errors(here["texts"][0])[0]
    assert here["codes"][1] == HANGS and here["seconds"] > PATIENCE_S
    assert (
        "has waited" in here["texts"][1]
        and "was not reached" in here["texts"][1]
        and "rank 0 at 127.0.0.1:" in here["texts"][1]
    )


@pytest.mark.integration
def test_ranks_that_decided_differently_do_not_train(seen: dict[str, Any]) -> None:
    here = seen["disagrees:1"]
    assert here["codes"] == [MachineError.exit_code] * 2
    (line,) = errors(here["texts"][0])
    assert "train.precision is bf16 on rank 0 (" in line and "and fp32 on rank 1 (" in line
    assert not errors(here["texts"][1])  # said once


@pytest.mark.integration
@pytest.mark.parametrize("scenario", ["absent-unguarded:1", "stopped-unguarded:1"])
def test_control_without_the_exchange_they_wait_on(seen: dict[str, Any], scenario: str) -> None:
    here = seen[scenario]
    assert here["codes"][0] == -9 and here["seconds"] >= UNGUARDED_S - 1  # killed from outside
    assert not errors(here["texts"][0])


def test_the_limit_follows_the_hang_timeout_within_reason() -> None:
    assert start_limit_s(1800.0) == START_LIMIT_S
    assert start_limit_s(90.0) == 90.0
    assert start_limit_s(3.0) == LEAST_LIMIT_S  # imports of a busy machine


def test_imitated_gpus_of_a_neighbour_that_never_came_are_named_where_known() -> None:
    box1 = presence(Ranks(4, 8, 0, 4), [f"GPU {index} (X)" for index in range(4)])
    call = RollCall(box1, 8)
    call._present = {4: box1}
    assert call._name(4).startswith("rank 4 (pid ")
    assert call._name(6) == f"rank 6 (GPU 2 (X) on {box1.node})"
    assert call._name(1) == "rank 1 (no rank of its node came)"
    # On a cluster each worker sees its own GPU alone.
    alone = presence(Ranks(5, 8, 1, 4), ["GPU 0 (X)"])
    assert alone.device == "GPU 0 (X)" and alone.node_devices == []
    call._present = {5: alone}
    assert call._name(6) == f"rank 6 (on {alone.node})"
    assert presence(Ranks(1, 2, 1, 2), []).device == "CPU"


class Memory(dict[str, str]):
    """A store within this process."""

    def set(self, key: str, value: str) -> None:
        self[key] = value

    def check(self, keys: list[str]) -> bool:
        return all(key in self for key in keys)

    def get(self, key: str) -> bytes:  # type: ignore[override]
        return self[key].encode()


def call_over(store: Memory, patch: pytest.MonkeyPatch, rank: int, tick_s: float = 0.05) -> RollCall:
    patch.setattr(rollcall, "open_store", lambda **_: store)
    return RollCall(
        presence(Ranks(rank, 2, rank, 2), []), 2, limit_s=20 * tick_s, patience_s=30.0, tick_s=tick_s
    )


def test_rank_0_may_prepare_for_long_where_the_store_is_there_before_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Ray and torchrun host it themselves. Once rank 0 is there the limit counts."""
    store = Memory()
    one = call_over(store, monkeypatch, 1)
    late = threading.Timer(2.0, lambda: call_over(store, monkeypatch, 0).gather())
    late.start()
    began_s = time.monotonic()
    with logged() as lines:
        assert [found.rank for found in one.gather()] == [0, 1]
    assert time.monotonic() - began_s > 1.9 and "which may be busy" in lines[0]
    late.join()
    with pytest.raises(RankUnreachableError, match=r"waited \d s for rank 1 .* did not come"):
        call_over(Memory(), monkeypatch, 0).gather()


@pytest.mark.parametrize("progresses", [True, False])
def test_patience_with_rank_0_begins_anew_with_its_progress(
    monkeypatch: pytest.MonkeyPatch, progresses: bool
) -> None:
    """Rank 0 comes after four times the patience. Control: without progress it is given up before."""
    store = Memory()
    one = call_over(store, monkeypatch, 1)
    one._patience_s = 1.0
    began_s = time.monotonic()
    one._progressed_s = time.monotonic if progresses else lambda: began_s
    late = threading.Timer(4.0, lambda: call_over(store, monkeypatch, 0).gather())
    late.start()
    if progresses:
        assert [found.rank for found in one.gather()] == [0, 1]
    else:
        with pytest.raises(RankUnreachableError, match=r"rank 0 at .* was not reached in 1 s"):
            one.gather()
        late.cancel()
    late.join()


def test_what_breaks_the_exchange_is_named_by_silence_or_keeps_its_own_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = Memory()
    calls = [call_over(store, monkeypatch, rank, tick_s=1.0) for rank in range(2)]
    other = threading.Thread(target=calls[1].gather)
    other.start()
    calls[0].gather()
    other.join()
    with pytest.raises(RuntimeError, match="NCCL error"), calls[0]:
        raise RuntimeError("NCCL error: unhandled system error")  # both are alive
    again = call_over(store, monkeypatch, 0, tick_s=1.0)
    again.gather()
    calls[1]._over.set()  # rank 1 is gone
    with pytest.raises(RankUnreachableError, match=r"rank 1 \(.* gives no sign of life \(NCCL error"), again:
        raise RuntimeError("NCCL error: remote process exited")


def test_agreement_is_held_against_rank_0() -> None:
    ones = [
        Presence(r, "box", 1, 0, 1, "CPU", agreed={"train.precision": p}) for r, p in enumerate(("a", "a"))
    ]
    check_agreement(ones)
    odd = Presence(2, "box", 1, 0, 1, "CPU", agreed={})
    with pytest.raises(MachineError, match="None on rank 2"):
        check_agreement([*ones, odd])


def test_the_error_is_one_that_a_cluster_tries_again() -> None:
    from persianmind.cluster.policies import WORTH_RETRYING

    assert RankUnreachableError in WORTH_RETRYING
