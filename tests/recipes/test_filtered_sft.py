"""Graded traces against as many random ones, on both backends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import recipe_folder

import offapi
from offapi.checks import is_json
from offapi.data.traces import Trace
from offapi.recipes.filtered_sft import with_answer


def lay_out(folder: Path, **keys: Any) -> Path:
    """The workshop's documents as recorded answers, four of sixteen wrong."""
    return recipe_folder.lay_out(folder, "filtered_sft", count=16, wrong=4, **keys)


def recipe(folder: Path, **keys: Any) -> Path:
    path = lay_out(folder, **keys)
    path.write_text(path.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    return path


def test_the_best_traces_are_compared_with_random_ones(tmp_path: Path, backend_name: str) -> None:
    path = recipe(tmp_path, epochs=1.0)
    done = recipe_folder.offapi("train", str(path), "--backend", backend_name, "--json")
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "filtered-sft"
    assert (run / "adapter" / "adapter_model.safetensors").is_file()
    assert (run / "control" / "adapter" / "adapter_model.safetensors").is_file()
    graded, control = recipe_folder.metrics(run), recipe_folder.metrics(run / "control")
    assert len(graded) == len(control) > 0
    assert [row["loss"] for row in graded] != [row["loss"] for row in control]
    assert orjson.loads((run / "comparison.json").read_bytes())["n"] == 4
    grading = orjson.loads((run / "grading.json").read_bytes())
    assert (grading["rows"], grading["kept"]) == (16, 12)


def test_documents_that_are_scored_are_not_learned(tmp_path: Path) -> None:
    path = recipe(tmp_path, epochs=1.0, batch_size=1, control=False)
    recipe_folder.write_jsonl(tmp_path / "val.jsonl", recipe_folder.rows(16)[14:])
    done = recipe_folder.offapi("train", str(path), "--backend", "torch")
    assert done.returncode == 0, done.stderr
    assert len(recipe_folder.metrics(tmp_path / "runs" / "filtered-sft")) == 10


def test_wrong_answers_are_not_among_the_kept(tmp_path: Path, backend_name: str) -> None:
    path = recipe(tmp_path, epochs=1.0, batch_size=1, control=False)
    done = recipe_folder.offapi("train", str(path), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    assert len(recipe_folder.metrics(tmp_path / "runs" / "filtered-sft")) == 12


def test_keeping_by_group_needs_traces_with_groups(tmp_path: Path) -> None:
    done = recipe_folder.offapi("train", str(recipe(tmp_path)), "--set", "keep={best = 1}")
    assert done.returncode == 1
    assert "no row has a group, so best = 1 would drop none." in done.stderr
    assert "train.jsonl, field 'group'" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_wrapped_answers_are_learned_as_bare_ones(tmp_path: Path) -> None:
    adapters = []
    for form in ("plain", "fence", "call"):
        folder = tmp_path / form
        path = recipe(folder, epochs=1.0, control=False)
        rows = recipe_folder.rows(8)
        recipe_folder.write_jsonl(folder / "train.jsonl", [trace(row, form) for row in rows])
        done = recipe_folder.offapi("train", str(path))
        assert done.returncode == 0, done.stderr
        adapter = folder / "runs/filtered-sft/adapter/adapter_model.safetensors"
        adapters.append(adapter.read_bytes())
    assert adapters[0] == adapters[1] == adapters[2]


def trace(row: dict[str, Any], form: str) -> dict[str, Any]:
    """Return a document's recorded label as a trace."""
    answer = orjson.dumps(row["recorded_label"]).decode()
    text = f"```json\n{answer}\n```" if form == "fence" else answer
    last: dict[str, Any] = {"role": "assistant", "content": text}
    if form == "call":
        function = {"name": "Shop", "arguments": answer}
        last = {**last, "content": None, "tool_calls": [{"type": "function", "function": function}]}
    return {"id": row["id"], "messages": [{"role": "user", "content": row["document"]}, last]}


def test_a_chat_learned_as_it_is_loses_its_fence_only() -> None:
    task = offapi.Task(
        name="letters",
        instructions="Name the shop.",
        schema={"type": "object", "properties": {"shop": {"type": "string"}}},
        checks={"json": (is_json, 1.0)},
        match={"shop": "text"},
    )
    question, thought = {"role": "user", "content": "from Ash"}, "<think>Ash.</think>\n"
    answer = {"role": "assistant", "content": thought + '```json\n{"shop": "Ash"}\n```'}
    row = Trace("a", (question, answer))
    learned = with_answer(task, row, task.grade_trace(row))
    assert learned == (question, {"role": "assistant", "content": thought + '{"shop":"Ash"}'})
    words = Trace("b", (question, {"role": "assistant", "content": "It is Ash."}))
    assert with_answer(task, words, task.grade_trace(words)) == words.messages
