"""What `offapi demo --full` adds to a finished demo, on a tiny model: comparison, cost, report."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest
import tiny_llama

from offapi.cli import demo
from offapi.cli.output import Output
from offapi.data import documents
from offapi.demo import full
from offapi.demo import run as demo_run
from offapi.demo.task import task
from offapi.training.run import Run


def label(row: documents.Document) -> bytes:
    """Return a line as `offapi label` writes it."""
    told = {
        "id": row.id,
        "output": task.answer_text(row.gold or {}),
        "status": "ok",
        "seconds": 0.1,
    }
    usage = {"prompt_tokens": 1, "completion_tokens": 1}
    return (
        orjson.dumps({**told, "usage": usage, "teacher": "local:demo", "prompt_sha256": "x"})
        + b"\n"
    )


def test_full_compares_estimates_cost_and_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_llama.write_chat(tmp_path / "model")
    keys = full.KEYS.replace("labels = ", f'model = "{model}"\nlabels = ').replace(
        "epochs = 1.0", "epochs = 0.2"
    )
    monkeypatch.setattr(full, "KEYS", keys)
    run = Run.create(tmp_path / "runs", "demo", {})
    with run.lock():
        demo_run.write_documents(run, demo_run.Sizes(train=12, val=6, test=8))
        rows = documents.read(run.path / "train.jsonl")
        run.write("labels.jsonl", b"".join(map(label, rows)))
    told = demo.compare_recipes(run.path, "torch", Output(json=True))["compare"]
    assert {"base", "sft", "distill", "grpo"} <= set(told["rows"])
    folder = run.path / full.COMPARISON
    assert (
        orjson.loads((folder / "compare.json").read_bytes())["rows"].keys() == told["rows"].keys()
    )
    assert "verdict" in orjson.loads((folder / "cost.json").read_bytes())
    page = (folder / "report.html").read_text()
    assert all(road in page for road in ("sft", "distill", "grpo"))
    assert '<section id="cost">' in page
