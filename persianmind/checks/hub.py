"""The Hugging Face hub: whether it answers, whether the base is granted, and what is still to be downloaded.

$HF_ENDPOINT names another hub and $HF_HUB_OFFLINE=1 forbids asking one, as huggingface_hub has both.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from persianmind.checks.base import CheckContext, CheckResult
from persianmind.common.disk import existing_folder
from persianmind.model.bases import BASE_FILES, could_be_on_hub, present_base
from persianmind.model.download import large_files
from persianmind.model.families import check_family
from persianmind.recipe import Adapter
from persianmind.text.sources.locate import source_uris

if TYPE_CHECKING:
    from huggingface_hub import HfApi

TIMEOUT_S = 5.0
GB = 1e9


def check_hub(context: CheckContext) -> Iterator[CheckResult]:
    """The base of a recipe and its datasets on the hub; without a recipe, whether the hub answers.

    Raises:
        BaseModelError: the base on the hub is of a family that cannot be trained.
    """
    if context.recipe is None:
        yield reach_finding()
        return
    recipe = context.recipe
    name = hub_name(recipe.base)
    datasets = [
        dataset_name(uri)
        for source in recipe.sources.values()
        for uri in source_uris(source)
        if uri.startswith("hf://")
    ]
    if name is None and not datasets:
        yield CheckResult.ok("hub", f"not needed: {recipe.base} and every source are on this machine")
    if name is not None:
        yield base_finding(name, recipe.train.quantize, recipe.adapter)
    for dataset in dict.fromkeys(datasets):
        yield dataset_finding(dataset)


def hub_name(base: str) -> str | None:
    """The hub's name of a base, None where it is none."""
    return base if could_be_on_hub(base) and not Path(base).is_dir() else None


def dataset_name(uri: str) -> str:
    """hf://owner/name?split=train -> owner/name."""
    return urlsplit(uri.removeprefix("hf://")).path


def reach_finding() -> CheckResult:
    """Whether anything answers at the hub's address."""
    from huggingface_hub import constants, get_session

    if constants.HF_HUB_OFFLINE:
        return CheckResult.ok("hub", "HF_HUB_OFFLINE is set: nothing is asked or downloaded")
    started_s = time.perf_counter()
    try:
        get_session().head(constants.ENDPOINT, timeout=TIMEOUT_S)
    except Exception as error:  # the HTTP library's classes are its own business; all mean: no answer
        return CheckResult.warn(
            "hub",
            f"{constants.ENDPOINT} does not answer ({_short(error)}); bases and datasets of the hub need "
            "it: proxy, mirror (HF_ENDPOINT), or HF_HUB_OFFLINE=1 with everything already here",
        )
    return CheckResult.ok("hub", f"{constants.ENDPOINT} answers ({time.perf_counter() - started_s:.1f} s)")


def base_finding(name: str, quantize: str = "none", adapter: Adapter | None = None) -> CheckResult:
    """The base: here already, or granted and so many bytes away.

    Raises:
        BaseModelError: its family cannot be trained.
        RecipeError: it has not the layers that `adapter` is for.
    """
    from huggingface_hub import HfApi, constants

    if (folder := present_base(name)) is not None:
        size = sum(path.stat().st_size for path in folder.iterdir() if path.is_file())
        return CheckResult.ok("hub", f"{name} is downloaded ({size / GB:.2f} GB, {folder})")
    if constants.HF_HUB_OFFLINE:
        return CheckResult.fail("hub", f"HF_HUB_OFFLINE is set and {name} is not all here; {_carry(name)}")
    api = HfApi(endpoint=constants.ENDPOINT)
    problem = _refusal(api, name, "model")
    if problem is not None:
        return CheckResult.fail("hub", problem)
    try:
        info = api.model_info(name, files_metadata=True, timeout=TIMEOUT_S)
        config = _remote_config(api, name)
    except OSError as error:
        return CheckResult.fail("hub", f"{name}: the hub broke off ({_short(error)}); {_carry(name)}")
    check_family(config, name, quantize)
    if adapter is not None and adapter.layers is not None:
        adapter.layer_indices(int(config["num_hidden_layers"]))
    return download_finding(name, info)


def download_finding(name: str, info: Any) -> CheckResult:
    """What of a granted base is to be downloaded. info: huggingface_hub's ModelInfo with file sizes."""
    from huggingface_hub import constants, try_to_load_from_cache
    from huggingface_hub.utils import filter_repo_objects  # type: ignore[attr-defined]

    sizes = {one.rfilename: one.size or 0 for one in info.siblings or ()}
    wanted = list(filter_repo_objects(list(sizes), allow_patterns=list(BASE_FILES)))
    if not any(file.endswith(".safetensors") for file in wanted):
        return CheckResult.fail(
            "hub", f"{name} has no .safetensors weights; pickled ones can run code and are never loaded"
        )
    missing = [
        file for file in wanted if not isinstance(try_to_load_from_cache(name, file, revision=info.sha), str)
    ]
    begun = {one.name: one.bytes_here for one in large_files(name, info, BASE_FILES)}
    missing_bytes = sum(sizes[file] - begun.get(file, 0) for file in missing)
    place = existing_folder(Path(constants.HF_HUB_CACHE))
    free_bytes = shutil.disk_usage(place).free
    text = (
        f"{name}: {missing_bytes / GB:.2f} of {sum(sizes[file] for file in wanted) / GB:.2f} GB are to be "
        f"downloaded into {constants.HF_HUB_CACHE} ({len(wanted) - len(missing)} of "
        f"{len(wanted)} files are here)"
    )
    if free_bytes < missing_bytes:
        return CheckResult.fail(
            "hub", f"{text}, but only {free_bytes / GB:.2f} GB are free there; set HF_HOME to a larger disk"
        )
    return CheckResult.ok(
        "hub", f"{text}; the first start does it, and goes on where it was cut; or {_carry(name)}"
    )


def dataset_finding(name: str) -> CheckResult:
    """Whether a dataset that is streamed can be read."""
    from huggingface_hub import HfApi, constants

    label = f"hub dataset {name}"
    if constants.HF_HUB_OFFLINE:
        return CheckResult.fail(
            label, "HF_HUB_OFFLINE is set, and hf:// sources are streamed; give files of it as uri instead"
        )
    problem = _refusal(HfApi(endpoint=constants.ENDPOINT), name, "dataset")
    return CheckResult.ok(label, "can be read") if problem is None else CheckResult.fail(label, problem)


def _refusal(api: HfApi, name: str, kind: str) -> str | None:
    """Why this repository cannot be read, with the fix; None where it can."""
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    page = f"{api.endpoint}/{'datasets/' if kind == 'dataset' else ''}{name}"
    try:
        api.repo_info(name, repo_type=kind, timeout=TIMEOUT_S)
        api.auth_check(name, repo_type=kind)
    except GatedRepoError:
        return (
            f"{name} is gated and not granted to you: accept its licence at {page}, then `hf auth login` "
            "(or HF_TOKEN) with a token that may read gated repositories"
        )
    except RepositoryNotFoundError:
        return f"{page}: no such {kind}, or a private one; check the name, `hf auth login` if it is yours"
    except Exception as error:  # of the HTTP library or the hub's: no answer, or none that helps
        carry = f"; {_carry(name)}" if kind == "model" else ""
        return (
            f"{api.endpoint} does not answer ({_short(error)}); check network, proxy and HF_ENDPOINT{carry}"
        )
    return None


def _remote_config(api: HfApi, name: str) -> dict[str, Any]:
    """config.json, read and not kept.

    Raises:
        OSError: it cannot be had.
    """
    from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    url = hf_hub_url(name, "config.json", endpoint=api.endpoint)
    try:
        response = get_session().get(
            url, headers=build_hf_headers(), timeout=TIMEOUT_S, follow_redirects=True
        )
        hf_raise_for_status(response)
        config = response.json()
    except ValueError:
        raise OSError("config.json is no JSON") from None
    except Exception as error:
        raise OSError(_short(error)) from None
    if not isinstance(config, dict):
        raise OSError("config.json is no JSON object")
    return config


def _carry(name: str) -> str:
    """How to get a base onto a machine without a network."""
    folder = name.rpartition("/")[2]
    patterns = " ".join(f"'{one}'" for one in BASE_FILES[:4])
    return (
        f"elsewhere `hf download {name} --include {patterns} --local-dir {folder}`, carry the folder here "
        f"and give base=/path/to/{folder}"
    )


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
