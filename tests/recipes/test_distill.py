"""Distillation from recorded labels and from a labels file: what fails a check is not learned."""

from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder

from offapi.cli.output import Output
from offapi.recipes import distill
from offapi.teachers.labels_file import Label
from offapi.teachers.teacher import Usage


def test_only_what_passes_the_checks_is_learned(tmp_path: Path, backend_name: str) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=8, wrong=3, teacher="recorded")
    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    assert (
        "Kept 5 of 8 labels. Failed checks: source 3. Dropped: 3 below the threshold."
        in done.stderr
    )
    run = tmp_path / "runs" / "distill"
    grades = [orjson.loads(line) for line in (run / "grades.jsonl").read_bytes().splitlines()]
    assert [row["id"] for row in grades if row["score"] < 1] == ["d0", "d1", "d2"]
    assert grades[0]["checks"]["source"]["reason"] == "not in the document: shop"
    assert len(recipe_folder.metrics(run)) == 2 * 3  # five rows in batches of two, twice
    scored = orjson.loads((run / "manifest.json").read_bytes())["scored"]
    assert [entry["n"] for entry in scored] == [4]


def test_gold_is_never_used(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=8, teacher="recorded")
    assert recipe_folder.offapi("train", str(recipe)).returncode == 0
    without = recipe_folder.lay_out(tmp_path / "without", "distill", count=8, teacher="recorded")
    recipe_folder.write_jsonl(
        without.parent / "train.jsonl",
        [{k: v for k, v in row.items() if k != "gold"} for row in recipe_folder.rows(8)],
    )
    assert recipe_folder.offapi("train", str(without)).returncode == 0
    adapters = [
        path.parent / "runs/distill/adapter/adapter_model.safetensors" for path in (recipe, without)
    ]
    assert adapters[0].read_bytes() == adapters[1].read_bytes()


def test_a_labels_file_takes_the_teachers_place(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=6, wrong=1, labels="labels.jsonl")
    words = [
        "--task",
        str(tmp_path / "task.py"),
        "--data",
        str(tmp_path / "train.jsonl"),
        "--teacher",
        "recorded",
    ]
    labelled = recipe_folder.offapi("label", *words, "--out", str(tmp_path / "labels.jsonl"))
    assert labelled.returncode == 0, labelled.stderr
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    assert "Kept 5 of 6 labels" in done.stderr


def test_an_endpoint_is_left_to_label(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", teacher="https://api.example.com/v1")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 2
    assert (
        "`offapi label --teacher https://api.example.com/v1 ... --out labels.jsonl`, then set"
        in done.stderr
    )


def test_labels_have_no_groups_to_keep_by(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", teacher="recorded")
    for keep in ("{best = 1}", '{cap = 2, cap_by = "group"}'):
        done = recipe_folder.offapi("train", str(recipe), "--set", f"keep={keep}")
        assert done.returncode == 2
        assert "labels have no groups" in done.stderr
    assert not (tmp_path / "runs").exists()


def test_no_kept_label_is_an_error_that_names_the_reasons(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=4, wrong=4, teacher="recorded")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    assert "none of 4 labels" in done.stderr
    assert "grades.jsonl" in done.stderr


def write_labels(folder: Path, form: str) -> None:
    """Write the recorded labels as a teacher's answers, each in `form`."""
    lines = []
    for row in recipe_folder.rows(8):
        answer = orjson.dumps(row["recorded_label"]).decode()
        label = Label(row["id"], form.replace("OBJECT", answer), "ok", Usage(), 0.0, "t", "p")
        lines.append(label.line())
    (folder / "labels.jsonl").write_bytes(b"".join(lines))


@pytest.mark.parametrize("form", ["```json\nOBJECT\n```", "The shop.</think>\n\nOBJECT"])
def test_what_stands_around_an_answer_is_counted_and_not_learned(tmp_path: Path, form: str) -> None:
    adapters = []
    for name, wrapping in (("bare", "OBJECT"), ("wrapped", form)):
        recipe = recipe_folder.lay_out(tmp_path / name, "distill", 8, labels="labels.jsonl")
        write_labels(tmp_path / name, wrapping)
        done = recipe_folder.offapi("train", str(recipe))
        assert done.returncode == 0, done.stderr
        assert ("8 of 8 answers" in done.stderr) == (name == "wrapped")
        adapter = tmp_path / name / "runs/distill/adapter/adapter_model.safetensors"
        adapters.append(adapter.read_bytes())
    assert adapters[0] == adapters[1]


def test_where_no_answer_can_be_read_the_form_is_named(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", 8, labels="labels.jsonl")
    write_labels(tmp_path, "[OBJECT]")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert (
        "none of 8 labels is kept: 8 of 8 answers are not one JSON object: a list of one object (8)"
        in said
    )
    assert "Take the object out of its list" in said
    assert "lower keep.threshold" not in said


def test_a_strict_task_refuses_fences(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", 8, labels="labels.jsonl")
    task = tmp_path / "task.py"
    task.write_text(task.read_text().replace("max_answer", "strict=True,\n    max_answer"))
    write_labels(tmp_path, "```json\nOBJECT\n```")
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 1
    said = " ".join(done.stderr.split())
    assert "8 of 8 answers are not one JSON object: a code fence (8)" in said
    assert "set strict=False in the task" in said


AGENT = """
import offapi
from offapi import checks

def find(text: str) -> str:
    \"\"\"Find a shop.

    Args:
        text: Its name.
    \"\"\"
    return text

task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"from a tool": (checks.from_tools("shop"), 1.0)},
    match={"shop": "text"},
    tools=(find,),
)
"""


def trace(row: dict[str, Any], found: str) -> dict[str, Any]:
    call = {"name": "find", "arguments": orjson.dumps({"text": found}).decode()}
    answer = orjson.dumps(row["gold"]).decode()
    messages = [
        {"role": "user", "content": row["document"]},
        {"role": "assistant", "content": "", "tool_calls": [{"id": "1", "type": "function", "function": call}]},
        {"role": "tool", "tool_call_id": "1", "content": found},
        {"role": "assistant", "content": answer},
    ]  # fmt: skip
    return {"id": row["id"], "messages": messages}


def test_an_agent_learns_all_turns_of_the_traces_that_pass(tmp_path: Path) -> None:
    recipe = recipe_folder.lay_out(tmp_path, "distill", count=4)
    (tmp_path / "task.py").write_text(AGENT)
    refused = recipe_folder.offapi("train", str(recipe))
    assert refused.returncode == 2
    assert "`offapi label ... --out traces.jsonl`, then set labels" in refused.stderr
    compared = tmp_path / "compare.toml"
    compared.write_text(
        'recipe = "compare"\ntask = "task.py"\ndocuments = "train.jsonl"\ntest = "val.jsonl"\n'
    )
    refused = recipe_folder.offapi("compare", str(compared))
    assert refused.returncode == 2
    assert 'Train filtered_sft with prompt = "trace"' in refused.stderr
    rows = recipe_folder.rows(4)
    found = [row["gold"]["shop"] for row in rows[:3]] + ["another"]
    traces = [trace(row, shop) for row, shop in zip(rows, found, strict=True)]
    recipe_folder.write_jsonl(tmp_path / "traces.jsonl", traces)
    text = recipe.read_text().replace('val = "val.jsonl"', 'labels = "traces.jsonl"')
    recipe.write_text(text)
    done = recipe_folder.offapi("train", str(recipe))
    assert done.returncode == 0, done.stderr
    assert "Kept 3 of 4 labels. Failed checks: from a tool 1." in done.stderr
    paths = {"task": "task.py", "data": "train.jsonl", "labels": "traces.jsonl"}
    named: Any = {key: tmp_path / name for key, name in paths.items()}
    config = distill.Config(**named, model=str(tmp_path / "model"))
    inputs = distill.prepare(config, Output(json=True))
    graded = distill.grade_traces(inputs.task, inputs.rows, inputs.traces)
    (episode,) = distill.learned(inputs, graded[0])
    assert len([each for each in episode.segments if each.sampled]) == 2
