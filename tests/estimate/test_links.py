"""Links, and the bytes of a step's exchange beside a count of every send of a simulated one."""

from __future__ import annotations

import pytest

from persianmind.common.errors import UsageError
from persianmind.estimate.links import LINKS, exchange_s, exchanged_bytes, find_link


def sent_by_each(elements: int, ranks: int) -> list[int]:
    """Every send of one step, one by one: a gradient to its owner over a ring, a partition to all others."""
    part = elements // ranks
    sent = [0] * ranks
    for start in range(ranks):  # each partition's sum goes once around the ring and ends at its owner
        for hop in range(ranks - 1):
            sent[(start + hop) % ranks] += part
    for owner in range(ranks):  # and the updated partition once around it again
        for hop in range(ranks - 1):
            sent[(owner + hop) % ranks] += part
    return sent


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_bytes_are_those_of_all_sends(ranks: int) -> None:
    elements = 840 * 8
    expected = [2 * count for count in sent_by_each(elements, ranks)]
    assert expected == [exchanged_bytes(elements, 2, 2, ranks)] * ranks


def test_the_7b_run_exchanges_its_trained_weights_alone() -> None:
    """97.9 M trained weights in bf16 over four ranks: 294 MB per step, whatever the base weighs."""
    assert exchanged_bytes(97_894_400, 2, 2, 4) == pytest.approx(293.7e6, rel=1e-3)


def test_one_rank_exchanges_nothing() -> None:
    assert exchange_s(find_link("PCIe 3 x1"), 97_894_400, 2, 2, 1, 20_000_000) == 0.0


def test_a_slower_link_takes_longer() -> None:
    times = [
        exchange_s(find_link(name), 97_894_400, 2, 2, 4, 20_000_000)
        for name in ("PCIe 4 x16", "PCIe 3 x16", "PCIe 3 x4", "Ethernet 1 Gbit/s")
    ]
    assert times == sorted(times) and times[-1] > 2.5  # 2.35 Gbit at a gigabit
    assert times[0] < 0.05


def test_names_need_neither_case_nor_spaces() -> None:
    assert (
        find_link("pcie3x16").name == "PCIe 3 x16"
        and find_link("ethernet 10gbit/s").name == "Ethernet 10 Gbit/s"
    )
    with pytest.raises(UsageError, match="did you mean 'PCIe 4 x1") as error:
        find_link("PCIe 4x12")
    assert "\n" not in str(error.value)


def test_nothing_is_faster_than_its_standard() -> None:
    assert len({link.name for link in LINKS}) == len(LINKS)
    assert all(link.bytes_per_s < link.peak_bytes_per_s for link in LINKS)
    assert find_link("PCIe 3 x16").peak_bytes_per_s == pytest.approx(15.75e9, rel=0.01)  # PCI-SIG
    assert find_link("PCIe 4 x16").peak_bytes_per_s == pytest.approx(31.5e9, rel=0.01)
