"""NVIDIA's management library (nvidia-ml-py), with GPUs whose power a JSON file states.

The energy counter is watts x monotonic seconds, in millijoules, so that a test can integrate independently.
Control file: {"watts": [..], "no_counter": bool, "failing": [index, ..], "no_driver": bool}, and of
power limits: {"limits": [..] in watts, "history": every state of them that was set, "refuse": bool}.
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0
LEAST_W, MOST_W = 100, 400


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


def _control():
    return json.loads(Path(os.environ["FAKE_NVML_CONTROL"]).read_text())


def nvmlInit():
    if _control().get("no_driver"):
        raise NVMLError_LibraryNotFound("NVML Shared Library Not Found")


def nvmlShutdown():
    pass


def nvmlDeviceGetCount():
    return len(_control()["watts"])


def nvmlDeviceGetHandleByIndex(index):
    return index


def nvmlDeviceGetTotalEnergyConsumption(handle):
    control = _control()
    if handle in control.get("failing", []):
        raise RuntimeError("GPU is lost")
    if control.get("no_counter"):
        raise NVMLError_NotSupported("Not Supported")
    return int(control["watts"][handle] * time.monotonic() * 1000)


def nvmlDeviceGetPowerUsage(handle):
    return int(_control()["watts"][handle] * 1000)


def nvmlDeviceGetPowerManagementLimit(handle):
    control = _control()
    if "limits" not in control:
        raise NVMLError_NotSupported("Not Supported")
    return int(control["limits"][handle] * 1000)


def nvmlDeviceGetPowerManagementLimitConstraints(handle):
    return [LEAST_W * 1000, MOST_W * 1000]


def nvmlDeviceSetPowerManagementLimit(handle, milliwatts):
    control = _control()
    if control.get("refuse"):
        raise NVMLError_NoPermission("Insufficient Permissions")
    control["limits"][handle] = milliwatts / 1000
    control.setdefault("history", []).append(list(control["limits"]))
    path = Path(os.environ["FAKE_NVML_CONTROL"])
    new = path.with_suffix(".set")
    new.write_text(json.dumps(control))
    new.replace(path)


def nvmlDeviceGetName(handle):
    return "NVIDIA GeForce RTX 3090"


def nvmlDeviceGetUUID(handle):
    return f"GPU-0000{handle}"


def nvmlDeviceGetMemoryInfo(handle):
    return SimpleNamespace(total=24 << 30, free=1 << 30, used=23 << 30)


def nvmlDeviceGetTemperature(handle, sensor):
    return 60


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return 350_000


def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=99)


def nvmlDeviceGetComputeMode(handle):
    return 0


def nvmlDeviceGetComputeRunningProcesses(handle):
    return []


def nvmlDeviceGetGraphicsRunningProcesses(handle):
    return []
