"""Rows as int8 numbers with a scale each, rounded to nearest or at random by counters.

A stochastic rounding is drawn from what a number is (run, sample, position, projection, column) and not from
a generator's state: the same bits whatever the ranks, the micro-batch size, recomputation and restarts. Each
row has two hashed 32-bit words a and b, and column c takes a c + b modulo 2^32: a strongly universal hash
(Dietzfelbinger, STACS 1996) whose upper 16 bits are uniform and independent for any two columns below 2^17,
so that errors are unbiased and add up in a matmul as independent ones do. One multiplication per number;
all of it is int32 arithmetic with wrap-around, which any kernel can repeat bit by bit.

Shape legend: B sequences of L tokens, N = B x L rows, C columns, P projections.
"""

from __future__ import annotations

import torch
from torch import Tensor

LEVELS = 127.0
# The largest number of a row must stay below 127.5 after half a step is added: a quotient is exact to 2^-23.
SHRUNK_LEVELS = LEVELS * (1 - 2.0**-22)
SMALLEST = 1e-30  # of a row of zeros: its scale is no division by 0, and its numbers are 0
GOLDEN = 0x9E3779B9 - (1 << 32)  # 2^32 / golden ratio, as int32
_FACTORS = (0x7FEB352D, 0x846CA68B - (1 << 32))


def mix32(words: Tensor) -> Tensor:
    """A bijective hash of int32 words (lowbias32: xor-shifts by 16, 15, 16 around two multiplications)."""
    words = (words ^ _shifted(words, 16)) * _FACTORS[0]
    words = (words ^ _shifted(words, 15)) * _FACTORS[1]
    return words ^ _shifted(words, 16)


def _shifted(words: Tensor, bits: int) -> Tensor:
    """Logical shift to the right: torch's own keeps the sign."""
    return (words >> bits) & ((1 << (32 - bits)) - 1)


def row_words(sample_keys_B: Tensor, seq_len: int, projections: int) -> Tensor:
    """The words a and b of every token for each projection, int32 [P, 2, N].

    Args:
        sample_keys_B: int64, one for each sequence of the micro-batch.
        seq_len: L.
        projections: P, numbered as the model has them.
    """
    device = sample_keys_B.device
    low_B, high_B = sample_keys_B.to(torch.int32), (sample_keys_B >> 32).to(torch.int32)
    positions_L = torch.arange(seq_len, dtype=torch.int32, device=device) * GOLDEN
    tokens_N = mix32(mix32(mix32(low_B) ^ high_B)[:, None] + positions_L).reshape(-1)
    numbers_P2 = mix32(torch.arange(1, 2 * projections + 1, dtype=torch.int32, device=device) * GOLDEN)
    return mix32(numbers_P2.view(projections, 2, 1) ^ tokens_N)


def rounding_offsets(words_2N: Tensor, columns: int) -> Tensor:
    """What is added before rounding to nearest, fp32 [N, C], uniform over [-0.5, 0.5].

    Args:
        words_2N: int32, a and b of one projection.
        columns: C.
    """
    a_N1, b_N1 = words_2N[0].unsqueeze(1), words_2N[1].unsqueeze(1)
    columns_C = torch.arange(columns, dtype=torch.int32, device=words_2N.device)
    return torch.addcmul(b_N1, a_N1, columns_C).to(torch.float32).mul_(2.0**-32)


def quantise_rows(x_NC: Tensor, words_2N: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """(int8 [N, C], scale fp32 [N, 1]) with x about int8 x scale. A row with a number that is not finite has
    a scale that is not, and so has whatever is computed from it.

    Args:
        x_NC: any float dtype; the arithmetic is fp32.
        words_2N: rounds stochastically by these words; None: to the nearest, ties to even.
    """
    x_NC = x_NC.to(torch.float32)
    largest_N1 = x_NC.abs().amax(1, keepdim=True).clamp_min(SMALLEST)
    scale_N1 = largest_N1 * (1 / LEVELS)
    if words_2N is None:
        return (x_NC * (LEVELS / largest_N1)).round_().to(torch.int8), scale_N1
    # Twice rounded on purpose, as product and as sum: not to be contracted to one fma.
    steps_NC = x_NC * (SHRUNK_LEVELS / largest_N1)
    return steps_NC.add_(rounding_offsets(words_2N, x_NC.shape[1])).round_().to(torch.int8), scale_N1
