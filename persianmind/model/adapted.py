"""The trained model: a frozen decoder with LoRA adapters, split vocabulary tables and the chunked loss."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from persianmind.common.errors import BaseModelError
from persianmind.model.attention import IMPLEMENTATIONS, hand_documents_on, register_packed_attention
from persianmind.model.base_files import load_errors_named
from persianmind.model.bases import read_config
from persianmind.model.documents import Documents, documents_of
from persianmind.model.expand_tables import split_tables
from persianmind.model.families import check_family, family_of, logit_transform
from persianmind.model.folded_lora import fold_adapters
from persianmind.model.heap import give_back_freed
from persianmind.model.int8 import SampleRounding
from persianmind.model.lora import add_adapters
from persianmind.model.loss import IGNORED, LossFunction, summed_cross_entropy
from persianmind.model.recompute import set_recompute
from persianmind.model.tables import SplitHead, SplitTable
from persianmind.recipe import Recipe

CPU = torch.device("cpu")
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class AdaptedModel(nn.Module):
    """`forward` gives the summed loss of a packed batch; `causal_lm` is the ordinary HF model inside.

    causal_lm: a transformers ...ForCausalLM whose embeddings and head are split tables.
    input_table, output_table: the same object when the base ties its tables.
    """

    def __init__(
        self, causal_lm: nn.Module, *, loss_chunk_tokens: int, loss: LossFunction = summed_cross_entropy
    ) -> None:
        super().__init__()
        self.causal_lm = causal_lm
        self.loss_chunk_tokens = loss_chunk_tokens
        self.loss = loss
        self.logit_transform = logit_transform(causal_lm.config)
        self.loss_by_source: Tensor | None = None
        """float64, a number per source: where it is set, each pass adds its summed loss to that of its
        source."""
        self._rounding = SampleRounding(causal_lm)

    @property
    def layer_count(self) -> int:
        """Of the decoder."""
        decoder: Any = self.causal_lm.get_decoder()  # type: ignore[operator]
        return len(decoder.layers)

    @property
    def input_table(self) -> SplitTable:
        """The table of the embeddings."""
        table: SplitTable = self.causal_lm.get_input_embeddings().table  # type: ignore[operator]
        return table

    @property
    def output_table(self) -> SplitTable:
        """The table of the output projection."""
        return self.head.table

    @property
    def head(self) -> SplitHead:
        """The output projection."""
        head: SplitHead = self.causal_lm.get_output_embeddings()  # type: ignore[operator]
        return head

    def forward(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        *,
        documents: Documents | None = None,
        targets_N: Tensor | None = None,
        sample_keys: Tensor | None = None,
        source_ids: Tensor | None = None,
        base_vocab_only: bool = False,
    ) -> Tensor:
        """Summed negative log-likelihood in nats, an fp32 scalar.

        input_ids, position_ids, labels: [B, L]. Positions restart at each packed document. Labels are already
        shifted. documents, targets_N: as `model_inputs` makes them on the host; where they are left out they
        are read off the tensors, for which the host waits. sample_keys: int64 [B], by which gradients
        through an int8 base are rounded. source_ids: int64 [B], for `loss_by_source`. `base_vocab_only`
        scores over the base vocabulary alone (the untouched base model, before any step).
        """
        by_source = self.loss_by_source
        if by_source is None or source_ids is None:
            return self._loss(
                input_ids, position_ids, labels, documents, targets_N, sample_keys, None, base_vocab_only
            )
        targets_N, losses_N = _places(labels, targets_N)
        total = self._loss(
            input_ids, position_ids, labels, documents, targets_N, sample_keys, losses_N, base_vocab_only
        )
        by_source.index_add_(0, source_ids[targets_N // labels.shape[1]], losses_N.double())
        return total

    @torch.no_grad()
    def target_losses(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        *,
        documents: Documents | None = None,
        targets_N: Tensor | None = None,
        base_vocab_only: bool = False,
        **_: Tensor,
    ) -> Tensor:
        """The negative log-likelihood of each labelled position in nats, fp32 [N], in their order; arguments
        as `forward`."""
        targets_N, losses_N = _places(labels, targets_N)
        self._loss(input_ids, position_ids, labels, documents, targets_N, None, losses_N, base_vocab_only)
        return losses_N

    def _loss(
        self,
        input_ids: Tensor,
        position_ids: Tensor,
        labels: Tensor,
        documents: Documents | None,
        targets_N: Tensor | None,
        sample_keys: Tensor | None,
        losses_N: Tensor | None,
        base_vocab_only: bool,
    ) -> Tensor:
        self._rounding.set(sample_keys, input_ids.shape[1])
        hidden_BLD = self.hidden_states(input_ids, position_ids, documents)
        if hidden_BLD.requires_grad and hidden_BLD.device.type == "cpu":
            give_back_freed()
        table, bias = self.output_table, self.head.bias
        if base_vocab_only and bias is not None:
            bias = bias[: table.base_vocab]  # type: ignore[assignment]
        return self.loss(
            hidden_BLD,
            labels,
            table.base_VD,
            None if base_vocab_only else table.new_AD,
            chunk_tokens=self.loss_chunk_tokens,
            targets_N=targets_N,
            bias=bias,
            transform=self.logit_transform,
            target_losses_N=losses_N,
        )

    def hidden_states(
        self,
        input_ids: Tensor | None,
        position_ids: Tensor,
        documents: Documents | None = None,
        **inputs: Tensor,
    ) -> Tensor:
        """The decoder's last hidden states, [B, L, D]; no document sees another."""
        if documents is None:
            documents = documents_of(position_ids.cpu().numpy(), position_ids.device)
        decoder: Any = self.causal_lm.get_decoder()  # type: ignore[operator]
        output = decoder(
            input_ids=input_ids, position_ids=position_ids, use_cache=False, documents=documents, **inputs
        )
        hidden_BLD: Tensor = output.last_hidden_state
        return hidden_BLD

    def release(self) -> None:
        """Lets go of all weights, so that another model may take their place. Nothing works afterwards."""
        self.causal_lm = nn.Module()
        self._rounding = SampleRounding(self.causal_lm)
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def trained(self) -> dict[str, nn.Parameter]:
        """The trained parameters by name, in a fixed order."""
        return {name: value for name, value in self.named_parameters() if value.requires_grad}


def build_adapted(
    base: Path,
    recipe: Recipe,
    pieces: Sequence[Sequence[int]],
    base_vocab: int,
    device: torch.device = CPU,
) -> AdaptedModel:
    """Loads the base onto its device, splits its tables at `base_vocab`, adds new embeddings and adapters;
    the same bits by the seed, whatever the device.

    pieces: for each added token the base ids that spelled it.

    Raises:
        BaseModelError: the weights cannot be loaded, or the table is smaller than the tokenizer.
    """
    return adapt(load_base(base, recipe, device), recipe, pieces, base_vocab)


def _places(labels: Tensor, targets_N: Tensor | None) -> tuple[Tensor, Tensor]:
    """(places of the targets, read off the labels where they are not given; fp32 [N] for their losses)."""
    targets_N = (labels.reshape(-1) != IGNORED).nonzero().squeeze(1) if targets_N is None else targets_N
    return targets_N, torch.empty(len(targets_N), dtype=torch.float32, device=labels.device)


def adapt(
    causal_lm: nn.Module, recipe: Recipe, pieces: Sequence[Sequence[int]], base_vocab: int
) -> AdaptedModel:
    """Splits the tables of a loaded model and adds new embeddings and adapters; works on the meta device
    too."""
    register_packed_attention()
    causal_lm.set_attn_implementation(attention_implementation(recipe.train.attention))  # type: ignore[operator]
    if not family_of(causal_lm.config).hands_documents_on:
        hand_documents_on(causal_lm)
    generator = torch.Generator().manual_seed(recipe.seed)
    split_tables(causal_lm, recipe, pieces, base_vocab, generator)
    with torch.random.fork_rng(devices=[]):
        # The host's generator alone: those of GPUs differ by rank, or all would drop the same places.
        torch.default_generator.manual_seed(recipe.seed)
        add_adapters(causal_lm, recipe.adapter)
    fold_adapters(causal_lm)
    model = AdaptedModel(causal_lm, loss_chunk_tokens=recipe.train.loss_chunk_tokens)
    _choose_trained(model, recipe)
    set_recompute(causal_lm, recipe.train.gradient_checkpointing)
    return model


def load_base(base: Path, recipe: Recipe, device: torch.device = CPU) -> nn.Module:
    """The base as it lies on disk, in the run's precision, tensor by tensor onto `device`: the host holds no
    copy of the whole model, and 4-bit weights are quantised where they will live.

    Raises:
        BaseModelError: its family cannot be trained, or its weights cannot be loaded, all of them.
    """
    from transformers import AutoModelForCausalLM

    check_family(read_config(base), str(base), recipe.train.quantize)
    register_packed_attention()
    options: dict[str, Any] = {
        "dtype": DTYPES[recipe.train.precision],
        "attn_implementation": attention_implementation(recipe.train.attention),
    }
    if device.type != "cpu":
        options["device_map"] = {"": device}
    if recipe.train.quantize == "nf4":
        from transformers import BitsAndBytesConfig

        options["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=DTYPES[recipe.train.precision],
        )
    elif recipe.train.quantize == "int8":
        from persianmind.model.int8_loading import Int8Config

        options["quantization_config"] = Int8Config()
    model: nn.Module
    with load_errors_named(f"base {base}: cannot be loaded"):
        model, info = AutoModelForCausalLM.from_pretrained(
            base, use_safetensors=True, trust_remote_code=False, output_loading_info=True, **options
        )
    if missing := sorted(info["missing_keys"]):
        raise BaseModelError(
            f"base {base}: its files lack {len(missing)} weights of a {type(model).__name__}, which would be "
            f"random values; the first is {missing[0]}; copy or convert the whole model again"
        )
    if recipe.train.quantize == "nf4":
        keep_4bit_layout(model)
    return model


def keep_4bit_layout(model: nn.Module) -> None:
    """On CPUs with bf16 instructions bitsandbytes lays 4-bit weights out anew, in place, at the first pass of
    evaluation: training would then multiply garbage, and widths that are no multiple of 64 raise."""
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False  # type: ignore[assignment]


def attention_implementation(asked: str) -> str:
    """Our attention's name in transformers; `auto` where flash-attn is asked for and cannot run here."""
    has_flash = importlib.util.find_spec("flash_attn") is not None and torch.cuda.is_available()
    return IMPLEMENTATIONS["auto" if asked == "flash_attention_2" and not has_flash else asked]


def _choose_trained(model: AdaptedModel, recipe: Recipe) -> None:
    """Adapters and new embeddings train (all embeddings if asked), nothing else."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)
    for table in (model.input_table, model.output_table):
        table.base_VD.requires_grad_(recipe.vocab.train_embeddings == "all")
        if table.new_AD is not None:
            table.new_AD.requires_grad_(True)
