"""Power draw while something runs, where the machine can measure it.

NVIDIA's cards are read with nvidia-ml-py, Apple's chips with zeus-apple-silicon; both are optional
and imported only here. They count energy, so nothing is sampled. Left out: the rest of the machine
(board, fans, power supply), which neither sees, and other processors.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from offapi.text.display import plural

Joules = Callable[[], float]


@dataclass(frozen=True)
class Meter:
    """A running count of joules, and what it measures."""

    joules: Joules
    of: str


@dataclass(frozen=True)
class Power:
    """Mean power over a measured period."""

    watts: float
    of: str


def find_meter() -> Meter | None:
    """Return this machine's meter; None if none is installed, or none works."""
    for find in (_apple,) if sys.platform == "darwin" else (_nvidia,):
        try:
            return find()
        except Exception:  # no library, no driver, an old card: each raises its own error
            continue
    return None


def measure_power(work: Callable[[], Any], by: Meter | None) -> tuple[Any, Power | None]:
    """Return what `work` returns, and the power it took."""
    if by is None:
        return work(), None
    before, started = by.joules(), time.perf_counter()
    result = work()
    joules, seconds = by.joules() - before, time.perf_counter() - started
    return result, Power(joules / seconds, by.of) if joules > 0 else None


def _nvidia() -> Meter:
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    cards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    def joules() -> float:
        millijoules = (int(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) for card in cards)
        return 0.001 * sum(millijoules)

    joules()
    return Meter(joules, f"{plural(len(cards), 'NVIDIA card')} only")


def _apple() -> Meter:
    monitor = import_module("zeus_apple_silicon").AppleEnergyMonitor()

    def joules() -> float:
        counted = monitor.get_cumulative_energy()
        parts = (
            counted.cpu_total_mj,
            counted.gpu_mj,
            counted.gpu_sram_mj,
            counted.dram_mj,
            counted.ane_mj,
        )
        return 0.001 * sum(int(part or 0) for part in parts)  # from mJ

    joules()
    return Meter(joules, "the chip only")
