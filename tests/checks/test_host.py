"""Memory, shared memory, swap and limits: each against a machine where it is wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from persianmind.checks.base import CheckResult, Level
from persianmind.checks.host import HostState, host_findings, read_host

GB = 10**9
GOOD = HostState(
    total_bytes=64 * GB,
    available_bytes=50 * GB,
    swap_bytes=8 * GB,
    swap_used_bytes=0,
    shared_bytes=30 * GB,
    open_files=1024,
    locked_bytes=8 << 20,
    has_infiniband=False,
    has_gpu=True,
)


def findings(host: HostState, ranks: int = 4, base_bytes: int | None = None) -> dict[str, CheckResult]:
    return {finding.name: finding for finding in host_findings(host, ranks, base_bytes)}


def test_a_good_host_has_nothing_to_say() -> None:
    assert {finding.level for finding in findings(GOOD).values()} == {Level.OK}


def test_each_fault_is_its_own_line_with_the_fix() -> None:
    faults = {
        "host memory": (replace(GOOD, available_bytes=7 * GB), "fewer ranks"),
        "swap": (
            replace(GOOD, swap_used_bytes=6 * GB, available_bytes=5 * GB, total_bytes=64 * GB),
            "swapping",
        ),
        "shared memory": (replace(GOOD, shared_bytes=64 << 20), "--shm-size=1g"),
        "open files": (replace(GOOD, open_files=256), "ulimit -n 65536"),
        "locked memory": (replace(GOOD, has_infiniband=True), "ulimit -l unlimited"),
    }
    for name, (host, fix) in faults.items():
        found = findings(host)
        assert found[name].level is Level.WARN and fix in found[name].detail
        others = {one.level for other, one in found.items() if other not in (name, "host memory")}
        assert others == {Level.OK}


def test_ranks_on_the_cpu_hold_the_base_themselves() -> None:
    host = replace(GOOD, has_gpu=False)
    assert findings(host, 4, None)["host memory"].level is Level.OK
    assert findings(host, 4, 14 * GB)["host memory"].level is Level.WARN
    assert findings(replace(host, shared_bytes=200_000_000), 4)["shared memory"].level is Level.WARN
    assert findings(replace(host, shared_bytes=200_000_000), 1)["shared memory"].level is Level.OK


def test_a_containers_limit_counts_and_not_the_machines(tmp_path: Path) -> None:
    whole = read_host(tmp_path)
    assert whole.shared_bytes is None  # nothing is mounted below this root
    group = tmp_path / "sys/fs/cgroup"
    group.mkdir(parents=True)
    (group / "memory.max").write_text("1000000000\n")
    (group / "memory.current").write_text("400000000\n")
    limited = read_host(tmp_path)
    assert (limited.total_bytes, limited.available_bytes) == (1_000_000_000, 600_000_000)
    (group / "memory.max").write_text("max\n")
    assert read_host(tmp_path).total_bytes == whole.total_bytes
