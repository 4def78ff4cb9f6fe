"""Facts about this machine and what is installed on it, for manifests and `offapi doctor`.

Left out: whatever names a person or a place, such as user, host and paths.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from offapi import __version__

LIBRARIES = (
    "numpy",
    "tokenizers",
    "transformers",
    "safetensors",
    "torch",
    "peft",
    "mlx",
    "mlx-lm",
)


def versions() -> dict[str, str]:
    """Return the version of each installed library that can change a number."""
    installed = {"offapi": __version__}
    for name in LIBRARIES:
        try:
            installed[name] = version(name)
        except PackageNotFoundError:
            continue
    return installed


def facts() -> dict[str, Any]:
    """Return Python, system, processor, CPUs this process may use, and memory in bytes."""
    import psutil

    return {
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
        "machine": platform.machine(),
        "cpus": cpus(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def cpus() -> int:
    """Return the number of CPUs this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
