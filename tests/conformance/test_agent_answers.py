"""An agent is scored in episodes: what is right, what they took, how they ended, and the chat."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import bigram_llama
import orjson
import pytest
from imported_row import Quiet
from recipe_folder import write_jsonl

import offapi
from offapi.errors import ConfigError, DataError
from offapi.evaluation import accuracy
from offapi.evaluation.compare import compare_answers
from offapi.evaluation.evaluate import EvalSettings, evaluate_model, read_questions
from offapi.export.accuracy_lost import read_documents

TASK = """
import offapi
from offapi.checks import tool_used
from offapi.checks.verdict import Verdict

def look(shop: str) -> str:
    \"\"\"Look a shop up.

    Args:
        shop: Its name.
    \"\"\"
    return shop + " is registered <b>"

def in_document(document, answer, context):
    return Verdict(float(document.startswith("receipt") and "registered" not in document), "")

task = offapi.Task(
    name="shops",
    instructions="Name the shop.",
    KIND
    tools=(look,),
    max_turns=2,
    max_answer_tokens=8,
)
"""
FIELDS = """
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={"used": (tool_used("look"), 1.0)},
    match={"shop": "text"},
"""
TEXT = """
    schema=None,
    checks={"used": (tool_used("look"), 1.0), "document": (in_document, 1.0)},
"""
CALL = '<tool_call>{"name": "look", "arguments": %s}</tool_call>'
ANSWERS = {  # by the last character of what the model read
    "A": [CALL % '{"shop": "Ash"}'],
    "B": ['{"shop": "Birch"}'],
    "C": ["<tool_call>{</tool_call>"],
    "D": [CALL % "{}"],
    "E": ["on and on", "∞"],
    ">": ['{"shop": "Ash"}'],  # a result ends so
}


def lay_out(folder: Path, kind: str = FIELDS, documents: str = "ABCDE") -> Path:
    """Write a model, a task with a tool, and a document for each answer."""
    bigram_llama.write(folder / "model", ANSWERS)
    (folder / "task.py").write_text(TASK.replace("KIND", kind))
    gold: Any = {"shop": "Ash"} if kind == FIELDS else "Ash"
    rows = [{"id": last, "document": f"receipt {last}", "gold": gold} for last in documents]
    write_jsonl(folder / "val.jsonl", rows)
    return folder


def settings(folder: Path, backend_name: str, **more: Any) -> EvalSettings:
    values: dict[str, Any] = {"samples": 1, "temperature": 0.0, "out": folder / "agent.jsonl"}
    model = str(folder / "model")
    given = {**values, "backend": backend_name, **more}
    return EvalSettings(model=model, adapter=None, shots=0, dtype="float32", **given)


def test_an_agent_is_scored_by_its_episodes(tmp_path: Path, backend_name: str) -> None:
    folder = lay_out(tmp_path)
    questions = read_questions(folder / "task.py", folder / "val.jsonl", None)
    asked = settings(folder, backend_name)
    result = evaluate_model(asked, questions, Quiet())
    report = result.report
    assert report.all_fields.mean == pytest.approx(3 / 5)
    assert report.episodes is not None
    means = {name: interval.mean for name, interval in report.episodes.means.items()}
    expected = {"turns": 8 / 5, "tool_calls": 2 / 5, "tool_errors": 2 / 5, "malformed": 1 / 5}
    assert {name: means[name] for name in expected} == pytest.approx(expected)
    assert report.episodes.finishes == {"stop": 4, "length": 1}
    assert means["sampled"] * 5 == result.cost.completion_tokens == 7 * 2 + 8
    assert result.cost.prompt_tokens > means["tokens"] * 5, "each turn reads what came before"
    assert result.cost.said[4].startswith("on and on")
    printed = dict(report.table() + report.episodes.table())
    assert printed["success: all fields"].startswith("60.0 [")
    assert printed["a turn was cut off (length)"] == "1 of 5, 20.0%"

    first, *_, last = rows = [orjson.loads(line) for line in asked.out.read_bytes().splitlines()]
    roles = [message["role"] for message in first["messages"]]
    assert roles == ["system", "user", "assistant", "tool", "assistant"]
    assert first["messages"][3]["content"] == "Ash is registered <b>"
    assert [row["episode"]["finish"] for row in rows] == ["stop"] * 4 + ["length"]
    assert last["output"] == ""
    kept = accuracy.read_predictions(asked.out)
    assert kept == list(report.predictions)
    again = accuracy.Report.of(kept).episodes
    assert again is not None
    assert asdict(again) == asdict(report.episodes)

    single = accuracy.make_predictions(questions.task, questions.rows, ['{"shop": "Birch"}'] * 5)
    compared = compare_answers(kept, single)
    assert compared.all_fields.difference.mean == pytest.approx(3 / 5)
    broken = asked.out.read_bytes().replace(b'"finish":"stop"', b'"finish":"well"')
    asked.out.write_bytes(broken)
    with pytest.raises(DataError, match="is not what an episode took"):
        accuracy.read_predictions(asked.out)

    with pytest.raises(ConfigError, match="single answer"):
        evaluate_model(settings(folder, backend_name, constrain="schema"), questions, Quiet())

    sampled = settings(folder, backend_name, samples=3, temperature=0.01)
    report = evaluate_model(sampled, questions, Quiet()).report
    assert report.episodes is not None
    assert (report.episodes.n, len(report.predictions)) == (15, 15)
    assert dict(report.table())["pass^3: all of 3 all right"].startswith("60.0 [")


def test_checks_see_the_whole_chat_and_the_rows_own_text(tmp_path: Path, backend_name: str) -> None:
    folder = lay_out(tmp_path, TEXT, "AB")
    questions = read_questions(folder / "task.py", folder / "val.jsonl", None)
    report = evaluate_model(settings(folder, backend_name), questions, Quiet()).report
    assert [row.correct for row in report.predictions] == [
        {"used": True, "document": True},
        {"used": False, "document": True},
    ]

    function = {"name": "look", "arguments": '{"shop":"Oak"}'}
    call = {"id": "call00001", "type": "function", "function": function}
    messages = [
        {"role": "user", "content": "receipt A"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call00001", "content": "Oak is registered"},
        {"role": "assistant", "content": "Oak"},
    ]
    rows = [{"id": "t", "messages": messages, "gold": "Ash"}]
    traced = read_questions(folder / "task.py", write_jsonl(folder / "traces.jsonl", rows), None)
    (asked,) = evaluate_model(settings(folder, backend_name), traced, Quiet()).report.predictions
    assert asked.episode is not None
    assert asked.episode.messages[:1] == tuple(messages[:1])
    assert asked.episode.messages[2]["content"] == "Ash is registered <b>"
    assert asked.correct == {"used": True, "document": True}
    (recorded,), missing = accuracy.recorded_predictions(traced.task, traced.rows)
    assert (recorded.correct, missing) == ({"used": True, "document": True}, [])


def test_documents_are_predicted_in_episodes(tmp_path: Path, backend_name: str) -> None:
    folder = lay_out(tmp_path)
    with offapi.open(folder / "model", folder / "task.py", backend_name) as predictor:
        answers = list(predictor.predict([f"receipt {last}" for last in "ABE"]))
        assert [each.answer for each in answers] == [{"shop": "Ash"}, {"shop": "Birch"}, None]
        assert answers[0].fields["shop"].evidence is None  # it is not printed
        assert answers[2].error == "the episode ended at a limit, without an answer: length."
        assert answers[0].completion_tokens > answers[1].completion_tokens
        for options in ({"signals": True}, {"candidates": 2}, {"constrain": "schema"}):
            with pytest.raises(ConfigError, match="cannot be had of a task with tools"):
                predictor.predict("receipt A", **options)


def test_an_export_of_an_agent_is_not_measured_by_another_tool(tmp_path: Path) -> None:
    folder = lay_out(tmp_path)
    task = read_questions(folder / "task.py", folder / "val.jsonl", None).task
    run = SimpleNamespace(manifest={"config": {"val": str(folder / "val.jsonl")}})
    source: Any = SimpleNamespace(task=task, run=run)
    assert read_documents(source, None) is None
    with pytest.raises(ConfigError, match="calls no tools"):
        read_documents(source, folder / "val.jsonl")
