"""Where the weights of an exported model come from, one at a time: no writer ever holds the whole model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from persianmind.common.errors import BaseModelError
from persianmind.model.base_files import weight_files

if TYPE_CHECKING:
    from torch import Tensor


class TensorSource(Protocol):
    """The weights of a model by the names that its Hugging Face folder has for them."""

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Name -> shape of every weight, in the order of writing."""
        ...

    def load(self, name: str) -> Tensor:
        """One weight on the host, in the precision it lies in; the caller lets go of it before the next."""
        ...


class FolderTensors:
    """The safetensors files of a Hugging Face folder, mapped and not read: `load` gives pages of the file.

    Raises:
        BaseModelError: no safetensors file, or one that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        from safetensors import SafetensorError, safe_open

        files = weight_files(folder)
        if not files:
            raise BaseModelError(f"{folder} holds no .safetensors weights; give a Hugging Face model folder")
        self._file_of: dict[str, Any] = {}
        try:
            for file in files:
                handle = safe_open(file, framework="pt")
                names: list[str] = list(handle.keys())  # type: ignore[no-untyped-call]
                self._file_of |= dict.fromkeys(names, handle)
        except (SafetensorError, OSError) as error:
            raise BaseModelError(f"{file} cannot be read: {error}; copy the folder again") from None

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(file.get_slice(name).get_shape()) for name, file in self._file_of.items()}

    def load(self, name: str) -> Tensor:
        tensor: Tensor = self._file_of[name].get_tensor(name)
        return tensor
