"""`offapi serve` with tools, as an agent's own loop uses it: OpenAI's client runs the tools."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bigram_llama
import openai
import pytest
from recipe_folder import offapi
from serving import Served, serving

from offapi.data import traces

TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find",
        "description": "Find a company.",
        "parameters": {"type": "object", "properties": {"text": {"type": "string"}}},
    },
}
# The last character of the prompt decides: "n" begins the call, "t" the answer.
TEMPLATE = bigram_llama.TEMPLATE + "{% if add_generation_prompt %}<|turn|>assistan{% endif %}"
CALL = (
    "Wait. ",
    "<tool_call>\n",
    '{"name": "find", ',
    '"arguments": {"text": "Süd"}}',
    "\n</tool_call>",
)
QUESTION: Any = [{"role": "user", "content": "Who is paid?"}]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = bigram_llama.write(tmp_path_factory.mktemp("agent") / "model", {"n": CALL})
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(
        json.dumps({**settings, "chat_template": TEMPLATE})
    )
    return folder


@pytest.fixture(scope="module")
def server(model: Path, backend_name: str) -> Iterator[Served]:
    words = (f"agent={model}", "--traces=kept", f"--backend={backend_name}")
    with serving(*words, cwd=model.parent) as served:
        yield served


def ask(server: Served, messages: Any = QUESTION, **options: Any) -> Any:
    settings = {"model": "agent", "messages": messages, "tools": [TOOL], "max_tokens": 40}
    return server.client().chat.completions.create(**{**settings, **options})


def test_a_call_is_an_answer_of_openais_shape(server: Served) -> None:
    choice = ask(server).choices[0]
    (call,) = choice.message.tool_calls
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", "Wait.")
    assert call.function.name == "find"
    assert json.loads(call.function.arguments) == {"text": "Süd"}


def test_a_streamed_call_is_the_same(server: Served) -> None:
    whole, chunks = ask(server).choices[0], list(ask(server, stream=True))
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    calls = [call for delta in deltas for call in delta.tool_calls or ()]
    reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
    assert "".join(delta.content or "" for delta in deltas) == whole.message.content
    told = [(call.function.name, call.function.arguments) for call in calls]
    assert told == [(c.function.name, c.function.arguments) for c in whole.message.tool_calls]
    assert [(call.index, call.id) for call in calls] == [(0, whole.message.tool_calls[0].id)]
    assert reasons == ["tool_calls"]


def test_results_come_back_and_ids_do_not_repeat(server: Served) -> None:
    first = ask(server).choices[0].message
    result = {"role": "tool", "tool_call_id": first.tool_calls[0].id, "content": "Acme <|end|>"}
    again = ask(server, [*QUESTION, first, result]).choices[0].message
    assert again.tool_calls[0].id != first.tool_calls[0].id


def test_without_tools_the_same_words_are_text(server: Served) -> None:
    for options in ({"tools": openai.omit}, {"tool_choice": "none"}):
        choice = ask(server, **options).choices[0]
        assert choice.finish_reason == "stop"
        assert "<tool_call>" in choice.message.content


def test_what_cannot_be_done_is_refused(server: Served) -> None:
    for options, named in (
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
    ):
        with pytest.raises(openai.BadRequestError) as error:
            ask(server, **options)
        assert error.value.param == named


def test_kept_turns_can_be_learned(server: Served, model: Path) -> None:
    ask(server)
    kept = traces.read(model.parent / "kept")[-1]
    assert kept.tools is not None
    assert kept.messages[-1]["tool_calls"][0]["function"]["name"] == "find"


def test_a_call_that_was_cut_off_is_text(server: Served) -> None:
    choice = ask(server, max_tokens=3).choices[0]
    assert (choice.finish_reason, choice.message.tool_calls) == ("length", None)
    assert "find" in choice.message.content


TASK = """
import offapi
from offapi import checks

def find(text: str) -> str:
    \"\"\"Find a company.

    Args:
        text: Its name.
    \"\"\"
    return text + " GmbH"

task = offapi.Task(
    name="payee",
    instructions="Who is paid?",
    schema=None,
    checks={"found": (checks.tool_used("find"), 1.0)},
    tools=(find,),
    max_turns=2,
    max_answer_tokens=40,
)
"""


def test_a_teacher_behind_it_labels_with_tools(server: Served, tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "docs.jsonl").write_text('{"id": "a", "document": "A bill"}\n')
    words = ["label", "--task=task.py", "--data=docs.jsonl", "--out=traces.jsonl"]
    done = offapi(*words, f"--teacher={server.url}/v1", "--model=agent", cwd=tmp_path)
    assert "no document was labelled: turns" in done.stderr
    (line,) = (tmp_path / "traces.jsonl.failed").read_text().splitlines()
    said = json.loads(line)["messages"]
    assert [m["role"] for m in said[2:]] == ["assistant", "tool", "assistant"]
    assert (said[2]["content"], said[3]["content"]) == ("Wait.", "Süd GmbH")
    assert said[4]["tool_calls"][0]["id"] == "call00002"
