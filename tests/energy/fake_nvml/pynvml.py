"""NVIDIA's management library (nvidia-ml-py), with GPUs whose power a JSON file states.

The energy counter is watts x monotonic seconds, in millijoules, so that a test can integrate independently.
Control file: {"watts": [..], "no_counter": bool, "failing": [index, ..], "no_driver": bool}, of power limits:
{"limits": [..] in watts, "history": every state of them that was set, "refuse": bool}, and of the watch, each
with a default: {"enforced": [..] in watts, "clocks": [..] in MHz, "reasons": [bit mask, ..], "temperatures":
[..], "xids": [[index, Xid], ..] in the order they happen, "deny": {function: name of its NVMLError}}.
Names and parameters are those of the real module (tests/energy/test_fake_nvml.py compares them).
"""

import json
import os
import time
from pathlib import Path
from types import SimpleNamespace

NVML_TEMPERATURE_GPU = 0
NVML_CLOCK_SM = 1
nvmlEventTypeXidCriticalError = 0x8
nvmlClocksEventReasonSwPowerCap = 0x4
nvmlClocksEventReasonSwThermalSlowdown = 0x20
LEAST_W, MOST_W = 100, 400


class NVMLError(Exception):
    pass


class NVMLError_NotSupported(NVMLError):
    pass


class NVMLError_NoPermission(NVMLError):
    pass


class NVMLError_LibraryNotFound(NVMLError):
    pass


class NVMLError_FunctionNotFound(NVMLError):
    pass


class NVMLError_GpuIsLost(NVMLError):
    pass


class NVMLError_Timeout(NVMLError):
    pass


def _control():
    return json.loads(Path(os.environ["FAKE_NVML_CONTROL"]).read_text())


def _allowed(function):
    """What the control file says, unless it denies this function."""
    control = _control()
    if kind := control.get("deny", {}).get(function):
        raise globals()[kind](MESSAGES[kind])
    return control


MESSAGES = {
    "NVMLError_NoPermission": "Insufficient Permissions",
    "NVMLError_NotSupported": "Not Supported",
    "NVMLError_FunctionNotFound": "Function Not Found",
    "NVMLError_GpuIsLost": "GPU is lost",
}


def _of(control, key, handle, default):
    return control[key][handle] if key in control else default


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


def nvmlDeviceSetPowerManagementLimit(handle, limit):
    control = _control()
    if control.get("refuse"):
        raise NVMLError_NoPermission("Insufficient Permissions")
    control["limits"][handle] = limit / 1000
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
    return _of(_allowed("nvmlDeviceGetTemperature"), "temperatures", handle, 60)


def nvmlDeviceGetEnforcedPowerLimit(handle):
    return int(_of(_allowed("nvmlDeviceGetEnforcedPowerLimit"), "enforced", handle, 350) * 1000)


def nvmlDeviceGetPowerManagementDefaultLimit(handle):
    _allowed("nvmlDeviceGetPowerManagementDefaultLimit")
    return 350_000


def nvmlDeviceGetClockInfo(handle, type):
    return _of(_allowed("nvmlDeviceGetClockInfo"), "clocks", handle, 1695)


def nvmlDeviceGetMaxClockInfo(handle, type):
    _allowed("nvmlDeviceGetMaxClockInfo")
    return 2100


def nvmlDeviceGetCurrentClocksEventReasons(handle):
    return _of(_allowed("nvmlDeviceGetCurrentClocksEventReasons"), "reasons", handle, 0)


def nvmlDeviceGetCurrentClocksThrottleReasons(handle):
    return _of(_allowed("nvmlDeviceGetCurrentClocksThrottleReasons"), "reasons", handle, 0)


def nvmlEventSetCreate():
    _allowed("nvmlEventSetCreate")
    return SimpleNamespace(registered=set(), taken=0)


def nvmlDeviceRegisterEvents(handle, eventTypes, eventSet):
    _allowed("nvmlDeviceRegisterEvents")
    eventSet.registered.add(handle)


def nvmlEventSetWait_v2(eventSet, timeoutms):
    if timeoutms:
        raise AssertionError("the meter must not wait for an Xid")
    events = _allowed("nvmlEventSetWait_v2").get("xids", [])
    while eventSet.taken < len(events):
        handle, xid = events[eventSet.taken]
        eventSet.taken += 1
        if handle in eventSet.registered:
            return SimpleNamespace(device=handle, eventType=nvmlEventTypeXidCriticalError, eventData=xid)
    raise NVMLError_Timeout("Timeout")


def nvmlDeviceGetUtilizationRates(handle):
    return SimpleNamespace(gpu=99)


def nvmlDeviceGetComputeMode(handle):
    return 0


def nvmlDeviceGetComputeRunningProcesses(handle):
    return []


def nvmlDeviceGetGraphicsRunningProcesses(handle):
    return []
