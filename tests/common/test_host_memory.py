"""What of a host's memory a process can have."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from persianmind.common.host_memory import available_bytes

FREE = 8_000_000_000


@pytest.fixture(autouse=True)
def _host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("Memory", (), {"available": FREE})())


def limit(folder: Path, maximum: str, used: int = 0, unread: int = 0) -> Path:
    (folder / "memory.max").write_text(f"{maximum}\n", encoding="ascii")
    (folder / "memory.current").write_text(f"{used}\n", encoding="ascii")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {unread}\nfile 9\n", encoding="ascii")
    return folder


def test_a_container_has_what_is_left_of_its_limit(tmp_path: Path) -> None:
    assert available_bytes(limit(tmp_path, "4000000000", used=3_000_000_000)) == 1_000_000_000


def test_pages_of_files_that_nobody_reads_are_to_be_had(tmp_path: Path) -> None:
    folder = limit(tmp_path, "4000000000", used=3_000_000_000, unread=2_500_000_000)
    assert available_bytes(folder) == 3_500_000_000


def test_the_host_itself_counts_where_it_has_less_or_there_is_no_limit(tmp_path: Path) -> None:
    assert available_bytes(tmp_path / "none") == FREE
    assert available_bytes(limit(tmp_path, "max")) == FREE
    assert available_bytes(limit(tmp_path, "90000000000")) == FREE
