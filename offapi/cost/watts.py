"""Watts while something runs, where the machine tells.

NVIDIA's cards tell by nvidia-ml-py, Apple's chips by zeus-apple-silicon; both are optional and
imported only here. They count energy, so nothing is sampled. Left out: the rest of the machine
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
    """A running count of joules, and whose."""

    joules: Joules
    of: str


@dataclass(frozen=True)
class Power:
    """Mean power over a measured while."""

    watts: float
    of: str


def find_meter() -> Meter | None:
    """The meter this machine has; None where none is installed, or none works."""
    for find in (_apple,) if sys.platform == "darwin" else (_nvidia,):
        try:
            return find()
        except Exception:  # no library, no driver, a card too old: each says it in its own way
            continue
    return None


def measure_power(work: Callable[[], Any], by: Meter | None) -> tuple[Any, Power | None]:
    """What `work` returns, and the power it took."""
    if by is None:
        return work(), None
    before, started = by.joules(), time.perf_counter()
    done = work()
    joules, seconds = by.joules() - before, time.perf_counter() - started
    return done, Power(joules / seconds, by.of) if joules > 0 else None


def _nvidia() -> Meter:
    nvml = import_module("pynvml")
    nvml.nvmlInit()
    cards = [nvml.nvmlDeviceGetHandleByIndex(i) for i in range(nvml.nvmlDeviceGetCount())]

    def joules() -> float:
        return 0.001 * sum(
            int(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) for card in cards
        )  # from mJ

    joules()
    return Meter(joules, f"{plural(len(cards), 'NVIDIA card')} alone")


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
    return Meter(joules, "the chip alone")
