"""`make gpu-check SMALL=1`, whole: every part runs on the CPU and leaves what docs/gpus.md promises."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from persianmind.gpucheck.parts.levers import LEVERS
from persianmind.gpucheck.registry import PARTS, SMALL_WHOLE_LIMIT_S
from tests.support.launch import ROOT

# What the check itself allows: a busy machine must not fail it; its folder's budget holds the time.
TIMEOUT_S = SMALL_WHOLE_LIMIT_S + 30
pytestmark = [pytest.mark.more, pytest.mark.integration, pytest.mark.timeout(TIMEOUT_S + 30)]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("gpu-check")
    script = "from persianmind.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", script, "gpu-check", "--small", "--out", str(out)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    failed = {name: one for name, one in found["parts"].items() if one["status"] not in ("passed", "skipped")}
    assert done.returncode == 0, json.dumps(failed, indent=1) + done.stdout
    for name in found["parts"]:
        assert f"gpu-check: {name}: " in done.stdout
    found["left"] = sorted(path.name for path in (out / "parts").iterdir() if path.is_dir())
    return found


def test_every_part_ran_and_none_failed(report: dict[str, Any]) -> None:
    assert list(report["parts"]) == [part.name for part in PARTS]
    assert report["finished"] and report["ok"] and report["small"] and report["seconds"] > 0
    skipped = {name for name, one in report["parts"].items() if one["status"] == "skipped"}
    assert skipped <= {"nvml"}  # this machine may have no NVML
    assert report["left"] == []  # scratch folders are gone
    for name, one in report["parts"].items():
        assert one["seconds"] > 0 and (one["summary"] or name in skipped), name
        assert all(check["ok"] for check in one["checks"]), name


def values(report: dict[str, Any], name: str) -> dict[str, Any]:
    found: dict[str, Any] = report["parts"][name]["values"]
    return found


def test_numbers_are_checked_in_every_way_and_controls_were_seen(report: dict[str, Any]) -> None:
    checks = [check["name"] for check in report["parts"]["numerics"]["checks"]]
    ways = [name for name in checks if not name.startswith("control: ")]
    assert len(ways) == 4 * 2 * 2 * 3 and len(checks) - len(ways) == 4 * 2 * 2
    assert set(values(report, "numerics")["worst_gradient_error"]) == {"fp32", "bf16", "nf4", "int8"}
    for name in ("isolation", "ranks"):
        assert any(check["name"].startswith("control: ") for check in report["parts"][name]["checks"])
    assert values(report, "ranks")["ranks"] == 2


def test_the_launcher_ran_and_a_killed_run_went_on(report: dict[str, Any]) -> None:
    assert values(report, "tiny")["steps"] == 30 and len(values(report, "tiny")["self_tests"]) >= 3
    (mode,) = values(report, "resume")["modes"]
    assert mode["steps"] == 24 and 0 < mode["killed_at_step"] < 24 and mode["different_steps"] == []


def test_memory_speed_and_kernels_are_in_the_report(report: dict[str, Any]) -> None:
    rows = values(report, "memory")["rows"]
    assert [row["base"] for row in rows] == ["bf16", "nf4"]
    ranks = [one for row in rows for one in row["ranks"]]
    assert all(one["weight_bytes"] > 0 and {"at_group", "at_model", "at_engine"} <= set(one) for one in ranks)
    assert all(row["planned"]["peak_bytes"] > 0 and row["planned_over_measured"] is None for row in rows)
    speed = values(report, "throughput")
    assert speed["tokens_per_s"] > 0 and speed["ranks"] == 2
    assert {"name", "calls", "self_device_ms", "self_cpu_ms"} == set(speed["top_ops"][0])
    assert speed["mfu"] is None and speed["watts"] is None  # of a GPU only, and never made up
    kernels = {row["kernel"] for row in values(report, "kernels")["rows"]}
    assert {"matmul gate", "attention auto forward and backward", "loss forward and backward"} <= kernels
    assert "projection with LoRA forward and backward" in kernels


def test_every_lever_has_a_row(report: dict[str, Any]) -> None:
    rows = {row["lever"]: row for row in values(report, "levers")["rows"]}
    asked = {lever.name for lever in LEVERS}
    assert set(rows) == asked | {"feeding", "AdamW fused", "AdamW foreach", "AdamW loop"}
    assert all(row.get("ms", 0) > 0 or row["missing"] for row in rows.values())
    assert all(
        rows[name]["tokens_per_s"] > 0 for name in ("selective recompute", "peft's own LoRA", "feeding")
    )


def test_ranks_and_peers_were_timed(report: dict[str, Any]) -> None:
    (found,) = values(report, "collectives")["p2p"]
    assert {row["collective"] for row in found["rows"]} == {"all_reduce", "reduce_scatter", "all_gather"}
    assert values(report, "peers")["ratios"]["ours_over_hf"] > 0
    assert values(report, "machine")["torch"]["version"]


def test_the_documentation_names_every_part_and_key(report: dict[str, Any]) -> None:
    text = (ROOT / "docs" / "gpus.md").read_text(encoding="utf-8")
    for name in (*report["parts"], *(key for key in report if key != "left"), *report["parts"]["machine"]):
        assert f"`{name}`" in text, name
