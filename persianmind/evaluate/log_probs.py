"""Log-probabilities of wanted tokens, without the logits of all positions.

Shape legend: B rows, L positions, D hidden size, V vocabulary, P wanted positions of all rows.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from persianmind.common.errors import BaseModelError
from persianmind.model.families import LogitTransform, check_family, logit_transform

CHUNK_POSITIONS = 256


class TokenLogProbs:
    """One pass of a causal LM, and the log-probabilities that are asked of it.

    Of a family that we know the head is applied to the wanted positions alone, in chunks; of any other the
    model's own forward gives the logits of all positions.
    """

    def __init__(self, causal_lm: Any, vocab_size: int | None = None) -> None:
        """causal_lm: within `generation_mode`. vocab_size: ids from here on are in no softmax; None: all are,
        as in every other tool."""
        self._causal_lm = causal_lm
        self._vocab_size = vocab_size
        self._transform = _known_transform(causal_lm.config)

    @torch.no_grad()
    def run(
        self,
        ids_BL: Tensor,
        first_position: int,
        wanted_P: tuple[Tensor, Tensor],
        cache: Any = None,
    ) -> WantedLogits:
        """Reads ids behind what the cache holds.

        Args:
            ids_BL: rows of one length, padded behind.
            first_position: of the rows' first ids, the number of those in the cache.
            wanted_P: (row, position within the rows) whose next token will be asked for.
        """
        batch, length = ids_BL.shape
        positions_1L = torch.arange(first_position, first_position + length, device=ids_BL.device).unsqueeze(
            0
        )
        options = {
            "input_ids": ids_BL,
            "position_ids": positions_1L.expand(batch, length),
            "past_key_values": cache,
            "use_cache": cache is not None,
        }
        rows, places = wanted_P
        if self._transform is None:
            logits_PV = self._causal_lm(**options).logits[rows, places]
            return WantedLogits(logits_PV, None, LogitTransform(), self._vocab_size)
        hidden_PD = self._causal_lm.get_decoder()(**options).last_hidden_state[rows, places]
        return WantedLogits(
            hidden_PD, self._causal_lm.get_output_embeddings(), self._transform, self._vocab_size
        )


class WantedLogits:
    """What was computed at the wanted positions: logits, or hidden states and the head over them."""

    def __init__(
        self, values_P: Tensor, head: Any, transform: LogitTransform, vocab_size: int | None
    ) -> None:
        self._values = values_P
        self._head, self._transform, self._vocab_size = head, transform, vocab_size

    @torch.no_grad()
    def of_tokens(self, place_N: Tensor, token_N: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of token n at wanted position place_N[n], and whether it is the likeliest there.

        Returns:
            float64 [N] and bool [N], on the host.
        """
        log_prob_N = torch.zeros(len(place_N), dtype=torch.float64)
        likeliest_N = torch.zeros(len(place_N), dtype=torch.bool)
        for start in range(0, len(self._values), CHUNK_POSITIONS):
            mine_M = ((place_N >= start) & (place_N < start + CHUNK_POSITIONS)).nonzero().squeeze(1)
            if not len(mine_M):
                continue
            logits_CV = self._logits(self._values[start : start + CHUNK_POSITIONS])
            place_M, token_M = place_N[mine_M] - start, token_N[mine_M]
            picked_M = logits_CV[place_M, token_M] - logits_CV.logsumexp(dim=-1)[place_M]
            log_prob_N[mine_M.cpu()] = picked_M.cpu().double()
            likeliest_N[mine_M.cpu()] = (logits_CV.argmax(dim=-1)[place_M] == token_M).cpu()
        return log_prob_N, likeliest_N

    def _logits(self, values_C: Tensor) -> Tensor:
        logits = (values_C if self._head is None else self._head(values_C))[:, : self._vocab_size].float()
        if self._transform.scale != 1.0:
            logits = logits * self._transform.scale
        if self._transform.softcap is not None:
            logits = torch.tanh(logits / self._transform.softcap) * self._transform.softcap
        return logits


def _known_transform(config: Any) -> LogitTransform | None:
    try:
        check_family(config.to_dict(), "")
    except BaseModelError:
        return None
    return logit_transform(config)
