"""Rounding by counters, beside the same hash in Python's integers, and what its draws must be."""

from __future__ import annotations

import pytest
import torch

from persianmind.model.int8_rounding import mix32, quantise_rows, rounding_offsets, row_words

MASK = 0xFFFFFFFF
KEYS = torch.tensor([2**40 + 5, -3, 7])


def mixed(word: int) -> int:
    word &= MASK
    word = (word ^ word >> 16) * 0x7FEB352D & MASK
    word = (word ^ word >> 15) * 0x846CA68B & MASK
    return word ^ word >> 16


def words_in_python(key: int, position: int, number: int) -> int:
    low, high = key & MASK, key >> 32 & MASK
    token = mixed(mixed(mixed(low) ^ high) + position * 0x9E3779B9)
    return mixed(mixed(number * 0x9E3779B9) ^ token)


def test_the_hash_is_the_documented_one() -> None:
    words = torch.randint(-(2**31), 2**31, (500,)).to(torch.int32)
    assert [one & MASK for one in mix32(words).tolist()] == [mixed(one) for one in words.tolist()]
    found = row_words(KEYS, 16, 5)
    for sample, key in enumerate(KEYS.tolist()):
        for position, projection in ((0, 0), (15, 4), (7, 2)):
            ab = found[projection, :, 16 * sample + position].tolist()
            expected = [words_in_python(key, position, 2 * projection + one) for one in (1, 2)]
            assert [one & MASK for one in ab] == expected
    offsets = rounding_offsets(found[2], 40)
    a, b = (one & MASK for one in found[2][:, 9].tolist())
    signed = [((a * column + b + 2**31) & MASK) - 2**31 for column in range(40)]
    assert torch.equal(offsets[9], torch.tensor(signed, dtype=torch.int32).float() / 2**32)


def test_draws_belong_to_sample_position_and_projection_and_to_nothing_else() -> None:
    whole = row_words(KEYS, 16, 5)
    assert torch.equal(row_words(KEYS[1:2], 16, 5), whole[:, :, 16:32])  # another micro-batch size
    assert torch.equal(row_words(KEYS.flip(0), 16, 5)[:, :, :16], whole[:, :, 32:])  # another order
    assert torch.equal(row_words(KEYS[:1], 8, 3), whole[:3, :, :8])  # fewer projections, a shorter sequence
    assert len(whole.flatten().unique()) == whole.numel()


def test_rounding_is_unbiased_and_to_the_nearest_is_not() -> None:
    torch.manual_seed(0)
    x = torch.rand(32, 200) + torch.linspace(0, 3, 200)
    total, times = torch.zeros_like(x), 400
    for i in range(times):
        x8, scale = quantise_rows(x, row_words(KEYS[:1] + i, 32, 1)[0])
        total += x8 * scale
    steps = (total / times - x) / scale
    assert abs(float(steps.mean())) < 5 / (12 * times * steps.numel()) ** 0.5
    assert float(steps.std()) * times**0.5 == pytest.approx(1 / 6**0.5, rel=0.05)  # mean of f (1 - f) is 1/6
    x8, scale = quantise_rows(torch.full((32, 200), 0.3).index_fill(1, torch.tensor([0]), 100.0))
    assert bool((x8[:, 1:] == 0).all())  # control: 0.3 is lost each time


def test_errors_of_a_row_add_up_as_independent_ones() -> None:
    """The variance of a sum of draws over columns; the sign of a column makes it a product with a weight."""
    columns, rows = 512, 20_000
    offsets = rounding_offsets(row_words(torch.arange(1), rows, 1)[0], columns)
    assert float(offsets.mean()) == pytest.approx(0, abs=5e-4)
    for seed in range(3):
        signs = torch.randint(0, 2, (columns,), generator=torch.Generator().manual_seed(seed)) * 2.0 - 1
        variance = float((offsets @ signs).var())
        assert variance == pytest.approx(columns / 12, rel=0.06)


def test_control_one_draw_per_row_does_not() -> None:
    offsets = rounding_offsets(row_words(torch.arange(1), 20_000, 1)[0], 1).expand(-1, 512)
    assert float(offsets.sum(1).var()) > 100 * 512 / 12


@pytest.mark.parametrize("word", [-(2**31), 2**31 - 1, 0])
def test_the_largest_number_of_a_row_stays_in_int8(word: int) -> None:
    """An offset of half a step must not take 127 to 128, which is -128."""
    x = torch.randn(4096, 8) * torch.logspace(-20, 20, 4096)[:, None]
    for sign in (1, -1):
        words = torch.stack([torch.zeros(4096), torch.full((4096,), float(word))]).to(torch.int32)
        words[1] = word
        x8, _ = quantise_rows(x.abs() * sign, words)
        assert (x8.long() * sign >= 0).all() and (x8.long().abs().amax(1) >= 126).all()


def test_zeros_stay_zeros() -> None:
    x = torch.zeros(16, 64)
    x[:8, 3] = 1.0
    for words in (None, row_words(torch.arange(1), 16, 1)[0]):
        x8, scale = quantise_rows(x, words)
        assert scale.isfinite().all() and int(x8.count_nonzero()) == 8
