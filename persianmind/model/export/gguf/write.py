"""An exported Hugging Face folder to one GGUF file, tensor by tensor."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from persianmind.common.atomic import atomic_file, write_text
from persianmind.common.errors import BaseModelError, MachineError, UsageError
from persianmind.model.bases import read_config
from persianmind.model.export.gguf.architecture import add_hyperparameters, architecture_of
from persianmind.model.export.gguf.generation import read_generation
from persianmind.model.export.gguf.modelfile import modelfile
from persianmind.model.export.gguf.plan import GgufDtype, GgufTensor, plan_tensors, quantisation, tensor_data
from persianmind.model.export.gguf.rope import add_rope
from persianmind.model.export.gguf.vocabulary import read_vocab
from persianmind.model.export.source import FolderTensors, TensorSource

_FILE_TYPES = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}


def export_gguf(
    folder: Path,
    out: Path,
    *,
    dtype: GgufDtype = "bf16",
    tensors: TensorSource | None = None,
    pre_tokenizer: str | None = None,
    base: Path | None = None,
) -> Path:
    """Writes the GGUF file `out`, whole or not at all, and beside it a Modelfile for Ollama (.Modelfile).

    Matrices are written in `dtype`, norms and biases in fp32, as llama.cpp's converter does.

    Args:
        folder: an exported Hugging Face folder: config, generation config, tokenizer, chat template.
        out: the file; it must not exist.
        dtype: of the matrices.
        tensors: where the weights come from; the folder's safetensors where it is None.
        pre_tokenizer: llama.cpp's name for the pre-tokenizer, where its hash is unknown.
        base: the folder that the tokenizer was expanded from: it has the hash that llama.cpp knows.

    Returns:
        `out`.

    Raises:
        BaseModelError: llama.cpp would not load the model, or would compute or tokenise otherwise.
        UsageError: `out` is there already, or is not named *.gguf.
        MachineError: the disk has no room for it.
    """
    import gguf

    if out.suffix != ".gguf" or out.exists():
        raise UsageError(
            f"{out} {'is there already' if out.exists() else 'is no name for a GGUF'}; give a new *.gguf"
        )
    if not (folder / "config.json").is_file():
        raise BaseModelError(f"{folder} holds no config.json; give an exported Hugging Face folder")
    config, source = read_config(folder), tensors or FolderTensors(folder)
    plan = plan_tensors(config, source.shapes(), dtype)
    vocab = read_vocab(folder, int(config["vocab_size"]), pre_tokenizer, base)
    generation = read_generation(folder)
    ollama = modelfile(generation, out.name)
    _check_room(out, sum(tensor.bytes for tensor in plan.values()))
    out.parent.mkdir(parents=True, exist_ok=True)
    name = architecture_of(config).name
    with atomic_file(out) as temporary, closing(gguf.GGUFWriter(temporary, name)) as writer:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(out.stem)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        writer.add_file_type(gguf.LlamaFileType[_FILE_TYPES[dtype]])
        add_hyperparameters(writer, config)
        add_rope(writer, config)
        vocab.add_to(writer)
        generation.add_to(writer)
        _write(writer, plan, config, source)
    write_text(out.with_suffix(".Modelfile"), ollama)
    return out


def _write(
    writer: Any, plan: Mapping[str, GgufTensor], config: Mapping[str, Any], source: TensorSource
) -> None:
    """Header, then one tensor after the other: the writer holds none of them."""
    for name, tensor in plan.items():
        kind = quantisation(tensor.type)
        writer.add_tensor_info(name, tensor.shape, np.dtype(np.float32), tensor.bytes, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in plan.values():
        writer.write_tensor_data(tensor_data(tensor, config, source))


def _check_room(out: Path, size: int) -> None:
    parent = next(folder for folder in out.absolute().parents if folder.exists())
    free = shutil.disk_usage(parent).free
    if free < size:
        raise MachineError(f"{out} needs {size / 1e9:.1f} GB and {parent} has {free / 1e9:.1f} GB; make room")
