"""What the machine is doing, measured: processes, memory, disk, and the GPU when there is one.

Used by `program` before each heartbeat. A thing that cannot be measured is absent from the report, never zero: a
machine without a visible GPU must not look like one that idles.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
from pathlib import Path
from typing import Annotated, Any

import msgspec
import psutil
import pynvml
from msgspec import Meta, Struct

from services.agent.settings import AgentSettings

nvml: Any = pynvml  # its functions have no usable types
MEGABYTE = 1024 * 1024
GPU_FILE_BYTES_MAX = 64 * 1024
PROCESSES_MAX = 10_000  # more are not walked
# A machine whose processes use less than this share of one core is not being worked on.
ACTIVE_CPU_PERCENT = 2.0


class Meter:
    """Measures one machine; remembers what is needed for rates."""

    def __init__(self, settings: AgentSettings, *, now_s: float, monotonic_s: float) -> None:
        self._settings = settings
        self._started_s = monotonic_s
        self._hostname = socket.gethostname()
        self._root = psutil.Process(os.getppid()) if settings.agent_scope == "parent" else None
        self._cpu_before_s: dict[int, float] = {}
        self._measured_s = monotonic_s
        self._last_activity_s = now_s
        self._gpus = _open_gpus()
        self._overhead = {os.getpid(), os.getppid()} if self._root else {os.getpid()}

    def measure(self, *, now_s: float, monotonic_s: float) -> dict[str, Any]:
        """The facts of this instant, under the names of both payload forms of the contract."""
        processes = self._processes()
        elapsed_s = max(monotonic_s - self._measured_s, 0.001)
        cpu_percent = self._cpu_percent(processes, elapsed_s)
        self._measured_s = monotonic_s
        gpus = self._gpu_metrics()
        users = _terminals(processes) if self._root else len({user.name for user in psutil.users()})
        if users or (cpu_percent or 0.0) >= ACTIVE_CPU_PERCENT or (gpus and gpus["utilization"] > 0):
            self._last_activity_s = now_s
        facts: dict[str, Any] = {
            "hostname": self._hostname,
            "uptime": int(monotonic_s - self._started_s),
            "process_count": len(processes),
            "active_users": users,
            "last_activity_s": self._last_activity_s,
        }
        if cpu_percent is not None:
            facts["cpu_percent"] = round(cpu_percent, 1)
        facts |= self._memory(processes)
        with contextlib.suppress(OSError):
            disk = shutil.disk_usage(self._settings.agent_workspace)
            facts |= {"disk_used_mb": disk.used // MEGABYTE, "disk_total_mb": disk.total // MEGABYTE}
        if gpus:
            facts |= {"gpu_metrics": gpus, "gpu_utilization": gpus["utilization"]}
        return facts

    def _processes(self) -> list[psutil.Process]:
        if self._root is None:
            return list(psutil.process_iter())[:PROCESSES_MAX]
        try:
            return [self._root, *self._root.children(recursive=True)][:PROCESSES_MAX]
        except psutil.NoSuchProcess:
            return []

    def _cpu_percent(self, processes: list[psutil.Process], elapsed_s: float) -> float | None:
        """Share of one core used by the customer's processes since the last measurement; None the first time."""
        now: dict[int, float] = {}
        for process in processes:
            if process.pid not in self._overhead:
                with contextlib.suppress(psutil.Error):
                    times = process.cpu_times()
                    now[process.pid] = times.user + times.system
        before, self._cpu_before_s = self._cpu_before_s, now
        if self._measured_s == self._started_s:
            return None
        used_s = sum(max(0.0, spent_s - before.get(pid, 0.0)) for pid, spent_s in now.items())
        return 100.0 * used_s / elapsed_s

    def _memory(self, processes: list[psutil.Process]) -> dict[str, int]:
        total = psutil.virtual_memory()
        if self._root is None:
            return {"memory_used_mb": total.used // MEGABYTE, "memory_total_mb": total.total // MEGABYTE}
        used = 0
        for process in processes:
            with contextlib.suppress(psutil.Error):
                memory = process.memory_info()
                used += memory.rss - getattr(memory, "shared", 0)
        return {"memory_used_mb": used // MEGABYTE, "memory_total_mb": total.total // MEGABYTE}

    def _gpu_metrics(self) -> dict[str, Any]:
        if self._gpus:
            read = [_read_gpu(handle) for handle in self._gpus]
        else:
            read = [_as_read(gpu) for gpu in _told_gpus(self._settings.agent_gpu_file)]
        utilizations = [gpu["utilization"] for gpu in read if "utilization" in gpu]
        if not utilizations:
            return {}
        metrics: dict[str, Any] = {
            "utilization": max(utilizations),
            "utilization_percent": max(utilizations),
            "gpu_count": len(read),
        }
        lists = {
            "gpu_names": "name",
            "gpu_utilizations": "utilization",
            "gpu_memory_used": "memory_used_mb",
            "gpu_memory_total": "memory_total_mb",
            "gpu_temperatures": "temperature",
        }
        for name, source in lists.items():
            if all(source in gpu for gpu in read):
                metrics[name] = [gpu[source] for gpu in read]
        for name, source in (("memory_used_mb", "gpu_memory_used"), ("memory_total_mb", "gpu_memory_total")):
            if source in metrics:
                metrics[name] = sum(metrics[source])
        if "gpu_temperatures" in metrics:
            metrics["temperature_celsius"] = max(metrics["gpu_temperatures"])
        if all("power_watts" in gpu for gpu in read):
            metrics["power_watts"] = round(sum(gpu["power_watts"] for gpu in read), 1)
        return metrics


def _terminals(processes: list[psutil.Process]) -> int:
    """How many terminals have somebody at them: login sessions of a machine without its own user database."""
    seen: set[str] = set()
    for process in processes:
        with contextlib.suppress(psutil.Error):
            terminal = process.terminal()
            if terminal:
                seen.add(terminal)
    return len(seen)


def _open_gpus() -> list[Any]:
    """Handles of the GPUs that NVML shows; empty where there is no driver. Asked once: drivers do not appear later."""
    try:
        nvml.nvmlInit()
        return [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


class _ToldGpu(Struct, frozen=True, omit_defaults=True):
    """One GPU as the machine's host tells it, under the names of `_read_gpu`."""

    utilization: Annotated[int, Meta(ge=0, le=100)]
    name: str | None = None


def _told_gpus(path: str) -> list[_ToldGpu]:
    """What the host says of the GPUs of a machine without a driver. Nothing is told: nothing is known."""
    if not path:
        return []
    try:
        with Path(path).open("rb") as told:
            return msgspec.json.decode(told.read(GPU_FILE_BYTES_MAX), type=list[_ToldGpu])
    except (OSError, msgspec.DecodeError):
        return []


def _as_read(gpu: _ToldGpu) -> dict[str, Any]:
    return {name: value for name, value in msgspec.structs.asdict(gpu).items() if value is not None}


def _read_gpu(handle: Any) -> dict[str, Any]:
    """What one GPU tells. Each reading may be unsupported by itself (power on some virtual GPUs)."""
    gpu: dict[str, Any] = {}
    with contextlib.suppress(pynvml.NVMLError):
        gpu["name"] = str(nvml.nvmlDeviceGetName(handle))
    with contextlib.suppress(pynvml.NVMLError):
        gpu["utilization"] = int(nvml.nvmlDeviceGetUtilizationRates(handle).gpu)
    with contextlib.suppress(pynvml.NVMLError):
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
        gpu["memory_used_mb"] = int(memory.used) // MEGABYTE
        gpu["memory_total_mb"] = int(memory.total) // MEGABYTE
    with contextlib.suppress(pynvml.NVMLError):
        gpu["temperature"] = int(nvml.nvmlDeviceGetTemperature(handle, nvml.NVML_TEMPERATURE_GPU))
    with contextlib.suppress(pynvml.NVMLError):
        gpu["power_watts"] = nvml.nvmlDeviceGetPowerUsage(handle) / 1000
    return gpu
