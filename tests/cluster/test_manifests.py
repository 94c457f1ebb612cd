"""ray-cluster.yaml against Ray's own schema; rayjob.yaml against our parser and Ray's runtime env."""

from __future__ import annotations

import copy
import os
import shlex
import subprocess
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
        assert command.index(". cluster/environment.sh &&") < command.index("ray_start ")
        assert "--node-ip-address=" in command and "ray start" not in command
    assert f"--node-ip-address={config['provider']['head_ip']} " in starts[0]
    assert "--dashboard-host=127.0.0.1" in starts[0]
    settings = settings_of_a_box()
    assert settings["RAY_AUTH_MODE"] == "token"
    assert settings["RAY_AUTH_TOKEN_PATH"] == "/home/you/.ray/persianmind_token"
    assert "~/.ray/persianmind_token" in config["file_mounts"]


def settings_of_a_box(then: str = "env") -> dict[str, str]:
    """What cluster/environment.sh sets, by any POSIX shell."""
    done = subprocess.run(
        ["sh", "-c", f". cluster/environment.sh && {then}"],
        cwd=ROOT,
        env={"HOME": "/home/you", "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    return dict(line.split("=", 1) for line in done.stdout.splitlines())


def test_the_settings_are_refused_outside_the_projects_folder(tmp_path: Path) -> None:
    """There Ray's metrics would be open."""
    command = ["sh", "-c", f". {ROOT}/cluster/environment.sh && echo set"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0 and done.stdout == "" and "cd to the project's folder" in done.stderr


def test_the_address_of_a_box_is_the_one_that_reaches_the_head() -> None:
    """What the worker's start line computes, run here for the loopback."""
    line = load("ray-cluster.yaml")["worker_start_ray_commands"][-1]
    expression = line.partition("--node-ip-address=")[2]
    command = f"RAY_HEAD_IP=127.0.0.1; echo {expression}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True)
    assert done.stdout == "127.0.0.1\n"


def test_rays_start_flags_exist() -> None:
    """Every flag of the start commands and of `ray_start` itself is one `ray start` knows."""
    from ray.scripts.scripts import start

    settings = (ROOT / "cluster" / "environment.sh").read_text(encoding="utf-8")
    known = {option for parameter in start.params for option in parameter.opts}
    config = load("ray-cluster.yaml")
    flags = [
        word.partition("=")[0]
        for key in ("head_start_ray_commands", "worker_start_ray_commands")
        for word in [*config[key][-1].split(), *settings.split()]
        if word.startswith("--")
    ]
    assert len(flags) >= 20
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
