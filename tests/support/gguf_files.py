"""GGUF files written for tests, some wrong on purpose, and opened by llama.cpp in one process."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import tiny_gguf

from offapi.export import gguf_fields, gguf_file, gguf_form, gguf_vocabulary
from offapi.export.check import FormAnswers, FormCheck, SourceAnswers, compare
from offapi.export.part import ExportedPart
from offapi.export.prompts import CHATS
from offapi.export.reopen import FormQuestions
from offapi.export.source import ExportSource
from offapi.models import gguf_architecture

OPEN = Path(__file__).parent / "open_ggufs.py"


@dataclass(frozen=True)
class WrittenGguf:
    """A written file: its folder, its source, and what `gguf_form` says of it."""

    folder: Path
    source: ExportSource
    part: ExportedPart


def write(
    folder: Path, source: ExportSource, kind: str | None = None, bug: str | None = None
) -> WrittenGguf:
    """Write a file, with a planted bug if one is named."""
    folder.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        if bug:
            plant(patch, bug)
        *_, part = gguf_form.write_form(source, folder, kind)
    return WrittenGguf(folder, source, part)


def plant(patch: pytest.MonkeyPatch, bug: str) -> None:
    """Make the writer wrong in one way that llama.cpp accepts."""
    fields = gguf_fields.network_fields

    def other_base(*words: Any) -> Any:
        return fields(*words) | {"rope.freq_base": 10_000.0}

    match bug:
        case "rows":
            plain = replace(gguf_architecture.ARCHITECTURES["llama"], interleaved=False)
            patch.setitem(gguf_architecture.ARCHITECTURES, "llama", plain)
        case "base":
            patch.setattr(gguf_file, "network_fields", other_base)
        case "factors":
            patch.setattr(gguf_file, "rope_factors", lambda config: None)
        case "split":
            patch.setattr(gguf_vocabulary, "find_split", lambda *words: "smollm")
        case "other split":
            patch.setattr(gguf_vocabulary, "find_split", lambda *words: "gpt-2")
        case "end":
            patch.setattr(gguf_vocabulary, "end_ids", lambda chat, where: (0,))
        case "template":
            patch.setattr(
                gguf_vocabulary, "chat_template", lambda chat: tiny_gguf.TEMPLATE.replace("\n", " ")
            )


def open_all(
    files: Mapping[str, WrittenGguf], questions: Mapping[str, FormQuestions]
) -> dict[str, Any]:
    """Return by name what llama.cpp answers: an object, or the text of its error."""
    asked = [
        (str(file.folder), str(file.source.base), questions[name]) for name, file in files.items()
    ]
    done = subprocess.run(
        [sys.executable, str(OPEN)],
        input=msgspec.json.encode(asked),
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        check=True,
    )
    return dict(zip(files, msgspec.json.decode(done.stdout), strict=True))


def compared(file: WrittenGguf, answers: SourceAnswers, told: Any) -> FormCheck:
    """Compare what was told with the source's answers."""
    assert isinstance(told, dict), told
    rows = [np.array(row, np.float32) for row in told["logprobs"]]
    rendered = tuple(map(tuple, told["rendered"]))
    return compare(
        answers,
        FormAnswers(tuple(map(tuple, told["greedy"])), tuple(rows), rendered),
        dtype=file.part.dtype,
        bits=file.part.bits,
        rounds=file.part.rounds,
        rendered=[file.source.chat.prompt(turns) for turns in CHATS],
    )
