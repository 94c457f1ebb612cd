"""A failed exchange between GPUs (NCCL), as one line: what NCCL said, and what to set, in order of effect."""

from __future__ import annotations

import os
import re

from persianmind.common.errors import CollectiveError

# Part of the text -> what it is and what to do; the first that matches counts. Texts: torch's NCCLUtils.cpp
# and NCCL's own "Last error".
_CASES = (
    (
        r"Duplicate GPU detected",
        "two ranks use one GPU: start one rank per GPU (deepspeed --num_gpus, CUDA_VISIBLE_DEVICES)",
    ),
    (
        r"No space left on device|shared memory segment|/dev/shm",
        "the machine's shared memory is full: in a container give more (docker run --shm-size=8g), or remove "
        "what killed programs left in /dev/shm",
    ),
    (
        r"ncclRemoteError|remote process exit|Connection (?:reset|closed|refused)|Broken pipe|socketProgress",
        "another rank ended first, and its own line says why; where none did, the network between the "
        "machines broke",
    ),
    (
        r"[Tt]imed? ?out|timeout",
        "a rank did not answer in time: look for the line of one that hangs, and raise train.hang_timeout_s "
        "where a step is truly so slow",
    ),
    (
        r"peer access|P2P|cudaIpc|invalid device (?:ordinal|context)|unhandled cuda error",
        "the GPUs cannot exchange data directly",
    ),
    (r"Bootstrap|socket|interface|connect|ncclSystemError", "the ranks do not reach each other"),
)
_UNKNOWN = "the exchange between GPUs failed"
# In the order to try them.
_SETTINGS = ("NCCL_P2P_DISABLE=1", "NCCL_IB_DISABLE=1", "NCCL_SOCKET_IFNAME=<interface between the machines>")
_SETTLED = 4  # no setting of NCCL helps in the first cases
MAX_QUOTE = 160


def is_nccl_error(error: BaseException) -> bool:
    """Whether this is NCCL's; torch is not imported."""
    named = any(kind.__name__ == "DistBackendError" for kind in type(error).__mro__)
    return named or re.search(r"\bNCCL|nccl[A-Z]", str(error)) is not None


def nccl_error(error: BaseException) -> CollectiveError:
    """The one line."""
    text = str(error)
    index = next((i for i, (pattern, _) in enumerate(_CASES) if re.search(pattern, text)), len(_CASES))
    meaning = _CASES[index][1] if index < len(_CASES) else _UNKNOWN
    if index >= _SETTLED:
        names = [setting for setting in _SETTINGS if setting.split("=")[0] not in os.environ]
        meaning += f"; try, in this order: {', '.join([*names, 'NCCL_DEBUG=INFO to see more'])}"
    return CollectiveError(f"NCCL: {_quote(text)}: {meaning}")


def _quote(text: str) -> str:
    """NCCL's own last error where there is one, else its kind; without torch's stack frames."""
    text = text.split("\nException raised from")[0]
    kind = re.search(r"\.[ch]pp:\d+, ([^,(\n]+)", text)
    last = re.search(r"Last error:\s*(\S[^\n]*)", text)
    parts = [kind[1].strip() if kind else "", last[1].strip() if last else ""]
    version = re.search(r"NCCL version ([\w.+]+)", text)
    quoted = ", ".join(part for part in parts if part) or " ".join(text.split())
    return quoted[:MAX_QUOTE] + (f" (version {version[1]})" if version else "")
