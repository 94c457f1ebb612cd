"""The folder written at the end."""

from __future__ import annotations

from typing import Literal

from persianmind.recipe.section import Dimension, Section


class Export(Section):
    """The merged Hugging Face folder written at the end. `pad_vocab_to_multiple`: ids that nothing stands
    for are added at the end of the vocabulary, for kernels that want such a number; no id changes."""

    enabled: bool = True
    dtype: Literal["bfloat16", "float32"] = "bfloat16"
    pad_vocab_to_multiple: Dimension = 1
