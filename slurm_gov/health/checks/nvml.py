"""Reading the GPUs through NVML, the library under nvidia-smi. No judgement here: see the gpu_*.py beside it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU as NVML tells it. None: this GPU or this driver does not tell.

    ``power`` and ``power_limit`` in watts, temperatures in degrees Celsius, ``reasons`` the bits of NVML's clocks
    event reasons, ``links_*`` numbers of NVLinks, ``recovery`` NVML's recovery action (0: none).
    """

    index: int
    uuid: str | None = None
    bus_id: str | None = None
    lost: str | None = None  # why it cannot be asked at all
    uncorrected: int | None = None  # ECC errors since the driver was loaded
    remap_pending: bool | None = None
    remap_failed: bool | None = None
    retire_pending: bool | None = None  # before Ampere: pages, not rows
    temperature: int | None = None
    slowdown_temperature: int | None = None
    reasons: int | None = None
    links_active: int | None = None
    links_down: int | None = None
    pcie_width: int | None = None
    pcie_width_max: int | None = None
    power: float | None = None
    power_limit: float | None = None
    recovery: int | None = None


@dataclass(frozen=True, slots=True)
class Gpus:
    """All GPUs, or why there are none to be seen. ``problem``: ``library``, ``driver``, ``mismatch`` or ``error``."""

    gpus: tuple[Gpu, ...] = ()
    problem: str | None = None
    message: str = ""


def read_gpus() -> Gpus:
    """Ask NVML; never raises for what a driver or its absence does."""
    try:
        import pynvml
    except ImportError:
        return Gpus(problem="library", message="the Python package nvidia-ml-py is not installed")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        problems = {
            pynvml.NVML_ERROR_LIBRARY_NOT_FOUND: ("library", "libnvidia-ml.so.1 is not there: no NVIDIA driver"),
            pynvml.NVML_ERROR_DRIVER_NOT_LOADED: ("driver", "the NVIDIA driver is not loaded"),
            pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH: (
                "mismatch",
                "library and kernel driver are of different versions: a driver was upgraded without a reboot",
            ),
        }
        problem, text = problems.get(error.value, ("error", f"NVML does not start: {error}"))
        return Gpus(problem=problem, message=text)
    try:
        return Gpus(tuple(_gpu(pynvml, index) for index in range(pynvml.nvmlDeviceGetCount())))
    except pynvml.NVMLError as error:
        return Gpus(problem="error", message=f"NVML does not count GPUs: {error}")
    finally:
        pynvml.nvmlShutdown()


def _gpu(nvml: Any, index: int) -> Gpu:
    try:
        handle = nvml.nvmlDeviceGetHandleByIndex(index)
    except nvml.NVMLError as error:
        return Gpu(index, lost=str(error))
    gone: list[str] = []

    def ask(function: Callable[..., T], *arguments: Any) -> T | None:
        try:
            return function(handle, *arguments)
        except nvml.NVMLError as error:
            if error.value in (nvml.NVML_ERROR_GPU_IS_LOST, nvml.NVML_ERROR_RESET_REQUIRED):
                gone.append(str(error))
            return None  # not supported here, most likely

    pci = ask(nvml.nvmlDeviceGetPciInfo)
    remapped = ask(nvml.nvmlDeviceGetRemappedRows)  # corrected, uncorrected, pending, failure
    retire = ask(nvml.nvmlDeviceGetRetiredPagesPendingStatus)
    power, limit = ask(nvml.nvmlDeviceGetPowerUsage), ask(nvml.nvmlDeviceGetEnforcedPowerLimit)
    links = [ask(nvml.nvmlDeviceGetNvLinkState, link) for link in range(nvml.NVML_NVLINK_MAX_LINKS)]
    known = [link for link in links if link is not None]
    return Gpu(
        index,
        uuid=ask(nvml.nvmlDeviceGetUUID),
        bus_id=bus_id(pci.busId) if pci else None,
        uncorrected=ask(
            nvml.nvmlDeviceGetTotalEccErrors, nvml.NVML_MEMORY_ERROR_TYPE_UNCORRECTED, nvml.NVML_VOLATILE_ECC
        ),
        remap_pending=bool(remapped[2]) if remapped else None,
        remap_failed=bool(remapped[3]) if remapped else None,
        retire_pending=bool(retire) if retire is not None else None,
        temperature=ask(nvml.nvmlDeviceGetTemperature, nvml.NVML_TEMPERATURE_GPU),
        slowdown_temperature=ask(nvml.nvmlDeviceGetTemperatureThreshold, nvml.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
        reasons=ask(nvml.nvmlDeviceGetCurrentClocksThrottleReasons),  # the name that old drivers know, too
        links_active=sum(known) if known else None,
        links_down=known.count(0) if known else None,
        pcie_width=ask(nvml.nvmlDeviceGetCurrPcieLinkWidth),
        pcie_width_max=ask(nvml.nvmlDeviceGetMaxPcieLinkWidth),
        power=power / 1000 if power is not None else None,
        power_limit=limit / 1000 if limit is not None else None,
        recovery=_field(nvml, handle, nvml.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION),
        lost=gone[0] if gone else None,
    )


def _field(nvml: Any, handle: Any, field: int) -> int | None:
    try:
        value = nvml.nvmlDeviceGetFieldValues(handle, [field])[0]
    except nvml.NVMLError:
        return None
    return int(value.value.uiVal) if value.nvmlReturn == nvml.NVML_SUCCESS else None


def bus_id(text: str | bytes) -> str:
    """A PCI address in the kernel's form, ``0000:65:00.0``; NVML writes the domain with eight digits."""
    plain = text.decode() if isinstance(text, bytes) else text
    domain, _, rest = plain.lower().partition(":")
    return f"{int(domain, 16):04x}:{rest}"
