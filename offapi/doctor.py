"""What works on this machine: backends, models and their parity, network guard, memory, disk.

Every problem has a remedy. Left out: fixing anything, and speed (see scripts/bench).
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Literal

from offapi import backend as backends
from offapi.chat.abilities import read_abilities
from offapi.errors import BackendError, OffapiError
from offapi.implementations import read_measured
from offapi.model_spec import ModelSpec
from offapi.models import parity, store
from offapi.models.safe_folder import check_config
from offapi.models.store import Model
from offapi.network import guard
from offapi.training import host

Status = Literal["ok", "absent", "warning", "failed"]

FREE_DISK = 2e9  # bytes: a converted small model, runs and their checkpoints
FREE_MEMORY = 2e9  # bytes: the demo in fp32
WHEEL = {"torch": "torch", "mlx": "mlx"}  # backend -> the distribution that computes


@dataclass(frozen=True)
class Finding:
    """The result of one check. `absent` is not a problem; `failed` fails the gate."""

    name: str
    status: Status
    detail: str
    remedy: str = ""


def examine() -> Iterator[Finding]:
    """Yield findings as they are made; loading a model takes a few seconds."""
    yield _guard()
    yield from _machine()
    usable = []
    for entry in sorted(entry_points(group="offapi.backends"), key=lambda entry: entry.name):
        finding = _backend(entry)
        usable += [entry.name] if finding.status in ("ok", "warning") else []
        yield finding
    if backends.default_backend() not in usable:
        default = backends.default_backend()
        remedy = f"In offapi's checkout: pip install '.[{default}]', or ./scripts/quickstart"
        yield Finding("default backend", "failed", f"{default} is not usable here.", remedy)
    yield from _models(usable)


def _guard() -> Finding:
    if guard.working():
        detail = (
            "on: Python's own sockets reach only this machine; C code and other programs are not"
            " seen"
        )
        return Finding("network guard", "ok", detail)
    return Finding(
        "network guard",
        "failed",
        "not working",
        "Reinstall offapi, and do not train on private data with it until then.",
    )


def _machine() -> Iterator[Finding]:
    import psutil

    memory = psutil.virtual_memory()
    detail = f"{memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB free, {host.cpus()} CPUs"
    tight = memory.available < FREE_MEMORY
    yield Finding(
        "memory", "warning" if tight else "ok", detail, "Close other programs." if tight else ""
    )
    home = store.home()
    existing = next(path for path in (home, *home.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    detail = f"{free / 1e9:.1f} GB free for {home}"
    if free < FREE_DISK:
        yield Finding(
            "disk",
            "warning",
            detail,
            "Free some space, or set OFFAPI_HOME to a folder on another disk.",
        )
    elif not _writable(existing):
        yield Finding(
            "disk",
            "failed",
            f"{existing} is not writable",
            "Set OFFAPI_HOME to a folder that you can write to.",
        )
    else:
        yield Finding("disk", "ok", detail)


def _writable(folder: Path) -> bool:
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _backend(entry: EntryPoint) -> Finding:
    """Check that the backend's library can be imported, and report what it computes with."""
    name = f"{entry.name} backend"
    install = f"In offapi's checkout: pip install '.[{entry.name}]'"
    try:
        release = version(WHEEL.get(entry.name, entry.dist.name if entry.dist else entry.name))
    except PackageNotFoundError:
        return Finding(name, "absent", "not installed", install)
    try:
        module = import_module(entry.module)
    except Exception as error:
        why = f"{entry.name} {release} is installed, but cannot be imported: {error}"
        return Finding(name, "failed", why, f"Reinstall {entry.name}. {install}")
    detail, slow = f"{entry.name} {release}", False
    if hasattr(module, "linux_cpu") and sys.platform == "linux":
        report = module.linux_cpu.blas.report()
        detail += f", BLAS {report.path or 'of its package'} at {report.gflops:.0f} GFLOP/s"
        slow = report.slow
    remedy = "Also install torch, whose BLAS is used, or libopenblas0-pthread." if slow else ""
    return Finding(name, "warning" if slow else "ok", detail, remedy)


def _models(usable: list[str]) -> Iterator[Finding]:
    models = store.listing()
    if not models:
        yield Finding("models", "warning", f"none in {store.store()}", "offapi models add demo")
    for model in models:
        try:
            store.verify(model.name)
        except OffapiError as error:
            yield Finding(f"model {model.name}", "failed", error.what, error.next_step)
            continue
        cannot = [name for name, why in read_abilities(model.path).items() if why]
        unlearned = f"; its template cannot be trained on {', '.join(cannot)}" if cannot else ""
        detail = f"{model.size / 1e6:.0f} MB, no file has changed{unlearned}"
        yield Finding(f"model {model.name}", "ok", detail)
        for name in usable:
            yield _parity(model, name)


def _parity(model: Model, name: str) -> Finding:
    """Check that backend `name` computes what was recorded when the model was added."""
    title = f"{model.name} on {name}"
    try:
        measured = read_measured(model.path).get(name)
        if measured is not None and not measured.implementation:
            return Finding(title, "absent", f"it does not compute this model: {measured.why}")
        record = parity.read_record(model.path)
        if record is None:
            return Finding(
                title, "warning", "no record to compare with", f"offapi models add {model.path}"
            )
        if reason := parity.too_large_for(model.path, check_config(model.path), name):
            return Finding(title, "absent", f"not compared: {reason}")
        loaded = backends.load(name, ModelSpec(model.path))
        try:
            difference = parity.largest_difference(loaded, record)
            memory, implementation = loaded.memory(), loaded.implementation
        finally:
            loaded.close()
    except BackendError as error:
        return Finding(title, "warning", error.what, error.next_step)
    except OffapiError as error:
        return Finding(title, "failed", error.what, error.next_step)
    slower = " (slower)" if implementation == "library" else ""
    detail = (
        f"{implementation}{slower}, differs from the record by {difference:.1g} nats on"
        f" {loaded.device}, which has {memory.total / 1e9:.0f} GB"
    )
    if difference <= parity.TOLERANCE:
        return Finding(title, "ok", detail)
    remedy = (
        "Do not train it here. Run `offapi models verify`: if no file has changed, report this as"
        " a bug."
    )
    return Finding(title, "failed", f"{detail}; at most {parity.TOLERANCE:g} is allowed", remedy)
