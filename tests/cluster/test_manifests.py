"""ray-cluster.yaml against Ray's own schema; rayjob.yaml against our parser and Ray's runtime env."""

from __future__ import annotations

import copy
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from persianmind.cluster.arguments import SubmitArguments
from persianmind.cluster.command import submit_app
from persianmind.common.console import invoke
from tests.cluster.helpers import ROOT


def load(name: str) -> Any:
    return yaml.safe_load((ROOT / "cluster" / name).read_text(encoding="utf-8"))


def validate(config: dict[str, Any]) -> dict[str, Any]:
    """What `ray up` does before it touches a machine; the prepared config."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared: dict[str, Any] = prepare_config(copy.deepcopy(config))
    validate_config({**prepared, "cluster_synced_files": []})
    return prepared


def test_ray_cluster_passes_rays_own_schema_and_keeps_two_nodes() -> None:
    config = load("ray-cluster.yaml")
    prepared = validate(config)
    assert prepared["provider"]["worker_ips"] == ["192.168.1.11"]
    assert prepared["max_workers"] == 1


@pytest.mark.parametrize(
    "damage",
    [{"provider": {}}, {"max_workers": "two"}, {"dashboard_host": "0.0.0.0"}, {"setup_commands": "make"}],
)
def test_the_schema_check_can_fail(damage: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        config = copy.deepcopy(load("ray-cluster.yaml"))
        jsonschema.validate({**config, **damage}, schema())


def schema() -> Any:
    import json

    import ray.autoscaler

    return json.loads(Path(ray.autoscaler.__file__).with_name("ray-schema.json").read_text())


def test_ray_cluster_is_closed_to_the_network() -> None:
    config = load("ray-cluster.yaml")
    starts = config["head_start_ray_commands"][-1], config["worker_start_ray_commands"][-1]
    for command in starts:
        assert "RAY_AUTH_MODE=token" in command
        assert "ray start" in command
    assert "--dashboard-host=127.0.0.1" in starts[0]
    assert "~/.ray/auth_token" in config["file_mounts"]


def test_rays_start_flags_exist() -> None:
    """Every flag of the start commands is one `ray start` knows."""
    from ray.scripts.scripts import start

    known = {option for parameter in start.params for option in parameter.opts}
    config = load("ray-cluster.yaml")
    flags = [
        word.partition("=")[0]
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for word in config[key][-1].split()
        if word.startswith("--")
    ]
    assert len(flags) >= 8
    assert [flag for flag in flags if flag not in known] == []


def test_rayjob_entrypoint_parses_and_fits_its_cluster() -> None:
    spec = load("rayjob.yaml")["spec"]
    words = shlex.split(spec["entrypoint"])
    assert words[:2] == ["python", "cluster/submit.py"]
    given = invoke(submit_app, words[2:], prog="cluster/submit.py")
    assert isinstance(given, SubmitArguments) and given.train.output is not None
    output = given.train.output
    group = spec["rayClusterSpec"]["workerGroupSpecs"][0]
    container = group["template"]["spec"]["containers"][0]
    assert given.nodes == group["replicas"]
    assert str(given.gpus_per_node) == container["resources"]["limits"]["nvidia.com/gpu"]
    mounts = [mount["mountPath"] for mount in container["volumeMounts"]]
    assert any(output.is_relative_to(mount) for mount in mounts)
    head = spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert any(output.is_relative_to(mount["mountPath"]) for mount in head["volumeMounts"])
    assert spec["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_rayjob_runtime_env_and_versions() -> None:
    import ray
    from ray.runtime_env import RuntimeEnv

    spec = load("rayjob.yaml")["spec"]
    env = RuntimeEnv(**{**yaml.safe_load(spec["runtimeEnvYAML"]), "working_dir": "https://x/y.zip"})
    assert env["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "120"
    assert spec["rayClusterSpec"]["rayVersion"] == ray.__version__
    pinned = [
        line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("ray==")
    ]
    assert pinned == [f"ray=={ray.__version__}"]
