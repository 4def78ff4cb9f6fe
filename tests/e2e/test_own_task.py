"""From one's own rows to a measured model in three commands: init --from, train, eval."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import own_rows
import pytest
import tiny_llama
from recipe_folder import apart, offapi, told, write_jsonl

from offapi.data import rows
from offapi.data.traces import Trace
from offapi.models.store import Model
from offapi.task import load_task

STEPS = ("--set", "epochs=0.1", "--set", "warmup_steps=0")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny_llama.write_chat(tmp_path_factory.mktemp("models") / "tiny"))


def init(folder: Path, path: Path, *more: str) -> dict[str, Any]:
    done = offapi("init", "my-task", "--from", path.name, *more, "--json", cwd=folder)
    return told(done)


def walk(folder: Path, result: dict[str, Any], model: str) -> dict[str, Any]:
    """Run the two commands that init names, with a small model and few steps."""
    train, evaluate = (command.split()[1:] for command in result["commands"][1:])
    done = offapi(*train, *STEPS, "--set", f"model={model}", cwd=folder)
    assert done.returncode == 0, done.stderr
    return told(offapi(*evaluate, "--model", model, "--limit", "2", "--json", cwd=folder))


def formatted(path: Path) -> bool:
    ruff = Path(sys.executable).with_name("ruff")
    line = [str(ruff), "format", "--isolated", "--check", str(path)]
    return subprocess.run(line, capture_output=True, check=False).returncode == 0


def test_tickets_from_openais_fine_tuning(tmp_path: Path, tiny: str) -> None:
    result = init(tmp_path, own_rows.tickets(tmp_path / "export.jsonl"))
    task = load_task(tmp_path / "my-task/task.py")
    assert task.instructions == "Sort the ticket."
    assert task.match == {"category": "choice", "urgent": "boolean", "order": "exact"}
    assert task.schema is not None
    properties = task.schema["properties"]
    assert properties["category"]["enum"] == ["billing", "shipping", "technical"]
    assert properties["order"] == {"type": ["string", "null"]}
    assert result["left_out"] == {
        "export-5": "the answer is not one JSON object",
        "export-41": "the answer is not one JSON object",
        "export-51": "'urgent' is of the type string",
    }
    left_out = (tmp_path / "my-task/left-out.jsonl").read_text().splitlines()
    assert len(left_out) == 3
    assert any("code fence" in fact for fact in result["inferred"])
    assert result["rows"] == {"read": 60, "train": 40, "val": 6, "test": 11, "left_out": 3}
    assert formatted(tmp_path / "my-task/task.py")
    report = walk(tmp_path, result, tiny)
    assert set(report["fields"]) == {"category", "urgent", "order"}
    assert (tmp_path / "runs/filtered-sft/control/adapter").is_dir()


def test_contract_terms_with_nested_lists(tmp_path: Path, tiny: str) -> None:
    result = init(tmp_path, own_rows.contracts(tmp_path / "traces.jsonl"))
    task = load_task(tmp_path / "my-task/task.py")
    assert task.match == {
        "parties": "list",
        "term.start": "date",
        "term.months": "number",
        "obligations": "list",
        "law": "choice",
    }
    assert task.schema is not None
    party = task.schema["properties"]["parties"]["items"]
    assert party["properties"]["role"] == {"type": "string", "enum": ["buyer", "seller"]}
    assert len(task.examples) == 4
    assert formatted(tmp_path / "my-task/task.py")
    parts = [rows.read_rows(tmp_path / f"my-task/{name}.jsonl") for name in ("val", "test")]
    kept = {row.id for part in parts for row in part}
    groups = {int(id[1:]) // 2 for id in kept}
    learned = {int(row.id[1:]) // 2 for row in rows.read_rows(tmp_path / "my-task/traces.jsonl")}
    assert groups.isdisjoint(learned), "rows of one group are not split"
    report = walk(tmp_path, result, tiny)
    assert "term.start" in report["fields"]


def test_replies_in_free_text(tmp_path: Path, tiny: str) -> None:
    result = init(tmp_path, own_rows.replies(tmp_path / "mails.jsonl"))
    task = load_task(tmp_path / "my-task/task.py")
    assert task.free_text
    assert list(task.checks) == ["length", "no loop", "clean", "closing"]
    text = "Dear customer,\n\nwe are sorry. It comes soon.\n\nKind regards,\nThe shop"
    assert task.grade("Parcel 5 is late", text).score == 1.0
    assert task.grade("Parcel 5 is late", text.replace("Kind", "Best")).score < 1.0
    assert formatted(tmp_path / "my-task/task.py")
    report = walk(tmp_path, result, tiny)
    assert list(report["fields"]) == ["length", "no loop", "clean", "closing"]


def test_invoices_of_a_table_with_the_real_model(tmp_path: Path, demo_model: Model) -> None:
    result = init(tmp_path, own_rows.invoices(tmp_path / "invoices.csv"))
    task = load_task(tmp_path / "my-task/task.py")
    assert task.match == {
        "vendor": "text",
        "date": "date",
        "total": "number",
        "paid": "boolean",
    }
    assert "in the document" in task.checks
    assert formatted(tmp_path / "my-task/task.py")
    report = walk(tmp_path, result, demo_model.name)
    assert report["n"] == 2
    assert (tmp_path / "runs/sft/report.json").exists()


@pytest.mark.parametrize("write", [own_rows.tickets, own_rows.invoices])
def test_every_recipe_of_the_folder_loads_its_files(
    tmp_path: Path, tiny: str, write: Callable[[Path], Path]
) -> None:
    """The files that the recipes name are there and fit; a run of no steps reads them all."""
    name = "rows.jsonl" if write is own_rows.tickets else "rows.csv"
    files = init(tmp_path, write(tmp_path / name))["files"]
    assert {"sft.toml", "distill.toml", "grpo.toml", "compare.toml"} <= set(files)
    for recipe in ("sft", "filtered_sft", "distill"):
        if f"{recipe}.toml" in files and (recipe != "distill" or "filtered_sft.toml" in files):
            words = ["--set", f"model={tiny}", "--set", "name=x-" + recipe]
            done = offapi("train", f"my-task/{recipe}.toml", *STEPS, *words, cwd=tmp_path)
            assert done.returncode == 0, f"{recipe}: {done.stderr}"
    words = ["--dry-run", "--set", f"model={tiny}", "--set", f"teacher=local:{tiny}"]
    done = offapi("compare", "my-task/compare.toml", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    curve = ["--recipe", "filtered_sft"] if "filtered_sft.toml" in files else []
    words = [*curve, "--dry-run", "--set", f"model={tiny}"]
    done = offapi("curve", "my-task/compare.toml", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr


def test_an_untouched_folder_of_the_demo_compares_and_draws_a_curve(
    tmp_path: Path, tiny: str
) -> None:
    assert offapi("init", "plain", cwd=tmp_path).returncode == 0
    words = ["--dry-run", "--set", f"model={tiny}", "--set", f"teacher=local:{tiny}"]
    done = offapi("compare", "plain/compare.toml", *words, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "left out" not in done.stderr
    assert all(recipe in done.stderr for recipe in ("sft", "distill", "filtered_sft", "grpo"))
    assert offapi("curve", "plain/compare.toml", *words, cwd=tmp_path).returncode == 0


def test_the_same_rows_make_the_same_folder(tmp_path: Path) -> None:
    path = own_rows.tickets(tmp_path / "export.jsonl")
    contents = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        told(offapi("init", f"{name}/my-task", "--from", str(path), "--json", cwd=tmp_path))
        files = sorted((tmp_path / name / "my-task").iterdir())
        contents.append({file.name: file.read_bytes() for file in files if file.suffix != ".md"})
    assert contents[0] == contents[1]
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["export.jsonl", "one", "two"], "the import's folder is gone"


def test_documents_without_answers_get_a_task_to_fill_in(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for i in range(6):
        (tmp_path / f"docs/{i}.txt").write_text(f"Contract {i} about deliveries")
    done = offapi("init", "my-task", "--from", "docs", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "no row has an answer" in done.stderr
    assert load_task(tmp_path / "my-task/task.py").match == {"title": "text", "date": "date"}
    assert formatted(tmp_path / "my-task/task.py")
    assert not (tmp_path / "my-task/val.jsonl").exists()
    toml = (tmp_path / "my-task/distill.toml").read_text()
    assert "\nval =" not in toml


def test_agents_chats_are_learned_whole(tmp_path: Path) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "find", "arguments": "{}"}}
    traces = []
    for i in range(20):
        messages = [
            {"role": "system", "content": "Find it."},
            {"role": "user", "content": f"parcel {i * 7919}"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "1", "content": f"day {i}"},
            {"role": "assistant", "content": json.dumps({"day": i})},
        ]
        tools = [{"type": "function", "function": {"name": "find", "parameters": {}}}]
        traces.append({"id": f"t{i}", "messages": messages, "tools": tools})
    write_jsonl(tmp_path / "agent.jsonl", traces)
    result = init(tmp_path, tmp_path / "agent.jsonl")
    assert "train.jsonl" not in result["files"]
    assert 'prompt = "trace"' in (tmp_path / "my-task/filtered_sft.toml").read_text()
    test = rows.read_rows(tmp_path / "my-task/test.jsonl")
    assert len(test) == 4
    assert all(isinstance(row, Trace) and row.gold for row in test)


@pytest.mark.parametrize(
    ("name", "content", "more", "said"),
    [
        ("few.csv", "text,label\na b,x\nc d,y\n", [], "2 rows with an answer: too few"),
        ("odd.csv", "text,label\na b,x\nc d,y\n", ["--text", "texts"], "Did you mean 'text'?"),
        ("n.csv", "a,b\n1,2\n3,4\n", ["--answer", "c"], "there is no column 'c'"),
        ("x.jsonl", '{"id": "1", "document": 5}\n', [], "line 1"),
        ("nothing.jsonl", "", [], "no rows in it"),
    ],
)
def test_what_cannot_be_a_task_leaves_nothing(
    tmp_path: Path, name: str, content: str, more: list[str], said: str
) -> None:
    (tmp_path / name).write_text(content)
    done = apart("init", "my-task", "--from", name, *more, cwd=tmp_path)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    path = own_rows.replies(tmp_path / "mails.jsonl")
    (tmp_path / "my-task").mkdir()
    (tmp_path / "my-task/mine.txt").write_text("mine")
    done = offapi("init", "my-task", "--from", path.name, cwd=tmp_path)
    assert done.returncode == 2
    assert [file.name for file in (tmp_path / "my-task").iterdir()] == ["mine.txt"]
    done = offapi("init", "other", "--text", "body", cwd=tmp_path)
    assert done.returncode == 2
    assert "add --from" in done.stderr
