"""From a path to a live model, to talk to or to measure: a Hugging Face folder, or a run's checkpoint."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.errors import (
    CheckpointError,
    MachineError,
    UsageError,
)
from persianmind.engine.registry import backend
from persianmind.recipe.language import ProfileSpec
from persianmind.recipe.loading import read_run_recipe
from persianmind.recipe.text import Normalise
from persianmind.run.folder import RunFolder

if TYPE_CHECKING:
    import torch

    from persianmind.data.chat_form import ChatForm
    from persianmind.evaluate.chat_model import ChatModel
    from persianmind.evaluate.evaluated import EvaluatedModel
    from persianmind.tokenizer import FolderTokenizer

NICENESS = 10  # beside a run that trains: it goes first


@dataclass(frozen=True, slots=True)
class ModelPlace:
    """A path that holds a model. checkpoint: of a run; None: its newest good one."""

    path: Path
    checkpoint: str | None = None

    @property
    def is_run(self) -> bool:
        """Whether it is a run folder; a model folder otherwise."""
        return (self.path / "recipe.yaml").is_file()

    def check(self) -> None:
        """Refuses what cannot be opened, before anything heavy is imported.

        Raises:
            UsageError: neither a model folder nor a run folder, or a checkpoint of a model folder.
            CheckpointError: a run that has saved none yet.
            BaseModelError: a model folder whose files are not what they should be.
        """
        if self.is_run:
            if not RunFolder(self.path).has_checkpoints:
                raise CheckpointError(
                    f"{self.path} has no checkpoint yet; wait for the first, which the run saves after "
                    "checkpoint.every_steps steps, or give its base"
                )
            return
        if (self.path / "adapter_config.json").is_file():
            raise UsageError(
                f"{self.path} is an adapter without its model; export it with --format hf and give that"
            )
        if not (self.path / "config.json").is_file():
            raise UsageError(
                f"{self.path} is neither a model folder (config.json, tokenizer.json, *.safetensors) nor a "
                "run folder (recipe.yaml); give an exported folder, or the folder that a run writes"
            )
        from persianmind.model.bases import check_model_folder

        check_model_folder(self.path)
        if not (self.path / "tokenizer.json").is_file():
            raise UsageError(
                f"{self.path} has no tokenizer.json, by which special tokens of a prompt are read; let "
                "transformers' AutoTokenizer load and save its tokenizer there"
            )
        if self.checkpoint is not None:
            raise UsageError(f"--checkpoint is for a run; {self.path} is a model folder")

    def open(self, device: str) -> ChatModel:
        """Loads it, to talk to.

        Args:
            device: "cpu", "cuda", or "auto": the GPU for a model folder where there is one, and the CPU for a
                run, whose GPUs may be full of its training.

        Raises:
            PersianMindError: it cannot be loaded, or has no chat template.
        """
        return _open_run(self, _device(device, "cpu")) if self.is_run else _open_folder(self.path, device)

    def open_evaluated(self, device: str) -> EvaluatedModel:
        """Loads it, to measure. Without a chat template it cannot be asked, and is measured by likelihoods.

        Args:
            device: as `open`, where "auto" is the GPU for runs as well.

        Raises:
            PersianMindError: it cannot be loaded.
        """
        import torch

        chosen = _device(device, "cuda" if torch.cuda.is_available() else "cpu")
        return _evaluated_run(self, chosen) if self.is_run else _evaluated_folder(self.path, chosen)


def _device(asked: str, otherwise: str) -> torch.device:
    import torch

    if asked == "cuda" and not torch.cuda.is_available():
        raise MachineError("--device cuda: no GPU that torch can use here; `persianmind doctor` says why")
    return torch.device(otherwise if asked == "auto" else asked)


def _open_run(place: ModelPlace, device: torch.device) -> ChatModel:
    """Reads alone: no lock is taken and nothing is written."""
    from persianmind.evaluate.chat_model import ChatModel
    from persianmind.publish.weights import trained_model

    os.nice(NICENESS)
    backend().prepare_environment()  # its files are the engine's
    folder = RunFolder(place.path)
    model = trained_model(folder, place.checkpoint, device)
    return ChatModel.of_recipe(model.causal_lm, folder.vocab, read_run_recipe(folder.recipe))


def _open_folder(folder: Path, device: str) -> ChatModel:
    import torch

    from persianmind.evaluate.chat_model import ChatModel
    from persianmind.tokenizer import FolderTokenizer

    text = _trained_text(folder)  # first: a damaged file is named, not opened
    tokenizer = FolderTokenizer(folder)
    form = _folder_form(folder, tokenizer)
    normalise = _folder_normaliser(text)
    chosen = _device(device, "cuda" if torch.cuda.is_available() else "cpu")
    return ChatModel(_load(folder).to(chosen), tokenizer, form, normalise)


def _evaluated_run(place: ModelPlace, device: torch.device) -> EvaluatedModel:
    from persianmind.common.checksum import hash_text
    from persianmind.evaluate.chat_model import ChatModel
    from persianmind.evaluate.evaluated import DEFAULT_WINDOW, EvaluatedModel
    from persianmind.model.bases import base_fingerprint
    from persianmind.publish.weights import adapted_model, read_trained_run
    from persianmind.run.identity import recipe_fingerprint

    backend().prepare_environment()
    run = read_trained_run(RunFolder(place.path), place.checkpoint)
    causal_lm = adapted_model(run, device).causal_lm
    chat = ChatModel.of_recipe(causal_lm, run.folder.vocab, run.recipe)
    identity = (base_fingerprint(run.base), run.expansion.fingerprint, recipe_fingerprint(run.recipe))
    return EvaluatedModel(
        name=f"{place.path} step {run.step}",
        causal_lm=causal_lm,
        tokenizer=chat.tokenizer,
        fingerprint=hash_text(*identity, str(run.step)),
        form=chat.form,
        normalise=chat.normalise,
        window=chat.max_positions or DEFAULT_WINDOW,
        run=place.path,
        profiles=run.recipe.profiles,
    )


def _evaluated_folder(folder: Path, device: torch.device) -> EvaluatedModel:
    from persianmind.common.checksum import hash_text
    from persianmind.evaluate.evaluated import DEFAULT_WINDOW, EvaluatedModel
    from persianmind.model.bases import base_fingerprint
    from persianmind.tokenizer import FolderTokenizer

    text = _trained_text(folder)
    tokenizer = FolderTokenizer(folder)
    causal_lm = _load(folder).to(device)
    stated = getattr(causal_lm.config, "max_position_embeddings", None)
    return EvaluatedModel(
        name=str(folder),
        causal_lm=causal_lm,
        tokenizer=tokenizer,
        fingerprint=hash_text(base_fingerprint(folder), tokenizer.fingerprint()),
        form=None if tokenizer.chat_template() is None else _folder_form(folder, tokenizer),
        normalise=_folder_normaliser(text),
        profiles=text.profiles,
        window=stated if isinstance(stated, int) and stated > 0 else DEFAULT_WINDOW,
    )


def _folder_form(folder: Path, tokenizer: FolderTokenizer) -> ChatForm:
    """The folder's own chat template, as it stands: `ChatForm.of` asks more of one that is to be trained on.

    Raises:
        UsageError: there is none.
    """
    from persianmind.data.chat_form import ChatForm
    from persianmind.text.template_limits import check_chat_template

    template = tokenizer.chat_template()
    if template is None:
        raise UsageError(
            f"{folder} has no chat template, so how it wants to be asked is unknown; give a model that was "
            "tuned on dialogues, or put its chat_template.jinja into the folder"
        )
    check_chat_template(template, str(folder))
    stops: list[int] = []
    for name in ("generation_config.json", "config.json"):
        if (folder / name).is_file():
            stated = json.loads((folder / name).read_text(encoding="utf-8")).get("eos_token_id")
            stops += [stated] if isinstance(stated, int) else stated or []
    return ChatForm(template, tuple(dict.fromkeys([*stops, tokenizer.eos_id])), tokenizer)


def _load(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    from persianmind.model.base_files import load_errors_named

    with load_errors_named(f"{folder}: cannot be loaded"):
        return AutoModelForCausalLM.from_pretrained(
            folder, dtype="auto", use_safetensors=True, trust_remote_code=False, local_files_only=True
        )


@dataclass(frozen=True, slots=True)
class _TrainedText:
    """What a manifest of an export says of the text that the model was trained on."""

    languages: list[str] = field(default_factory=list)
    normalise: Normalise = field(default_factory=Normalise)
    profiles: dict[str, ProfileSpec] = field(default_factory=dict)


def _trained_text(folder: Path) -> _TrainedText:
    """As its manifest says; a folder that is not our export was not trained on our spelling.

    Raises:
        ExportError: the folder, or its manifest, is not as it was written.
    """
    from persianmind.publish.manifest import MANIFEST, read_export_manifest, require_whole_export

    if not (folder / MANIFEST).is_file():
        return _TrainedText()
    require_whole_export(folder)
    stated = read_export_manifest(folder)
    return _TrainedText(stated.languages, stated.normalise, stated.profiles)


def _folder_normaliser(text: _TrainedText) -> Callable[[str], str]:
    """The spelling of what is typed to a model of this text."""
    if not text.languages:
        return str.strip
    from persianmind.language import profile_for, target_language
    from persianmind.text.clean import input_normaliser

    return input_normaliser(profile_for(target_language(text.languages), text.profiles), text.normalise)
