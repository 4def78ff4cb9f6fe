"""Opening an exported part in a process of its own, which has nothing but the written files.

The questions go to its standard input, the answers come from its standard output, as JSON. Left
out: what is done with the answers (`offapi.export.check`).
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import msgspec
import numpy as np
import orjson

from offapi.errors import ExportError
from offapi.export.check import FormAnswers, SourceAnswers, Tokens
from offapi.export.part import ExportedPart, OpenedForm
from offapi.export.prompts import ANSWER_TOKENS, CHATS, Turns

Lists = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class FormQuestions:
    """What an opened part is asked: greedy answers, logprobs, and chats to render."""

    prompts: tuple[Tokens, ...]
    max_tokens: int
    stop_ids: Tokens
    sequences: tuple[Tokens, ...] = ()
    chats: tuple[Turns, ...] = ()

    @classmethod
    def of(cls, source: SourceAnswers) -> FormQuestions:
        """Return what the source answered."""
        return cls(
            prompts=source.prompts,
            max_tokens=ANSWER_TOKENS,
            stop_ids=source.stop_ids,
            sequences=source.sequences,
            chats=CHATS,
        )


@dataclass(frozen=True)
class _Answers:
    """The answers to `FormQuestions`, in their order."""

    greedy: tuple[Tokens, ...]
    logprobs: Lists
    rendered: tuple[Tokens, ...] | None


@dataclass(frozen=True)
class _Request:
    opener: str
    folder: str
    base: str
    asked: tuple[FormQuestions, ...]


def reopen(
    part: ExportedPart, folder: Path, base: Path, asked: Sequence[FormQuestions]
) -> list[FormAnswers]:
    """Open a part of the exported `folder` in a new process, and ask it.

    Raise ExportError where its tool cannot open it.
    """
    request = _Request(part.opener, str(folder / part.folder), str(base), tuple(asked))
    done = subprocess.run(
        [sys.executable, "-m", "offapi.export.reopen"],
        input=orjson.dumps(asdict(request)),
        capture_output=True,
        check=False,
        env={**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
    )
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        why = said[-1] if said else f"it ended with exit code {done.returncode}"
        raise ExportError(
            f"{part.tool} cannot open the {part.what}: {why}",
            next_step=(
                f"Nothing was written. If {part.tool} does not know this model, take another form"
                " (--to adapter); else check `offapi doctor`, and the memory that is free."
            ),
        )
    answers = msgspec.json.decode(done.stdout, type=tuple[_Answers, ...])
    return [_form_answers(each) for each in answers]


def answer(form: OpenedForm, asked: FormQuestions) -> _Answers:
    """Return what an opened form answers."""
    greedy = [form.greedy(each, asked.max_tokens, asked.stop_ids) for each in asked.prompts]
    logprobs = [tuple(map(float, form.logprobs(each))) for each in asked.sequences]
    rendered = [form.render(turns) for turns in asked.chats]
    known = [tokens for tokens in rendered if tokens is not None]
    whole = tuple(known) if known and len(known) == len(rendered) else None
    return _Answers(tuple(greedy), tuple(logprobs), whole)


def _form_answers(answers: _Answers) -> FormAnswers:
    rows = [np.array(row, np.float32) for row in answers.logprobs]
    return FormAnswers(answers.greedy, tuple(rows), answers.rendered)


def main() -> None:
    """Answer one request; what libraries print goes to stderr."""
    out = os.dup(1)
    os.dup2(2, 1)
    request = msgspec.json.decode(sys.stdin.buffer.read(), type=_Request)
    module, _, name = request.opener.partition(":")
    form = getattr(import_module(module), name)(Path(request.folder), Path(request.base))
    answers = [answer(form, asked) for asked in request.asked]
    with os.fdopen(out, "wb") as stream:
        stream.write(msgspec.json.encode(answers))


if __name__ == "__main__":
    main()
