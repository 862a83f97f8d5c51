"""The device a stage computes on, its name, and the strict mode."""

import os
import platform
from pathlib import Path

import torch

from pag.foundation.processes import count


def best_device() -> torch.device:
    """This process's GPU where there is one (alone, the first), otherwise the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def be_strict() -> None:
    """Compute with one thread and deterministic kernels alone: a bit depends on no count of threads and on no race.

    PyTorch raises RuntimeError where an operation has no such kernel.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # read when cuBLAS starts
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(1)


def hardware(device: torch.device) -> str:
    """The machine, in words, PyTorch's version, and how many processes share the work where there are several."""
    software = f", PyTorch {torch.__version__}" + (f", {count()} processes" if count() > 1 else "")
    if device.type == "cuda":
        return torch.cuda.get_device_name(device) + software
    threads = torch.get_num_threads()
    return f"{_cpu_model()}, {threads} thread{'' if threads == 1 else 's'}{software}"


def _cpu_model() -> str:
    cpuinfo = Path("/proc/cpuinfo")  # platform.processor() is empty on Linux
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
