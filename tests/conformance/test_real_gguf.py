"""SmolLM2-135M in llama.cpp: a right file passes, and one that would write word salad does not."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import gguf_files
import pytest

from offapi.export.check import ask_source, load_source
from offapi.export.reopen import FormQuestions
from offapi.export.source import ExportSource
from offapi.models.store import Model

BUGS = {"right": None, "rows": "rows"}  # the tiny models of the unit tests have them all

# Not imported here: native code that may not share a process with other such libraries.
pytestmark = pytest.mark.skipif(find_spec("xllamacpp") is None, reason="xllamacpp is not installed")


def test_a_file_with_wrong_rows_does_not_pass(demo_model: Model, tmp_path: Path) -> None:
    source = ExportSource.of(demo_model.path)
    backend = load_source(source, "torch" if find_spec("torch") else "mlx")
    try:
        answers = ask_source(backend, source)
    finally:
        backend.close()
    files = {
        name: gguf_files.write(tmp_path / name, source, "q8_0", bug) for name, bug in BUGS.items()
    }
    told = gguf_files.open_all(files, dict.fromkeys(files, FormQuestions.of(answers)))
    checks = {name: gguf_files.compared(files[name], answers, told[name]) for name in told}
    assert checks["right"].passed, checks["right"].sentence()
    assert checks["right"].greedy_equal >= checks["right"].prompts - 1
    assert not checks["rows"].passed
    assert checks["rows"].mean_difference_nats > 5 * checks["right"].mean_difference_nats
