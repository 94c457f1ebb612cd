"""The optimizer step, checkpoints, and the stages of a run."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from persianmind.recipe.section import Count, Dimension, Name, Positive, Ratio, Section, SequenceLength

# Beyond so many passes repeated text gains little (Muennighoff et al. 2023, arXiv 2305.16264).
GOOD_PASSES = 4


class FullLayers(Section):
    """How many decoder layers, from the first on, are recomputed whole; the others selectively."""

    full_layers: int = Field(ge=0)


def full_layer_count(setting: str | FullLayers, layers: int) -> int:
    """How many of `layers` decoder layers go forward twice under a `gradient_checkpointing`.

    Raises:
        ValueError: `auto`, which is no answer before it is decided.
    """
    if setting == "auto":
        raise ValueError("gradient_checkpointing auto was not decided")
    if isinstance(setting, FullLayers):
        return min(setting.full_layers, layers)
    return layers if setting == "full" else 0


class Train(Section):
    """The optimizer step. `global_batch_size` sequences make one step, whatever the number of ranks; it need
    divide over neither ranks nor micro-batches.

    `precision: auto` is bf16 where the hardware multiplies it and fp32 elsewhere; optimizer states and the
    masters of what is trained are fp32 either way. `warmup_steps`, of each stage, stands in for
    `warmup_ratio`. `deterministic: auto` uses kernels that give the same bits every time where all operations
    of a micro-batch have one, and says which has none; true insists, false takes the fastest. `spike_sigma`:
    leave out a step whose loss or gradient norm lies this number of standard deviations above the mean of the
    last `spike_window` steps (6 is a good value). `hang_timeout_s`: end the run, naming the rank that keeps
    the others waiting, when none makes progress for this long, in training, evaluation and saving alike.
    `gradient_checkpointing`: what the backward pass computes again: nothing (`off`), norms, rotations,
    activations and residuals (`selective`), whole layers (`full`), or whole layers for the first N alone
    (`{full_layers: N}`); `auto` is the first of these that memory takes, decided when the run begins.
    `memory_gb`: what a rank may take of its device, in units of 2**30 bytes; null: what the device has, on
    CPUs the rank's part of what is free. `compile`: torch.compile of each decoder layer while it trains;
    `auto`: on GPUs, where triton is. `kernels: liger` takes Liger's for norms, rotations and SwiGLU instead,
    from the package liger-kernel. `attention: auto` is torch's varlen kernel on GPUs of compute capability
    8.0 and up in bf16, and SDPA document by document elsewhere; `sdpa` is the latter everywhere;
    `flash_attention_2` needs the package flash-attn and falls back to auto, saying so, where it is missing.
    `quantize`: frozen projections in 4 bits (`nf4`), or in int8, in which they are then multiplied as well.
    `trackers` beside TensorBoard.
    """

    global_batch_size: Count = 64
    micro_batch_size: Dimension = 1
    learning_rate: Positive = 2e-4
    embedding_learning_rate: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    adam_betas: tuple[Ratio, Ratio] = (0.9, 0.95)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    schedule: Literal["cosine", "linear", "wsd", "constant"] = "cosine"
    warmup_ratio: Ratio = 0.03
    warmup_steps: Annotated[int, Field(ge=0)] | None = None
    min_lr_ratio: Ratio = 0.1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    quantize: Literal["none", "nf4", "int8"] = "none"
    deterministic: bool | Literal["auto"] = "auto"
    gradient_checkpointing: Literal["auto", "off", "selective", "full"] | FullLayers = "auto"
    memory_gb: Positive | None = None
    loss_chunk_tokens: Dimension = 512
    nonfinite_budget: int = Field(default=3, ge=0)
    hang_timeout_s: Positive = 1800.0
    spike_sigma: Positive | None = None
    spike_window: Annotated[int, Field(ge=2)] = 128
    compile: bool | Literal["auto"] = "auto"
    kernels: Literal["torch", "liger"] = "torch"
    attention: Literal["auto", "sdpa", "flash_attention_2"] = "auto"
    trackers: list[Literal["wandb", "trackio"]] = Field(default_factory=list)
    self_tests: bool = True
    threads_per_rank: Count | None = None

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _one_way(cls, value: object) -> object:
        """YAML reads a bare `off` as false; every k-th layer was a value once."""
        if isinstance(value, int) and value is not False:
            raise ValueError(
                "auto, off, selective, full, or {full_layers: N} for N layers whole and the others "
                "selectively"
            )
        return "off" if value is False else value

    @model_validator(mode="after")
    def _joined_once(self) -> Self:
        if self.compile is True and self.kernels == "liger":
            raise ValueError("kernels: liger stands in for compile: true; give one of the two")
        return self


class Checkpoint(Section):
    """When to save and what to keep. A checkpoint also ends every stage."""

    every_steps: Count = 100
    keep_last: Count = 2
    keep_every_steps: Count | None = None


class Stage(Section):
    """One step of the curriculum. Length in `tokens` (packed positions), in optimizer `steps`, or in
    `epochs`: passes over one of its sources, `{instructions: 2}`; a number alone where there is one source.
    `seq_len`: of its packed sequences; null: `data.seq_len`. A step has `train.global_batch_size` of them.

    `plateau_steps` N: the stage ends early once the mean loss of N steps is not lower than that of the N
    before by the ratio `plateau_min_gain`; meant for a first stage that trains the new embeddings alone.
    """

    name: Name
    sources: dict[Name, Positive] = Field(min_length=1)
    tokens: Count | None = None
    steps: Count | None = None
    epochs: Positive | dict[Name, Positive] | None = None
    seq_len: SequenceLength | None = None
    learning_rate: Positive | None = None
    embedding_learning_rate: Positive | None = None
    trained: list[Literal["adapters", "embeddings"]] = Field(default=["adapters", "embeddings"], min_length=1)
    plateau_steps: Count | None = None
    plateau_min_gain: Ratio = 0.005

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if [self.tokens, self.steps, self.epochs].count(None) != 2:
            given = [one for one in ("tokens", "steps", "epochs") if getattr(self, one) is not None]
            fix = f": it has {' and '.join(given)}, set the others to null" if given else ""
            raise ValueError(f"stage {self.name!r} needs exactly one of `tokens`, `steps` and `epochs`{fix}")
        if self.epochs is not None and not isinstance(self.epochs, dict) and len(self.sources) > 1:
            first = next(iter(self.sources))
            raise ValueError(
                f"stage {self.name!r} has several sources: say which one `epochs` passes over, as in "
                f"epochs: {{{first}: {self.epochs:g}}}"
            )
        if isinstance(self.epochs, dict) and (len(self.epochs) != 1 or not {*self.epochs} <= {*self.sources}):
            raise ValueError(
                f"stage {self.name!r}: `epochs` names one of its own sources ({', '.join(self.sources)})"
            )
        return self

    @property
    def passes(self) -> tuple[str, float] | None:
        """(source, passes over it) where the length is given in `epochs`."""
        if self.epochs is None:
            return None
        if isinstance(self.epochs, dict):
            return next(iter(self.epochs.items()))
        return next(iter(self.sources)), self.epochs
