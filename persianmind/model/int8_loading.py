"""A base's projections made int8 while it is loaded, each as it comes from its file, and without values."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.core_model_loading import ConversionOps
from transformers.quantizers.auto import register_quantization_config, register_quantizer
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

from persianmind.common.errors import BaseModelError
from persianmind.model.int8 import Int8Linear
from persianmind.model.int8_matmuls import MULTIPLE
from persianmind.model.int8_rotation import hadamard, rotate_blocks, rotation_block
from persianmind.model.int8_rounding import quantise_rows

METHOD = "persianmind_int8"


@register_quantization_config(METHOD)
class Int8Config(QuantizationConfigMixin):  # type: ignore[misc]
    """What `from_pretrained` takes to hold the projections of the decoder layers in int8."""

    def __init__(self) -> None:
        self.quant_method = METHOD


@register_quantizer(METHOD)
class Int8Quantizer(HfQuantizer):  # type: ignore[misc]
    """transformers' way in: empty int8 projections first, then each weight as it is read."""

    requires_calibration = False

    def _process_model_before_weight_loading(self, model: Any, **_: Any) -> None:
        make_int8(model)

    def param_needs_quantization(self, model: Any, param_name: str, **__: Any) -> bool:
        path, _, name = param_name.rpartition(".")
        return name == "weight" and isinstance(model.get_submodule(path), Int8Linear)

    def get_quantize_ops(self) -> ConversionOps:
        return Int8Quantize()

    def is_serializable(self) -> bool:
        return False

    @property
    def is_trainable(self) -> bool:
        return True


class Int8Quantize(ConversionOps):  # type: ignore[misc]
    """A weight to int8 and its scale, on the device it is for."""

    def convert(self, input_dict: dict[str, Any], **_: Any) -> dict[str, Tensor]:
        """input_dict: one weight [O, I] by its name, alone or in a list."""
        ((name, value),) = input_dict.items()
        weight8_OI, scale_O, rotation_KK = _quantised(value[0] if isinstance(value, list) else value)
        own = name.removesuffix("weight")
        return {name: weight8_OI, f"{own}scale": scale_O, f"{own}rotation": rotation_KK}


def _quantised(weight_OI: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """What an `Int8Linear` holds of a weight."""
    block = rotation_block(weight_OI.shape[1])
    rotation_KK = hadamard(block, torch.float32, weight_OI.device)
    weight8_OI, scale_O1 = quantise_rows(rotate_blocks(weight_OI.float(), rotation_KK) / block)
    return weight8_OI, scale_O1.squeeze(1), rotation_KK.to(weight_OI.dtype)


def make_int8(causal_lm: Any) -> None:
    """Puts an empty int8 projection in the place of every linear one inside the decoder layers.

    Args:
        causal_lm: a transformers model on the meta device.

    Raises:
        BaseModelError: one has a length that int8 matmuls of GPUs do not take.
    """
    layers = causal_lm.get_decoder().layers
    for name, linear in list(layers.named_modules()):
        if not isinstance(linear, nn.Linear):
            continue
        shape = tuple(linear.weight.shape)
        if any(length % MULTIPLE for length in shape):
            raise BaseModelError(
                f"train.quantize=int8 needs projections whose sizes are multiples of {MULTIPLE}, and {name} "
                f"of this base is {shape[0]} x {shape[1]}; give train.quantize=none or nf4"
            )
        weight = torch.empty(shape, dtype=torch.int8, device=linear.weight.device)
        scale = torch.empty(shape[0], dtype=torch.float32, device=linear.weight.device)
        rotation = hadamard(rotation_block(shape[1]), linear.weight.dtype, linear.weight.device)
        layers.set_submodule(name, Int8Linear(weight, scale, rotation, linear.bias))


@torch.no_grad()
def quantise_int8(module: nn.Module) -> None:
    """The same of linear projections that hold their values already."""
    for name, linear in list(module.named_modules()):
        if isinstance(linear, nn.Linear):
            module.set_submodule(name, Int8Linear(*_quantised(linear.weight.detach()), linear.bias))
