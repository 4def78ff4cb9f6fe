"""Export a run: write a form, open it again with its own tool, compare, and only then show it.

Everything is written into a hidden folder next to `--out`, which is renamed last. Left out: the
forms (`offapi.export.adapter_form` and so on).
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import orjson

from offapi import __version__
from offapi.backend import default_backend
from offapi.errors import ConfigError
from offapi.export.accuracy_lost import AccuracyLost, Documents, measure_loss, read_documents
from offapi.export.check import (
    FormCheck,
    SourceAnswers,
    ask_source,
    compare,
    load_source,
    require_as_trained,
    require_passed,
)
from offapi.export.mlx_form import base_sentence
from offapi.export.model_card import card_text
from offapi.export.other_bits import OtherBits, measure_other_bits
from offapi.export.part import ExportedPart
from offapi.export.prompts import CHATS
from offapi.export.reopen import FormQuestions, reopen
from offapi.export.run_facts import describe
from offapi.export.source import ExportSource
from offapi.files import atomic
from offapi.progress import LOADING, Progress

WHOLE = ("f32", "f16", "bf16")  # of --quantize: these lose no accuracy worth measuring
FACTS = "export.json"
CARD = "README.md"


@dataclass(frozen=True, kw_only=True)
class ExportSettings:
    """What is exported, as which form, to where."""

    run: str
    to: str
    out: Path
    quantize: str | None = None
    data: Path | None = None  # documents with gold, for a quantised form; None: the run's `val`
    backend: str | None = None


@dataclass(frozen=True)
class Exported:
    """An exported folder, and what its check found of each part."""

    out: Path
    source: ExportSource
    to: str
    backend: str
    parts: Sequence[tuple[ExportedPart, FormCheck]]
    lost: Mapping[str, AccuracyLost] = field(default_factory=dict)  # by part
    other_bits: OtherBits | None = None  # where the run's base was in few bits

    @property
    def kept(self) -> list[ExportedPart]:
        """The parts that are in the folder."""
        return [part for part, _ in self.parts if not part.temporary]

    def as_dict(self) -> dict[str, Any]:
        """Return what export.json and --json show, without a path of this machine."""
        parts = []
        for part, check in self.parts:
            lost = self.lost.get(part.what)
            parts.append(
                {
                    "what": part.what,
                    "tool": part.tool,
                    "folder": None if part.temporary else part.folder,
                    "dtype": part.dtype,
                    "bits": part.bits,
                    "check": check.as_dict(),
                    "accuracy": lost.as_dict() if lost else None,
                }
            )
        return {
            "offapi": __version__,
            "to": self.to,
            "compared_on": self.backend,
            "parts": parts,
            "trained_in_bits": self.other_bits.as_dict() if self.other_bits else None,
            "base_in_bits": self.source.answering.quantize,
            **describe(self.source),
        }

    def lines(self) -> list[str]:
        """Return what was found, as sentences."""
        said = self.other_bits.lines() if self.other_bits else []
        if (bits := self.source.answering.quantize) is not None:
            said.append(base_sentence(bits, self.source.trained.backend))
        for part, check in self.parts:
            said.append(f"{part.tool} opened the {part.what}: {check.sentence()}")
            if lost := self.lost.get(part.what):
                said += lost.lines()
        return said


def export(settings: ExportSettings, progress: Progress) -> Exported:
    """Write the form, open it again, compare, and put it at `settings.out`.

    Raise ConfigError for what cannot be asked, ModelError or RunError for a source that cannot be
    used, and ExportError, with nothing left at `out`, for a form that differs from its source.
    """
    out = settings.out.absolute()
    if os.path.lexists(out):
        step = "Name a folder that does not exist yet, or remove it."
        raise ConfigError("--out exists already.", where=str(settings.out), next_step=step)
    as_trained = settings.to == "mlx" and settings.quantize is None
    source = ExportSource.of(settings.run, as_trained=as_trained)
    for doubt in source.answering.doubts(source.answering.task_file):
        progress.say(doubt)
    form = import_module(f"offapi.export.{settings.to}_form")
    size = form.bytes_on_disk(source, settings.quantize)
    few_bits = (settings.quantize or WHOLE[0]).lower() not in WHOLE
    asked = few_bits or (settings.data is not None and source.trained.bits is not None)
    documents = read_documents(source, settings.data) if asked else None
    progress.say(_needs(source, size))
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic.need_room(out, size)
    with staged(out) as folder:
        parts = form.write_form(source, folder, settings.quantize)
        backend = settings.backend or source.only_backend or default_backend()
        if source.answering.quantize is not None:
            backend = source.trained.backend or backend  # which alone packs as it did
        done = _compared(source, settings, folder, parts, documents, backend, progress)
        _write_facts(done, folder)
        _sync(folder)
    atomic.sync_path(out.parent)
    return done


def _compared(
    source: ExportSource,
    settings: ExportSettings,
    folder: Path,
    parts: Sequence[ExportedPart],
    documents: Documents | None,
    backend_name: str,
    progress: Progress,
) -> Exported:
    """Open each part again. Raise ExportError for the first one that differs."""
    answers, known = _source_side(source, documents, backend_name, progress)
    other_bits = measure_other_bits(source, answers, documents, known, progress)
    chats = [source.chat.prompt(turns) for turns in CHATS]
    checks, lost = [], {}
    for part in parts:
        progress.say(f"Opening the {part.what} with {part.tool} ...")
        asked = [FormQuestions.of(answers)]
        if documents is not None and part.bits is not None:
            asked.append(documents.questions(source))
        given = reopen(part, folder, source.base, asked)
        check = compare(
            answers,
            given[0],
            dtype=part.dtype,
            bits=part.bits,
            rounds=part.rounds,
            rendered=chats,
        )
        require_passed(check, part.what)
        checks.append((part, check))
        if part.temporary:
            shutil.rmtree(folder / part.folder)
        if documents is not None and part.bits is not None:
            lost[part.what] = measure_loss(documents, source, known, given[1].greedy)
    return Exported(
        settings.out, source, settings.to, backend_name, tuple(checks), lost, other_bits
    )


def _source_side(
    source: ExportSource, documents: Documents | None, backend_name: str, progress: Progress
) -> tuple[SourceAnswers, tuple[str, ...]]:
    """Return what the source computes for the fixed prompts, and its answers to the documents."""
    progress.say(LOADING)
    backend = load_source(source, backend_name)
    try:
        require_as_trained(backend, source)
        answers = ask_source(backend, source)
        known = documents.ask(backend, source, progress) if documents else ()
    finally:
        backend.close()
    return answers, known


def _write_facts(done: Exported, folder: Path) -> None:
    facts = done.as_dict()
    card = card_text(facts, done.kept)
    atomic.write_file(folder / CARD, card.encode())
    atomic.write_file(folder / FACTS, orjson.dumps(facts, option=orjson.OPT_INDENT_2))


def _needs(source: ExportSource, size: int) -> str:
    """Say what the export takes: the files, and the weights in float32, one model at a time."""
    if source.quantised:
        return f"This writes about {size / 1e9:.2g} GB."
    memory = 4 * source.parameters
    return (
        f"This writes about {size / 1e9:.2g} GB, and needs about {memory / 1e9:.2g} GB of memory to"
        " compare, beyond what the libraries and eight answers at a time take."
    )


@contextmanager
def staged(out: Path) -> Iterator[Path]:
    """Create a hidden folder to fill, renamed to `out` at the end; first clear killed exports'."""
    for stale in out.parent.glob(f"{atomic.TEMPORARY}{out.name}-*"):
        with suppress(OSError), _held(stale):
            shutil.rmtree(stale, ignore_errors=True)
    with atomic.new_folder(out) as folder, _held(folder):
        yield folder


@contextmanager
def _held(folder: Path) -> Iterator[None]:
    """Hold a folder. Raise BlockingIOError while another process does."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


def _sync(folder: Path) -> None:
    for path in sorted(folder.rglob("*"), reverse=True):
        atomic.sync_path(path)
    atomic.sync_path(folder)
