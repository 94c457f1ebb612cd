"""DeepSpeed itself, two real ranks: whatever its JSON leaves out or chooses freely, the recipe is what
trains, and the checkpoint holds it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.engine.json_cases import TRAINED
from tests.support.launch import ROOT, launch

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("json") / "seen.json"
    launched = launch(
        ranks=2, script=ROOT / "tests" / "engine" / "json_worker.py", environment={"OUT": str(out)}
    )
    assert launched.code == 0 and out.is_file(), launched.text
    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    for case, live in result.items():
        print(f"{case}: weights off by {live['error']:.1e}, checkpoint by {live['checkpoint_error']:.1e}")
    return result


@pytest.mark.parametrize("case", TRAINED)
def test_what_the_recipe_says_is_what_trains(seen: dict[str, Any], case: str) -> None:
    live = dict(seen[case])
    # Beside torch's own AdamW and clipping over all sequences in one process, fp32.
    assert live.pop("error") < 1e-6 and live.pop("checkpoint_error") < 1e-6
    assert live == {
        "optimizer": "AdamW",
        "betas": ["[0.7, 0.9]"],
        "eps": [1e-3],
        "weight_decay": [0.3],
        "clipping": 0.05,
        "stage": 2,
        "bf16": False,
        "communication": "torch.float32",
        "batch": [2, 1, 1],
    }


def test_control_unfilled_deepspeeds_defaults_train(seen: dict[str, Any]) -> None:
    live = seen["unfilled"]
    assert (live["betas"], live["eps"], live["weight_decay"]) == (["[0.9, 0.999]"], [1e-8], [0.01])
    assert live["clipping"] != 0.05 and live["error"] > 1e-3


def test_control_what_is_fixed_would_break_checkpoints(seen: dict[str, Any]) -> None:
    assert seen["round_robin"]["error"] < 1e-6 < 1e-2 < seen["round_robin"]["checkpoint_error"]
