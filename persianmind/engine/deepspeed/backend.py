"""DeepSpeed as the registry sees it; heavy imports happen inside the methods."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from persianmind.common.paths import PROJECT_ROOT
from persianmind.engine.deepspeed import config, devices, launcher, start
from persianmind.engine.ranks import Ranks
from persianmind.recipe import Recipe

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from persianmind.checkpoint.manifest import StoredCheckpoint
    from persianmind.engine.base import Engine
    from persianmind.model.adapted import AdaptedModel


class DeepSpeedBackend:
    """`engine.base.Backend` of this package."""

    default_config = PROJECT_ROOT / "ds_configs" / "zero2.json"
    wait_frames = ("torch/distributed/", "deepspeed/comm/", "engine/collectives.py")

    def prepare_environment(self) -> None:
        start.prepare_environment()

    def prepare_group(self, ranks: Ranks | None, hang_timeout_s: float) -> None:
        start.prepare_group(ranks, hang_timeout_s)

    def resolve_config(self, path: Path, recipe: Recipe, world_size: int) -> dict[str, Any]:
        return config.resolve_deepspeed_config(path, recipe, world_size)

    def start(
        self,
        ranks: Ranks,
        hang_timeout_s: float,
        agreed: Mapping[str, str] | None = None,
        progressed_s: Callable[[], float] = lambda: 0.0,
    ) -> None:
        start.start_distributed(ranks, hang_timeout_s, agreed, progressed_s=progressed_s)

    def device(self, ranks: Ranks) -> torch.device:
        return devices.rank_device(ranks)

    def open(self, model: AdaptedModel, config: Mapping[str, Any], ranks: Ranks) -> Engine:
        from persianmind.engine.deepspeed.engine import DeepSpeedEngine

        return DeepSpeedEngine(model, dict(config), ranks)

    def trained_tensors(self, checkpoint: StoredCheckpoint) -> dict[str, Tensor]:
        from persianmind.engine.deepspeed.reshard import MASTER, gather_state

        state = gather_state(checkpoint, weights_only=True)
        return {name: value[MASTER] for name, value in state.parameters.items()}

    def launcher_is_gone(self) -> bool:
        return launcher.launcher_is_gone()
