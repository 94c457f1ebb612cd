"""What the build of one source is to do, and what its shards depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from persianmind.common.checksum import hash_text
from persianmind.common.errors import DataError
from persianmind.data.chat_form import ChatForm
from persianmind.data.manifest import MANIFEST, Fingerprints, Manifest, read_data_manifest
from persianmind.language import run_profile
from persianmind.language.profile import PromptTemplate
from persianmind.recipe import Data, Packing, Recipe
from persianmind.recipe.section import Section
from persianmind.text.heldout import held_out_fingerprints
from persianmind.text.sources.locate import source_fingerprint
from persianmind.text.spec import SHOWN, SourceSpec, source_spec
from persianmind.tokenizer import FolderTokenizer

# Changes when the same input would give other bytes: an older folder is then known not to match.
# 2: a document is known by its content, white space aside; 3: only a source's own profile spells it, ezafe on
# heh is two characters, half-spaces of old keyboards are ZWNJ.
PACKING_VERSION = 3
# The same for instruction records alone; 2: a dialogue is tokenised as one string; 3: system turns and
# history of every shape, no forged turns.
DIALOGUE_VERSION = 3


class SourceJob(Section):
    """The token shards of one source, to be built. Plain JSON: it is sent to other processes.

    packing: the name of what is built (recipe/packing.py); data: with its sequence length; tokenizer: its
    folder; out: the folder of the shards; heldout: the folder of held-out text, None where nothing is held
    out; own_prompt: what PersianMind's own form of dialogues says in the run's language.
    """

    packing: str
    spec: SourceSpec
    data: Data
    tokenizer: Path
    out: Path
    heldout: Path | None
    own_prompt: PromptTemplate

    def form(self, tokenizer: FolderTokenizer) -> ChatForm:
        """How its dialogues are written.

        Raises:
            DataError: this tokenizer cannot write them in the form that the recipe names.
        """
        return ChatForm.of(tokenizer, self.data.prompt, self.own_prompt)

    @property
    def name(self) -> str:
        """The source's name in the recipe."""
        return self.spec.name


def source_job(recipe: Recipe, packing: Packing, *, tokenizer: Path, out: Path, heldout: Path) -> SourceJob:
    """The job of one source of a recipe at one sequence length.

    Args:
        heldout: the folder `write_held_out` wrote, if it had to.
    """
    return SourceJob(
        packing=packing.name,
        spec=source_spec(recipe, packing.source),
        data=recipe.data.model_copy(update={"seq_len": packing.seq_len}),
        tokenizer=tokenizer,
        out=out,
        heldout=heldout if recipe.heldout.sources else None,
        own_prompt=run_profile(recipe).prompt,
    )


def build_fingerprints(job: SourceJob, tokenizer: FolderTokenizer) -> Fingerprints:
    """What the shards of a source depend on; settings that change no byte (the error budget) are not in it.

    Raises:
        SourceError: the source cannot be found.
        DataError: the held-out text is missing or damaged, or this tokenizer cannot write dialogues in the
            form that the recipe names.
    """
    spec, data = job.spec, job.data
    template = job.form(tokenizer).template if spec.source.is_dialogue else None
    options: dict[str, Any] = {
        "packing_version": PACKING_VERSION,
        "normalise": spec.normalise.model_dump(mode="json"),
        "quality": spec.quality.model_dump(mode="json"),
        "heldout": [spec.held_out_ratio, spec.seed, sorted(held_out_fingerprints(job.heldout))],
        "packing": [data.seq_len, data.sequences_per_shard, data.open_sequences],
        "prompt": None if template is None else [DIALOGUE_VERSION, template],
        "language": spec.source.language,
        "profiles": spec.model_dump(mode="json", exclude=SHOWN)["profiles"],
    }
    return Fingerprints(
        source=source_fingerprint(spec.name, spec.source),
        tokenizer=tokenizer.fingerprint(),
        options=hash_text(json.dumps(options, sort_keys=True)),
    )


def finished_build(out: Path, fingerprints: Fingerprints) -> Manifest | None:
    """The manifest of a finished build that fits; None where there is none.

    Raises:
        DataError: a finished build of something else lies there.
    """
    refuse_other_builds({out: fingerprints})
    return read_data_manifest(out) if (out / MANIFEST).is_file() else None


def refuse_other_builds(builds: Mapping[Path, Fingerprints]) -> None:
    """One line for all folders that hold a finished build of something else.

    Args:
        builds: what each folder is to hold.

    Raises:
        DataError: there are such; it names each and what differs.
    """
    told = []
    for out, fingerprints in builds.items():
        there = read_data_manifest(out).fingerprints if (out / MANIFEST).is_file() else fingerprints
        differing = [
            name for name, value in fingerprints.model_dump().items() if value != getattr(there, name)
        ]
        if differing:
            told.append(f"{out} holds shards that were built with other {' and '.join(differing)}")
    if told:
        raise DataError(f"{'; '.join(told)}; delete to build anew, or give another output folder")
