"""SmolLM2-135M in llama.cpp: a right file passes, and one that would write word salad does not."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import gguf_files
import pytest

from offapi.export.check import SourceAnswers, ask_source, load_source
from offapi.export.reopen import FormQuestions
from offapi.export.source import ExportSource
from offapi.models.store import Model

BUGS = {"right": None, "rows": "rows"}  # the tiny models of the unit tests have them all

# Not imported here: native code that may not share a process with other such libraries.
pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


def shorter(answers: SourceAnswers) -> SourceAnswers:
    """Return what is asked of so large a model: llama.cpp takes a request for each logprob."""
    return replace(
        answers,
        prompts=answers.prompts[-2:],
        greedy=answers.greedy[-2:],
        margins=answers.margins[-2:],
        sequences=answers.sequences[-3:],
        logprobs=answers.logprobs[-3:],
    )


def test_a_file_with_wrong_rows_does_not_pass(demo_model: Model, tmp_path: Path) -> None:
    source = ExportSource.of(demo_model.path)
    backend = load_source(source, "torch" if find_spec("torch") else "mlx")
    try:
        answers = shorter(ask_source(backend, source))
    finally:
        backend.close()
    files = {name: gguf_files.write(tmp_path / name, source, bug=bug) for name, bug in BUGS.items()}
    told = gguf_files.open_all(files, dict.fromkeys(files, FormQuestions.of(answers)))
    checks = {name: gguf_files.compared(files[name], answers, told[name]) for name in told}
    assert checks["right"].passed, checks["right"].sentence()
    assert checks["right"].greedy_equal >= checks["right"].prompts - 1
    assert not checks["rows"].passed
    assert checks["rows"].mean_difference_nats > 5 * checks["right"].mean_difference_nats
