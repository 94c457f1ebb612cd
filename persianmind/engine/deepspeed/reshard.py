"""ZeRO-2 state by parameter name: gathered from the files of any number of ranks, put into an engine of any
other number of ranks, bit for bit.

A ZeRO-2 file holds, for each parameter group, one flat slice of the group's fp32 masters and of each Adam
moment, and where in the slice each parameter's piece lies. Slices follow each other in rank order, so the
pieces of a parameter, joined in rank order, are the parameter.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from persianmind.checkpoint.manifest import StoredCheckpoint
from persianmind.common.errors import CheckpointError
from persianmind.engine.deepspeed.loading import load_verified

if TYPE_CHECKING:
    import torch

TAG = "deepspeed"
_SHARD = re.compile(r"(?:bf16_)?zero_pp_rank_(\d+)_mp_rank_00_optim_states\.pt$")
MODEL_STATES = "mp_rank_00_model_states.pt"
MASTER = "fp32"


@dataclass(frozen=True)
class FullState:
    """Trained state by name. `parameters[name]` has "fp32", "exp_avg", "exp_avg_sq" in the parameter's shape
    (whatever element-wise state the optimizer keeps) and scalars such as "step". `groups` are the optimizer's
    hyperparameters a group, in the order of the groups."""

    parameters: Mapping[str, Mapping[str, torch.Tensor]]
    groups: list[dict[str, Any]]


def shard_names(checkpoint: StoredCheckpoint, tag: str = TAG) -> list[str]:
    """The ZeRO files of a checkpoint in rank order.

    Raises:
        CheckpointError: they are not exactly one for each rank of the world that saved.
    """
    by_rank: dict[int, str] = {}
    for name in checkpoint.files:
        if name.startswith(f"{tag}/") and (match := _SHARD.search(name)):
            by_rank[int(match[1])] = name
    if sorted(by_rank) != list(range(checkpoint.world_size)):
        raise CheckpointError(
            f"{checkpoint.path} was saved by {checkpoint.world_size} ranks but has ZeRO files of ranks "
            f"{sorted(by_rank)}"
        )
    return [by_rank[rank] for rank in sorted(by_rank)]


def parameter_shapes(checkpoint: StoredCheckpoint, tag: str = TAG) -> list[dict[str, tuple[int, ...]]]:
    """Names and shapes of the trained parameters, a dict a group, in DeepSpeed's flat order."""
    groups = load_verified(checkpoint, f"{tag}/{MODEL_STATES}")["param_shapes"]
    return [{name: tuple(shape) for name, shape in group.items()} for group in groups]


def gather_state(checkpoint: StoredCheckpoint, tag: str = TAG, *, weights_only: bool = False) -> FullState:
    """Joins the ZeRO files of all ranks that saved into full fp32 tensors by parameter name, on the CPU.

    Peak memory is the full state and one shard: O(trainable parameters). weights_only: the masters alone.

    Raises:
        CheckpointError: a file is damaged, missing, or the pieces do not cover every parameter.
    """
    shapes_by_group = parameter_shapes(checkpoint, tag)
    pieces: dict[str, dict[str, list[torch.Tensor]]] = {
        name: {} for group in shapes_by_group for name in group
    }
    scalars: list[dict[str, torch.Tensor]] = [{} for _ in shapes_by_group]
    hyperparameters: list[dict[str, Any]] = []
    for shard in shard_names(checkpoint, tag):
        state = load_verified(checkpoint, shard)["optimizer_state_dict"]
        base = state["base_optimizer_state"]
        hyperparameters = [
            {key: value for key, value in group.items() if key != "params"} for group in base["param_groups"]
        ]
        for index, addresses in enumerate(state["param_slice_mappings"]):
            master = state["single_partition_of_fp32_groups"][index].detach()
            flat, scalar = _split(
                base["state"].get(index, {}), master.numel() + state["group_paddings"][index]
            )
            scalars[index].update(scalar)
            for name, address in addresses.items():
                for key, whole in {MASTER: master, **({} if weights_only else flat)}.items():
                    piece = whole.narrow(0, address.start, address.numel).clone()
                    pieces[name].setdefault(key, []).append(piece)
    parameters = {
        name: {**_joined(checkpoint, name, shape, pieces[name]), **scalars[index]}
        for index, group in enumerate(shapes_by_group)
        for name, shape in group.items()
    }
    return FullState(parameters, hyperparameters)


def _split(state: Mapping[str, Any], numel: int) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Optimizer state of one flat slice -> element-wise tensors, and scalars (the step)."""
    import torch

    flat = {key: value for key, value in state.items() if torch.is_tensor(value) and value.shape == (numel,)}
    scalars = {key: torch.as_tensor(value).clone() for key, value in state.items() if key not in flat}
    return flat, scalars


def _joined(
    checkpoint: StoredCheckpoint, name: str, shape: tuple[int, ...], pieces: Mapping[str, list[torch.Tensor]]
) -> dict[str, torch.Tensor]:
    import torch

    full: dict[str, torch.Tensor] = {}
    for key, parts in pieces.items():
        found = sum(part.numel() for part in parts)
        if found != math.prod(shape):
            raise CheckpointError(
                f"{checkpoint.path}: the {key} pieces of {name} have {found} of {math.prod(shape)} elements"
            )
        full[key] = torch.cat(parts).view(shape)
    if MASTER not in full:
        raise CheckpointError(f"{checkpoint.path}: no ZeRO file holds {name}")
    return full


def differences(zero: Any, parameters: Mapping[str, Any]) -> list[str]:
    """What keeps `parameters` (name -> something with .shape or a shape) out of the optimizer `zero`."""
    here = {zero.param_names[p]: tuple(p.shape) for group in zero.bit16_groups for p in group}
    there = {name: tuple(getattr(value, "shape", value)) for name, value in parameters.items()}
    problems = [f"{name} is trained here and not in the checkpoint" for name in here.keys() - there.keys()]
    problems += [f"{name} is in the checkpoint and not trained here" for name in there.keys() - here.keys()]
    problems += [
        f"{name} has shape {here[name]} here and {there[name]} in the checkpoint"
        for name in here.keys() & there.keys()
        if here[name] != there[name]
    ]
    return sorted(problems)


def scatter_state(zero: Any, state: FullState, *, weights_only: bool = False) -> None:
    """Puts `state` into a running ZeRO-2 optimizer (`engine.optimizer`) of any number of ranks.

    Masters and moments are copied bit for bit into this rank's slices, Adam's state is made where it does not
    exist yet, and the low-precision weights are refreshed from the masters. Collective: every rank calls it.
    `weights_only` leaves moments and hyperparameters as they are here.

    Raises:
        CheckpointError: names, shapes or the number of groups differ; nothing was changed.
    """
    import torch

    problems = differences(zero, {name: value[MASTER] for name, value in state.parameters.items()})
    if len(zero.bit16_groups) != len(state.groups):
        problems.append(
            f"{len(state.groups)} parameter groups in the checkpoint, {len(zero.bit16_groups)} here"
        )
    if problems:
        raise CheckpointError(f"the checkpoint does not fit this model: {'; '.join(problems[:5])}")
    with torch.no_grad():
        for index, parameters in enumerate(zero.bit16_groups):
            _fill_group(zero, index, parameters, state, weights_only=weights_only)
    if weights_only:
        zero.update_lp_params()
        return
    for group, saved in zip(zero.optimizer.param_groups, state.groups, strict=True):
        group.update(saved)
    zero._lazy_init_hp_params_optimizer_state()  # so that DeepSpeed's own by-name accessors see the moments
    zero.update_lp_params()


def _fill_group(
    zero: Any, index: int, parameters: list[Any], state: FullState, *, weights_only: bool
) -> None:
    import torch

    master = zero.single_partition_of_fp32_groups[index]
    slots = {} if weights_only else zero.optimizer.state[master]
    for key, value in state.parameters[zero.param_names[parameters[0]]].items():
        if key == MASTER or weights_only:
            continue
        if value.shape == parameters[0].shape and value.dim() > 0:
            if key not in slots:
                slots[key] = torch.zeros_like(master)
        else:
            slots[key] = value.clone()
    for parameter in parameters:
        mapping = parameter._hp_mapping
        if mapping is None:  # this rank's slice has no piece of it
            continue
        here, piece = mapping.hp_fragment_address, mapping.lp_fragment_address
        for key, value in state.parameters[zero.param_names[parameter]].items():
            if weights_only and key != MASTER:
                continue
            target = master if key == MASTER else slots[key]
            if value.shape == parameter.shape and value.dim() > 0:
                source = value.reshape(-1).narrow(0, piece.start, piece.numel)
                target.narrow(0, here.start, here.numel).copy_(source)
