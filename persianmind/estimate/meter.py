"""Every allocation of operations that run without values: their sum, its peak, the largest, and the FLOPs."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, Self

from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from persianmind.model.document_attention import held_inside
from persianmind.model.int8_matmuls import matmul_bytes

# FlashAttention 2 pads each document to whole blocks of queries in its backward pass (arXiv 2307.08691).
FLASH_BLOCK = 128
FP32 = 4
INT8_MATMULS = frozenset(
    f"persianmind::int8_{name}" for name in ("lora_projection", "projection", "input_gradient")
)


class AllocationMeter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Adds the storages that operations make and takes them off once nobody holds them any more.

    What a kernel needs for itself is added where it is as large as a tensor (`_WORKSPACES`). Used as a
    context around a forward and backward pass of `model`, on meta or fake tensors.

    current_bytes: held now; peak_bytes: the most that was at once; parameters and buffers are not counted.
    gradient_bytes: of gradients of parameters at that moment. largest_bytes, largest: the largest single
    tensor, in words. flops: of matmuls and attention; int8_flops: of these, those over an int8 base.
    """

    def __init__(self, model: nn.Module, held: Iterable[Tensor]) -> None:
        """held: what is there before and is not counted."""
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak_bytes = self.gradient_bytes = self.largest_bytes = 0
        self.flops = self.int8_flops = 0
        self.largest = ""
        self.current_bytes = self._gradients = 0
        self._known: dict[int, Any] = {one.untyped_storage()._cdata: None for one in held}
        self._names = {id(module): name for name, module in model.named_modules()}
        self._inside: list[str] = []
        self._trained = [value for value in model.parameters() if value.requires_grad]
        self._hooks: list[Any] = []

    def __enter__(self) -> Self:
        register = nn.modules.module
        self._hooks = [
            register.register_module_forward_pre_hook(self._enter_module),
            register.register_module_forward_hook(self._leave_module, always_call=True),
            *map(self._watch_gradient, self._trained),
        ]
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exc: Any) -> None:
        super().__exit__(*exc)  # type: ignore[no-untyped-call]
        for hook in self._hooks:
            hook.remove()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        packet = func._overloadpacket
        name, flops = packet._qualified_op_name, 0
        if (count := _FLOPS.get(name)) is not None:
            flops = count(args)
        elif packet in flop_registry:
            flops = flop_registry[packet](*args, **(kwargs or {}), out_val=out)
        self.flops += flops
        self.int8_flops += flops if name in INT8_MATMULS else 0
        for value in _tensors(out):
            self._add(value, func)
        if (workspace := _WORKSPACES.get(name)) is not None:
            self._see(self.current_bytes + workspace(args))
        return out

    def _add(self, value: Tensor, func: Any) -> None:
        storage = value.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known[key] = weakref.ref(storage, lambda _: self._free(key, size))
        self.current_bytes += size
        self._see(self.current_bytes)
        if size > self.largest_bytes:
            self.largest_bytes = size
            where = self._inside[-1] if self._inside else "backward"
            shape = ", ".join(f"{length:,}" for length in value.shape)
            self.largest = f"{func._overloadpacket.__name__} in {where}, {_dtype(value)} [{shape}]"

    def _free(self, key: int, size: int) -> None:
        del self._known[key]
        self.current_bytes -= size

    def _see(self, held: int) -> None:
        if held > self.peak_bytes:
            self.peak_bytes, self.gradient_bytes = held, self._gradients

    def _watch_gradient(self, value: Tensor) -> Any:
        return value.register_post_accumulate_grad_hook(self._note_gradient)  # type: ignore[no-untyped-call]

    def _note_gradient(self, value: Tensor) -> None:
        if value.grad is not None:
            self._gradients += value.grad.numel() * value.grad.element_size()

    def _enter_module(self, module: nn.Module, _: Any) -> None:
        name = self._names.get(id(module), type(module).__name__)
        self._inside.append(name or "the loss")  # of the root only the loss is not in a module of its own

    def _leave_module(self, *_: Any) -> None:
        self._inside.pop()


def _tensors(out: Any) -> Iterator[Tensor]:
    if isinstance(out, Tensor):
        yield out
    elif isinstance(out, tuple | list):
        for one in out:
            yield from _tensors(one)


def _dtype(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _nbytes(value: Tensor) -> int:
    return value.numel() * value.element_size()


def _flash_backward_bytes(args: Any) -> int:
    """Sums of the queries' gradients in fp32 and of dO x O, over padded documents; of grouped keys and values
    a gradient for every query head (flash-attn, csrc/flash_attn/flash_api.cpp, mha_varlen_bwd)."""
    _, query, key, _, _, _, offsets = args[:7]
    tokens, heads, head_size = query.shape
    padded = tokens + FLASH_BLOCK * (offsets.numel() - 1)
    expanded = 2 * tokens * heads * head_size * query.element_size() if key.shape[1] != heads else 0
    return int(padded * heads * (head_size + 1) * FP32 + expanded)


def _int8_bytes(rows: Tensor, weight: Tensor, itemsize: int) -> int:
    """Beside the result, which is made last."""
    size = matmul_bytes(len(rows), weight.shape[1], len(weight), rows.device)
    return size - len(rows) * len(weight) * itemsize


def _attention_flops(query: Tensor, longest: int, matmuls: int) -> int:
    """Causal: half of the square. `longest` is the length of the sequences, each taken for one document."""
    tokens, heads, head_size = query.shape
    return matmuls * tokens * longest * heads * head_size


# Beside its results the kernel holds, by operation and its arguments.
_WORKSPACES: dict[str, Callable[[Any], int]] = {
    "aten::logsumexp": lambda args: _nbytes(args[0]),  # exp of (input - maximum)
    "torch_attn::_varlen_attn_backward": _flash_backward_bytes,
    # The whole weight in 16 or 32 bits, multiplied as any other.
    "bitsandbytes::gemm_4bit": lambda args: args[2][0] * args[2][1] * args[0].element_size(),
}
_WORKSPACES |= {
    "persianmind::document_attention": partial(held_inside, backward=False),
    "persianmind::document_attention_backward": partial(held_inside, backward=True),
    "persianmind::int8_lora_projection": lambda args: _int8_bytes(args[1], args[3], args[0].itemsize),
    "persianmind::int8_projection": lambda args: _int8_bytes(args[0], args[2], args[5].itemsize),
    "persianmind::int8_input_gradient": lambda args: _int8_bytes(args[0], args[2].t(), args[3].itemsize),
}
# FLOPs, 2 per multiplication with addition, of what torch's own counter does not know, or where it takes
# every place in the padded offsets for a document of full length.
_FLOPS: dict[str, Callable[[Any], int]] = {
    "torch_attn::_varlen_attn": lambda args: _attention_flops(args[0], args[5], matmuls=2),
    "torch_attn::_varlen_attn_backward": lambda args: _attention_flops(args[1], args[8], matmuls=5),
    "bitsandbytes::gemm_4bit": lambda args: 2 * args[0].numel() * args[2][0],
}
