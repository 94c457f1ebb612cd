"""The whole configuration of a run: one YAML file -> one frozen `Recipe`.

Every key has a type, a unit in its name where it has one, and a default that is sane for consumer GPUs. An
unknown key is an error that names the nearest known one. Nothing else in the project reads settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Self

from pydantic import Field, model_validator

from persianmind.recipe.adapter import Adapter
from persianmind.recipe.data import Data
from persianmind.recipe.energy import Energy
from persianmind.recipe.evaluate import Evaluate
from persianmind.recipe.export import Export
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.packing import Packing
from persianmind.recipe.section import Name, Section
from persianmind.recipe.text import HeldOut, Normalise, Quality, Source
from persianmind.recipe.train import Checkpoint, FullLayers, Stage, Train
from persianmind.recipe.vocab import Vocab


class Recipe(Section):
    """A run. `base`: a Hugging Face folder, a hub name, or `package://NAME` (see model/bases.py).

    `profiles`: by language code, one's own profile, as a YAML file beside the recipe or written here
    (docs/languages.md).
    """

    name: Name
    base: str
    seed: int = Field(default=0, ge=0, lt=2**63)
    normalise: Normalise = Normalise()
    profiles: dict[Name, ProfileSpec] = Field(default_factory=dict)
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

    def seq_len_of(self, stage: Stage) -> int:
        """Tokens of a packed sequence of a stage: its own, else data.seq_len."""
        return stage.seq_len or self.data.seq_len

    def seq_len_keys(self) -> dict[str, int]:
        """The keys that say how long the sequences of some stage are, with what they say."""
        keys = {} if all(stage.seq_len for stage in self.stages) else {"data.seq_len": self.data.seq_len}
        return keys | {f"stages.{i}.seq_len": one.seq_len for i, one in enumerate(self.stages) if one.seq_len}

    @property
    def longest_seq_len(self) -> int:
        """Of all stages: what memory has to hold."""
        return max(map(self.seq_len_of, self.stages))

    def packing(self, source: str, stage: Stage | None = None) -> Packing:
        """A source as a stage reads it; without one, at data.seq_len."""
        seq_len = self.data.seq_len if stage is None else self.seq_len_of(stage)
        own = "" if seq_len == self.data.seq_len else f"@{seq_len}"
        return Packing(source, seq_len, f"{source}{own}")

    def packings_of(self, source: str) -> list[Packing]:
        """A source as stages read it, each once; at data.seq_len where none does."""
        found = [self.packing(source, stage) for stage in self.stages if source in stage.sources]
        return list(dict.fromkeys(found)) or [self.packing(source)]

    def stage_packings(self) -> list[Packing]:
        """What the stages read, each once, in the order of the sources."""
        return [packing for name in self.stage_sources() for packing in self.packings_of(name)]

    def tokens_per_step(self, stage: Stage) -> int:
        """Packed positions of one optimizer step of a stage, over all ranks."""
        return self.train.global_batch_size * self.seq_len_of(stage)

    def tokens_of(self, stage: Stage) -> int | None:
        """Packed positions that a stage is asked for, in `tokens` or in `steps`; None in `epochs`."""
        return stage.tokens if stage.steps is None else stage.steps * self.tokens_per_step(stage)

    def steps_of(self, stage: Stage) -> int | None:
        """Optimizer steps that this is, rounded up; None in `epochs`."""
        tokens = self.tokens_of(stage)
        return None if tokens is None else -(-tokens // self.tokens_per_step(stage))

    def vocabulary_sources(self) -> list[str]:
        """Sources the tokenizer is trained on: `vocab.sources`, or every one that is not English."""
        return self.vocab.sources or [n for n, source in self.sources.items() if source.codes != ("en",)]

    def languages(self) -> list[str]:
        """The languages of its sources, in their order, those of instructions first."""
        ordered = sorted(self.sources.values(), key=lambda source: not source.is_dialogue)
        return list(dict.fromkeys(code for source in ordered for code in source.codes))

    def vocabulary_languages(self) -> list[str]:
        """The languages of the text that the tokenizer is trained on, those that are not English first."""
        codes = (code for name in self.vocabulary_sources() for code in self.sources[name].codes)
        return sorted(dict.fromkeys(codes or self.languages()), key=lambda code: code == "en")

    def held_out_languages(self) -> list[str]:
        """The languages that are evaluated on held-out text, in the order of `heldout.sources`."""
        return list(dict.fromkeys(self.sources[name].target for name in self.heldout.sources))

    def with_recompute(self, setting: str | FullLayers | Mapping[Literal["full_layers"], int]) -> Self:
        """The recipe with another `train.gradient_checkpointing`."""
        if isinstance(setting, Mapping):
            setting = FullLayers.model_validate(setting)
        train = self.train.model_copy(update={"gradient_checkpointing": setting})
        return self.model_copy(update={"train": train})

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
        if len(set(stage_names)) != len(stage_names) or {"base", "export"} & {*stage_names}:
            raise ValueError(
                "stage names must differ from each other, from 'base' (the untrained model) and from 'export'"
            )
        return self
