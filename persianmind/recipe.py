"""The whole configuration of a run: one YAML file -> one frozen `Recipe`.

Every key has a type, a unit in its name where it has one, and a default that is sane for consumer GPUs. An
unknown key is an error that names the nearest known one. Nothing else in the project reads settings.
"""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=80)]
Share = Annotated[float, Field(ge=0.0, le=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
Count = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Base of every section: frozen, and closed against unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Normalise(Section):
    """Options of the Persian normaliser (persianmind/text/normalise.py)."""

    digits: Literal["keep", "persian", "ascii"] = "keep"
    diacritics: Literal["keep", "strip"] = "keep"


class Source(Section):
    """One source of text or of instruction rows.

    `uri`: a file, glob, folder, fsspec URL, `hf://dataset`, or `package://NAME` (text that an installed
    package carries). `kind: instruction` rows have {instruction, input, output} or {messages}.
    """

    uri: str | list[str]
    kind: Literal["text", "instruction"] = "text"
    language: Name = "fa"
    text_field: str = "text"
    txt_unit: Literal["line", "paragraph"] = "line"
    licence: str = "unstated"


class Quality(Section):
    """Filters on raw rows; each counts and samples what it takes. Language checks need enough letters."""

    enabled: bool = True
    min_characters: int = Field(default=1, ge=0)
    max_characters: Count = 100_000_000
    max_symbol_share: Share = 0.6
    max_repeated_line_share: Share = 0.7
    mojibake: bool = True
    identify_language: bool = False
    exact_duplicates: bool = True
    near_duplicates: bool = False
    near_duplicate_threshold: Share = 0.85


class HeldOut(Section):
    """Text split off by document before anything is trained on it, the tokenizer included.

    A document is held out when a keyed hash of its identity falls below `share`; at most
    `max_characters` a language are evaluated, the rest of the held-out documents simply stay unused.
    """

    share: Share = 0.02
    max_characters: Count = 200_000
    sources: list[Name] = []


class Data(Section):
    """Packing, token shards and their order.

    `mixture_temperature` T: shares of sources go with weight x rows^(1/T); None: with the weights alone.
    `shuffle_block_rows`: rows are shuffled within blocks of so many, in the order of the source, which lets
    training start on whole blocks while the rest is built; None: over the whole source, which is then built
    before step 1. `fast_tokenizer`: use gigatoken where it is installed and
    gives the very ids of the saved tokenizer.
    """

    row_length: Annotated[int, Field(ge=16)] = 2048
    shard_rows: Count = 4096
    open_rows: Count = 64
    max_bad_row_share: Share = 0.05
    mixture_window: Count = 100
    mixture_temperature: Positive | None = None
    shuffle_block_rows: Count | None = 65_536
    fast_tokenizer: bool = True
    prompt: Literal["persianmind", "chat_template"] = "persianmind"


class Vocab(Section):
    """Vocabulary expansion. `train_size` (the paper's way) takes every new piece of a BPE of that size."""

    new_tokens: int = Field(default=10_000, ge=0)
    train_size: Count | None = None
    pad_token: bool = False
    sources: list[Name] = []
    initialise: Literal["subword-mean", "mean", "normal", "random"] = "subword-mean"
    train_rows: Literal["new", "all"] = "new"


class Adapter(Section):
    """LoRA through peft. `targets: all-linear` means every projection of the decoder layers."""

    rank: Count = 8
    alpha: Positive = 16.0
    dropout: Share = 0.0
    targets: Literal["all-linear"] | list[str] = "all-linear"
    rslora: bool = False
    dora: bool = False
    lora_plus_ratio: Positive = 1.0


class Train(Section):
    """The optimizer step. `global_batch_rows` rows make one step, whatever the number of ranks.

    `precision: auto` is bf16 where the hardware multiplies it and fp32 elsewhere; optimizer states and the
    masters of what is trained are fp32 either way. `spike_sigma`: leave out a step whose loss or gradient
    norm lies so many standard deviations above the mean of the last `spike_window` steps (6 is a good
    value). `hang_timeout_s`: end the run, naming the rank that keeps the others waiting, when none gets on
    for so long, in training, evaluation and saving alike. `compile`: torch.compile of each decoder layer.
    `attention: flash_attention_2` needs the package flash-attn and falls back to sdpa, saying so, where it is
    missing. `trackers` beside TensorBoard.
    """

    global_batch_rows: Count = 64
    micro_batch_rows: Count = 1
    learning_rate: Positive = 2e-4
    rows_learning_rate: Positive | None = None
    weight_decay: Annotated[float, Field(ge=0.0)] = 0.0
    adam_betas: tuple[Share, Share] = (0.9, 0.95)
    adam_epsilon: Positive = 1e-8
    max_grad_norm: Positive = 1.0
    schedule: Literal["cosine", "linear", "wsd"] = "cosine"
    warmup_share: Share = 0.03
    min_learning_rate_share: Share = 0.1
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    quantize: Literal["none", "nf4"] = "none"
    gradient_checkpointing: Literal["off", "full"] | Count = "full"
    loss_chunk_tokens: Count = 512
    nonfinite_budget: int = Field(default=3, ge=0)
    hang_timeout_s: Positive = 1800.0
    spike_sigma: Positive | None = None
    spike_window: Annotated[int, Field(ge=2)] = 128
    compile: bool = False
    attention: Literal["sdpa", "flash_attention_2"] = "sdpa"
    trackers: list[Literal["wandb", "trackio"]] = []
    self_tests: bool = True
    threads_per_rank: Count | None = None

    @field_validator("gradient_checkpointing", mode="before")
    @classmethod
    def _yaml_off(cls, value: object) -> object:
        """YAML reads a bare `off` as false."""
        return "off" if value is False else value


class Checkpoint(Section):
    """When to save and what to keep. A checkpoint also ends every stage."""

    every_steps: Count = 100
    keep_last: Count = 2
    keep_every_steps: Count | None = None


class Stage(Section):
    """One step of the curriculum. Length in `tokens` (of packed rows) or in `epochs` of its data.

    `plateau_steps`: the stage ends early once the mean loss of so many steps is not lower than that of as
    many before by the share `plateau_min_gain`; meant for a first stage that trains the new rows alone.
    """

    name: Name
    sources: dict[Name, Positive] = Field(min_length=1)
    tokens: Count | None = None
    epochs: Positive | None = None
    learning_rate: Positive | None = None
    rows_learning_rate: Positive | None = None
    trained: list[Literal["adapters", "rows"]] = Field(default=["adapters", "rows"], min_length=1)
    plateau_steps: Count | None = None
    plateau_min_gain: Share = 0.005

    @model_validator(mode="after")
    def _one_length(self) -> Self:
        if (self.tokens is None) == (self.epochs is None):
            raise ValueError(f"stage {self.name!r} needs exactly one of `tokens` and `epochs`")
        return self


class Evaluate(Section):
    """What is measured after every stage."""

    prompts: list[str] = []
    max_new_tokens: Count = 64


class Energy(Section):
    """The account. Grid intensity and PUE are stated, never taken silently from a library."""

    enabled: bool = True
    interval_s: Positive = 5.0
    country_iso: Annotated[str, Field(pattern=r"^[A-Z]{3}$")] = "IRN"
    intensity_g_per_kwh: Positive | None = None
    intensity_source: str = ""
    intensity_year: int | None = None
    intensity_curve_csv: str | None = None
    pue: Annotated[float, Field(ge=1.0)] = 1.0
    cpu_tdp_w: Positive | None = None
    price_per_kwh: Annotated[float, Field(ge=0.0)] | None = None
    currency: str = "USD"
    embodied_g_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    budget_kwh: Positive | None = None
    budget_kg_co2: Positive | None = None


class Export(Section):
    """The merged Hugging Face folder written at the end. `pad_rows_to_multiple`: vocabulary rows that no id
    stands for are added at the end, for kernels that want such a number; no id changes."""

    enabled: bool = True
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    pad_rows_to_multiple: Count = 1


class Recipe(Section):
    """A run. `base`: a Hugging Face folder, a hub name, or `package://NAME` (see model/load.py)."""

    name: Name
    base: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    normalise: Normalise = Normalise()
    sources: dict[Name, Source] = Field(min_length=1)
    quality: Quality = Quality()
    heldout: HeldOut = HeldOut()
    data: Data = Data()
    vocab: Vocab = Vocab()
    adapter: Adapter = Adapter()
    train: Train = Train()
    checkpoint: Checkpoint = Checkpoint()
    stages: list[Stage] = Field(min_length=1)
    evaluate: Evaluate = Evaluate()
    energy: Energy = Energy()
    export: Export = Export()

    def stage_sources(self) -> list[str]:
        """Every source some stage trains on, in the recipe's order."""
        used = {name for stage in self.stages for name in stage.sources}
        return [name for name in self.sources if name in used]

    @model_validator(mode="after")
    def _references(self) -> Self:
        asked = {
            "vocab.sources": self.vocab.sources,
            "heldout.sources": self.heldout.sources,
            **{f"stages.{i}.sources": list(stage.sources) for i, stage in enumerate(self.stages)},
        }
        for place, names in asked.items():
            for name in names:
                if name not in self.sources:
                    known = ", ".join(self.sources)
                    raise ValueError(f"{place} names the source {name!r}, but `sources` has only: {known}")
        stage_names = [stage.name for stage in self.stages]
        if len(set(stage_names)) != len(stage_names) or "base" in stage_names:
            raise ValueError("stage names must differ from each other and from 'base' (the untrained model)")
        if self.train.global_batch_rows % self.train.micro_batch_rows:
            raise ValueError(
                f"train.global_batch_rows={self.train.global_batch_rows} is no multiple of "
                f"train.micro_batch_rows={self.train.micro_batch_rows}"
            )
        return self
