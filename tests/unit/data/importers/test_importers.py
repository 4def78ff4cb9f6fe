"""Every importer on samples of what it reads: which rows come out, and why the others do not.

Each test says where its samples' shapes come from; those marked `recorded` were written by the
library itself, talking to a server on loopback.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from imported_row import Quiet

from offapi.data import traces
from offapi.data.importers import records
from offapi.data.importers.formats import langfuse
from offapi.data.importers.run import Imported, ImportRequest, import_traces
from offapi.errors import ConfigError, DataError

SAMPLES = Path(__file__).parents[3] / "samples" / "traces"
ARGUMENTS = '{"city": "Paris"}'
SYSTEM = {"role": "system", "content": "You answer questions about the weather."}
USER = {"role": "user", "content": "What is the weather in Paris?"}
RESULT = "rainy in Paris, 11 °C"
ANSWER = "It is 11 °C and raining in Paris."


def read(
    out: Path, format: str, *names: str, **more: Any
) -> tuple[dict[str, traces.Trace], Imported]:
    """Import samples and return the traces by id, and the result."""
    found = records.find_files([SAMPLES / name for name in names], but=out)
    imported = import_traces(
        ImportRequest(format, found, more.pop("maps", {}), **more), out, Quiet()
    )
    rows = traces.read(out)
    assert len(rows) == imported.usable
    assert imported.read == imported.usable + sum(each.count for each in imported.dropped)
    assert all(row.source is not None and row.source["format"] == format for row in rows)
    return {row.id: row for row in rows}, imported


def reasons(imported: Imported) -> dict[str, int]:
    return {each.reason: each.count for each in imported.dropped}


def calls(message: traces.Message) -> list[tuple[Any, str, str]]:
    """Return id, name and arguments of a message's calls."""
    return [
        (call.get("id"), call["function"]["name"], call["function"]["arguments"])
        for call in message["tool_calls"]
    ]


def check_weather(trace: traces.Trace, id: str | None, arguments: str = ARGUMENTS) -> None:
    """Check that a chat asks, calls the tool, gets its result and answers."""
    *_, user, called, result, answer = trace.messages
    assert user == USER
    assert calls(called) == [(id, "get_weather", arguments)]
    assert {"role": "tool", "content": RESULT}.items() <= result.items()
    assert result.get("tool_call_id") == id
    assert answer["content"] == ANSWER


def test_openai_fine_tuning(tmp_path: Path) -> None:
    """Shapes: OpenAI's FineTuneChatRequestInput and its
    deprecated `functions`; the root weight is Fireworks'.
    """
    rows, imported = read(tmp_path / "out.jsonl", "openai-ft", "openai_ft.jsonl")
    assert list(rows) == ["openai_ft-1", "openai_ft-2", "openai_ft-3", "openai_ft-4", "openai_ft-5"]
    assert reasons(imported) == {
        "weight 0: nothing in it is to be learned": 2,
        "a preference pair (DPO), not a chat": 1,
        "a prompt with its completion, not a chat": 1,
        "holds an image": 1,
        "the last message is not the assistant's": 1,
        "duplicate": 1,
        "no answer": 1,
    }
    assert rows["openai_ft-1"].messages == (SYSTEM, USER, {"role": "assistant", "content": ANSWER})
    weights = [message.get("weight") for message in rows["openai_ft-2"].messages]
    assert weights == [None, 0, None, 1]
    check_weather(rows["openai_ft-3"], "call_1")
    check_weather(rows["openai_ft-4"], None)
    assert rows["openai_ft-4"].tools == rows["openai_ft-3"].tools
    assert rows["openai_ft-5"].source == {
        "format": "openai-ft",
        "file": "openai_ft.jsonl",
        "line": 5,
        "weight": 0.5,
    }


def test_openai_pairs(tmp_path: Path) -> None:
    """Requests: recorded from the SDK.

    Responses: the SDK's types. Envelopes: those of HTTP logs.
    """
    rows, imported = read(tmp_path / "out.jsonl", "openai", "openai_pairs.jsonl")
    assert list(rows) == ["chatcmpl-0001", "chatcmpl-0002", "chatcmpl-0003", "chatcmpl-flat"]
    assert reasons(imported) == {
        "duplicate": 1,
        "cut off at the token limit": 1,
        "stopped by a content filter": 1,
        "the model refused": 1,
        "the call failed": 1,
        "streamed pieces": 1,
        "not a chat": 1,
        "not a model's answer: another kind of record": 1,
    }
    check_weather(rows["chatcmpl-0002"], "call_01abc")
    assert rows["chatcmpl-0001"].source == {
        "format": "openai",
        "file": "openai_pairs.jsonl",
        "line": 1,
        "finish_reason": "tool_calls",
        "model": "gpt-4o-mini-2024-07-18",
        "usage": {"prompt_tokens": 57, "completion_tokens": 17, "total_tokens": 74},
        "ts": "2025-11-24T16:00:01+00:00",
        "params": {"temperature": 0.2},
    }
    assert rows["chatcmpl-0003"].group == "chatcmpl-0003"  # one of two choices


def test_openai_responses(tmp_path: Path) -> None:
    """Requests: recorded from the SDK. Responses: the SDK's types."""
    rows, imported = read(tmp_path / "out.jsonl", "openai", "openai_responses.jsonl")
    assert list(rows) == ["resp_0004", "resp_0005", "resp_flat"]
    check_weather(rows["resp_0005"], "call_04xyz", '{"city":"Paris"}')
    assert rows["resp_0005"].messages[0] == {"role": "system", "content": "You answer briefly."}
    assert rows["resp_0005"].messages[2]["reasoning_content"] == "The user wants the weather."
    tools = rows["resp_0005"].tools
    assert tools is not None
    assert tools[0]["function"].keys() == {"name", "description", "parameters", "strict"}
    flat = rows["resp_flat"]
    assert flat.source is not None
    assert (flat.tools, flat.source["tools_left_out"]) == (None, ["web_search"])
    assert reasons(imported) == {
        "continues a conversation whose beginning is not recorded": 1,
        "uses a tool of the provider or a custom tool, which no local model has": 1,
        "cut off at the token limit": 1,
    }


@pytest.mark.parametrize("turn", [1, -1])
def test_an_openai_batch_is_joined_in_any_order_of_files(tmp_path: Path, turn: int) -> None:
    """Shapes: OpenAI's BatchRequestInput and BatchRequestOutput."""
    names = ["openai_batch_input.jsonl", "openai_batch_output.jsonl", "openai_batch_errors.jsonl"][
        ::turn
    ]
    rows, imported = read(tmp_path / "out.jsonl", "openai", *names)
    assert list(rows) == ["request-2", "request-1"]
    check_weather(rows["request-2"], "call_01abc")
    assert reasons(imported) == {
        "a request without a result": 1,
        "a result without its request": 1,
        "the call failed": 1,
    }
    lines = sum(len((SAMPLES / name).read_text().splitlines()) for name in names)
    assert (imported.paired, imported.read + imported.paired) == (
        3,
        lines,
    )  # the third's result is an error
    assert list(tmp_path.iterdir()) == [tmp_path / "out.jsonl"]


def test_a_custom_id_of_several_requests_is_not_joined(tmp_path: Path) -> None:
    requests = [
        {"custom_id": "1", "body": {"messages": [{"role": "user", "content": text}]}}
        for text in ("a", "b", "a")
    ]
    choice = {"message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}
    result = {
        "custom_id": "1",
        "response": {"status_code": 200, "body": {"choices": [choice]}},
        "error": None,
    }
    good = [{**each, "custom_id": "2"} for each in (requests[0], requests[2], result)]
    source = tmp_path / "batch.jsonl"
    source.write_text("\n".join(map(json.dumps, [*requests, result, *good])))
    rows, imported = read(tmp_path / "out.jsonl", "openai", str(source))
    assert list(rows) == ["2"]
    assert reasons(imported) == {"its custom_id belongs to several requests": 1}


@pytest.mark.parametrize(("limit", "paired"), [(1, 3), (2, 4), (9, 4)])
def test_paired_requests_are_counted_up_to_the_limit(
    tmp_path: Path, limit: int, paired: int
) -> None:
    ids = [f"request-{i}" for i in range(4)]
    requests = [
        {"custom_id": id, "body": {"messages": [{"role": "user", "content": id}]}} for id in ids
    ]
    body = {
        "choices": [{"message": {"role": "assistant", "content": "A"}, "finish_reason": "stop"}]
    }
    results = [{"custom_id": id, "response": {"status_code": 200, "body": body}} for id in ids]
    source = tmp_path / "batch.jsonl"
    source.write_text(
        "\n".join(map(json.dumps, [*requests[:3], *results[:2], requests[3], *results[2:]]))
    )
    _, imported = read(tmp_path / "out.jsonl", "openai", str(source), limit=limit)
    assert (imported.read, imported.paired) == (min(limit, 4), paired)


def test_stored_completions_are_joined_with_their_messages(tmp_path: Path) -> None:
    """Shapes: OpenAI's ChatCompletionList and ChatCompletionMessageList."""
    rows, imported = read(
        tmp_path / "out.jsonl", "openai", "openai_stored.json", "openai_stored_messages.json"
    )
    (row,) = rows.values()
    assert row.id == "chatcmpl-AyPNinnUqUDYo9SAdA52NobMflmj2"
    assert row.messages[1] == {"role": "user", "content": "What is the weather\nin Paris?"}
    assert reasons(imported) == {"a result without its request": 1}


def test_anthropic_pairs(tmp_path: Path) -> None:
    """Requests: recorded from the SDK. Responses: the SDK's types."""
    rows, imported = read(tmp_path / "out.jsonl", "anthropic", "anthropic_pairs.jsonl")
    assert list(rows) == ["msg_0007", "msg_0008", "msg_pre"]
    first, second = rows["msg_0007"], rows["msg_0008"]
    assert first.messages[-1] == {
        "role": "assistant",
        "content": "Let me look.",
        "reasoning_content": "The user wants the weather.",
        "tool_calls": [
            {
                "id": "toolu_0007",
                "type": "function",
                "function": {"name": "get_weather", "arguments": '{"city":"Paris"}'},
            }
        ],
    }
    assert [message["role"] for message in second.messages] == [
        "system",
        "user",
        "assistant",
        "tool",
        "user",
        "assistant",
    ]
    assert second.messages[3] == {"role": "tool", "tool_call_id": "toolu_0007", "content": RESULT}
    assert first.tools is not None
    assert first.source is not None
    assert first.tools[0]["function"]["parameters"]["required"] == ["city"]
    assert first.source["tools_left_out"] == ["web_search_20250305"]
    assert rows["msg_pre"].answer == "It is 11 °C."
    assert reasons(imported) == {
        "cut off at the token limit": 1,
        "the model refused": 1,
        "uses a tool of the provider or a custom tool, which no local model has": 1,
        "holds an image": 1,
        "the call failed": 1,
    }


def test_an_anthropic_batch_is_joined(tmp_path: Path) -> None:
    """Shapes: the SDK's BatchCreateParams and MessageBatchIndividualResponse."""
    names = ["anthropic_batch_requests.json", "anthropic_batch_results.jsonl"]
    rows, imported = read(tmp_path / "out.jsonl", "anthropic", *names)
    assert list(rows) == ["doc-2", "doc-1"]
    assert reasons(imported) == {"the call failed": 2}


def test_a_batch_kept_as_a_string_of_json_is_joined(tmp_path: Path) -> None:
    """A log may hold the requests as text, in which every quotation mark is escaped."""
    names = ["anthropic_batch_requests.json", "anthropic_batch_results.jsonl"]
    requests, results = ((SAMPLES / name).read_text("utf-8") for name in names)
    as_text = json.dumps({"requests": json.dumps(json.loads(requests)["requests"])})
    (tmp_path / "log.jsonl").write_text(f"{as_text}\n{results}", "utf-8")
    rows, imported = read(tmp_path / "out.jsonl", "anthropic", str(tmp_path / "log.jsonl"))
    assert list(rows) == ["doc-2", "doc-1"]
    assert reasons(imported) == {"the call failed": 2}


def test_otel_spans_and_events(tmp_path: Path) -> None:
    """Recorded: opentelemetry-instrumentation-genai-openai
    1.3b0 through the OTLP/JSON file exporter.
    """
    rows, imported = read(
        tmp_path / "out.jsonl", "otel", "otel_spans.jsonl", "otel_spans_without_content.jsonl"
    )
    assert len(rows) == 3
    spans = list(rows.values())
    check_weather(spans[1], "call_14abc", '{"city":"Paris"}')
    assert spans[2].messages[0] == {"role": "system", "content": "You answer briefly."}
    assert spans[0].group == "dc2804ae22fd4f82aa2e133ad054d068"
    assert reasons(imported) == {
        "a span without messages": 4,
        "the call failed": 2,
        "holds an image": 1,
    }
    assert "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT" in imported.dropped[0].hint

    logged, imported = read(tmp_path / "logs.jsonl", "otel", "otel_logs.jsonl")
    assert [row.messages[-1]["content"] for row in logged.values()] == [None, ANSWER, ANSWER]
    assert [row.tools for row in logged.values()] == [row.tools for row in spans]
    assert reasons(imported) == {"the call failed": 1, "holds an image": 1}


def test_otel_of_older_conventions(tmp_path: Path) -> None:
    """Recorded: opentelemetry-instrumentation-openai 0.62.4;
    the events are the conventions' of v1.27 to v1.36.
    """
    rows, imported = read(tmp_path / "out.jsonl", "otel", "otel_console.jsonl", "otel_older.json")
    check_weather(rows["0xe07a306ad9f78e81"], "call_05abc", '{"city":"Paris"}')
    check_weather(rows["0x0000000000000001"], "call_1")
    assert rows["0x0000000000000002"].answer == ANSWER
    numbered = rows["0x0000000000000003"]
    assert calls(numbered.messages[1]) == [("call_1", "get_weather", ARGUMENTS)]
    assert numbered.source is not None
    assert numbered.source["usage"] == {"input_tokens": 3, "output_tokens": 4}
    assert reasons(imported) == {"duplicate": 1, "not a model's answer: another kind of record": 2}


def test_openinference_and_phoenix(tmp_path: Path) -> None:
    """Recorded: openinference-instrumentation-openai 0.1.66;
    the page is Phoenix's GET /v1/projects/NAME/spans.
    """
    rows, imported = read(tmp_path / "out.jsonl", "openinference", "openinference.jsonl")
    check_weather(rows["0xcc10b0257a5e562d"], "call_08abc")
    assert rows["0xc6485f2528e74788"].messages[0]["content"] == "Say\nit."
    assert reasons(imported) == {"duplicate": 1}  # the second of two answers

    rows, imported = read(tmp_path / "page.jsonl", "openinference", "phoenix_spans.json")
    assert rows["1a2b3c4d5e6f7a8b"].group == "thread-7"
    thinking = {
        "role": "assistant",
        "content": "Paris.",
        "reasoning_content": "The capital of France is...",
    }
    assert rows["1a2b3c4d5e6f7a8c"].messages[-1] == thinking
    assert calls(rows["1a2b3c4d5e6f7a8d"].messages[-1]) == [
        ("call_08abc", "get_weather", ARGUMENTS)
    ]
    assert reasons(imported) == {
        "a span without messages": 1,
        "not a model's answer: another kind of record": 1,
        "the call failed": 1,
    }


def test_langfuse(tmp_path: Path) -> None:
    """Shapes: the export's field list, buildTraceExport.ts
    and the Observations API v2; inputs as its SDK has them.
    """
    rows, imported = read(tmp_path / "out.jsonl", "langfuse", "langfuse_blob.jsonl")
    assert list(rows) == ["obs-1", "obs-2", "obs-3", "obs-9"]
    check_weather(rows["obs-2"], "call_1")
    assert rows["obs-1"].tools == rows["obs-2"].tools
    assert (rows["obs-1"].group, rows["obs-2"].group) == ("trace-0", "chat-9")
    assert rows["obs-9"].messages[-1] == {"role": "assistant", "content": "Rain."}
    assert reasons(imported) == {
        "duplicate": 1,  # of LangChain's, whose tools are messages
        "the input is neither messages nor a text": 1,
        "an observation without input or output": 1,
        "the call failed": 1,
        "not a model's answer: another kind of record": 1,
    }

    rows, imported = read(
        tmp_path / "trace.jsonl", "langfuse", "langfuse_trace.json", "langfuse_api.json"
    )
    scores = [
        row.source["scores"] for row in rows.values() if row.source and "scores" in row.source
    ]
    assert scores == [{"tone": "warm", "helpful": 1}, {"tone": "warm"}]
    assert list(rows) == ["api-1", "api-2", "api-4"]
    assert reasons(imported) == {"an observation without input or output": 1}


ANSWERS = [
    ({"role": "assistant", "content": "a"}, "a"),
    (json.dumps({"role": "assistant", "content": "a"}), "a"),
    ('{"total":  1.10}', '{"total":  1.10}'),
    ({"total": 1.5}, '{"total":1.5}'),
    ('["a", "b"]', '["a", "b"]'),
    ({"type": "invoice", "content": "b"}, '{"type":"invoice","content":"b"}'),
    ("a", "a"),
]


@pytest.mark.parametrize(("output", "answer"), ANSWERS)
def test_a_langfuse_answer_that_is_json_stays_as_written(output: object, answer: str) -> None:
    (row,) = langfuse.rows({"type": "GENERATION", "input": [USER], "output": output})
    assert isinstance(row, traces.Trace)
    assert row.answer == answer


def test_litellm(tmp_path: Path) -> None:
    """Recorded: litellm 1.110.2's standard logging payload; the table is its schema.prisma's."""
    rows, imported = read(tmp_path / "out.jsonl", "litellm", "litellm_payload.jsonl")
    check_weather(rows["chatcmpl-0012"], "call_11abc")
    assert (rows["chatcmpl-0011"].group, rows["chatcmpl-0011"].tools) == (
        "s1",
        rows["chatcmpl-0012"].tools,
    )
    assert reasons(imported) == {
        "the call failed": 1,
        "cache hit: the answer was not made for this request": 1,
    }

    rows, imported = read(tmp_path / "table.jsonl", "litellm", "litellm_spendlogs.jsonl")
    assert list(rows) == ["chatcmpl-s1", "chatcmpl-s2", "chatcmpl-s9", "chatcmpl-s10"]
    assert rows["chatcmpl-s9"].messages[-1]["reasoning_content"] == "The user wants the weather."
    assert reasons(imported) == {
        "content was redacted or shortened when it was logged": 2,
        "a row without prompt and answer": 1,
        "the call failed": 1,
        "cache hit: the answer was not made for this request": 1,
        "not a model's answer: another kind of record": 1,
    }
    assert "store_prompts_in_spend_logs" in next(
        each.hint for each in imported.dropped if "without" in each.reason
    )


def test_agents_sdk(tmp_path: Path) -> None:
    """Recorded: openai-agents 0.24.0 with
    data/importers/agents_processor.py; the export has the SDK's own shape.
    """
    rows, imported = read(
        tmp_path / "out.jsonl", "agents-sdk", "agents_sdk.jsonl", "agents_export.json"
    )
    chats = list(rows.values())
    groups = ("thread-responses", "thread-chat_completions", "thread-streamed")
    assert [row.group for row in chats] == [group for group in groups for _ in range(2)]
    check_weather(chats[1], "call_01xyz", '{"city":"Paris"}')
    check_weather(chats[3], "call_03abc")
    check_weather(chats[5], "call_05abc")
    assert chats[4].messages[-1]["reasoning_content"] == "The user wants the weather."
    assert reasons(imported) == {
        "the call failed": 1,
        "cut off at the token limit": 1,
        "an exported span, which holds no messages": 1,
        "not a model's answer: another kind of record": 2,
    }
    assert "offapi traces processor" in next(
        each.hint for each in imported.dropped if "exported" in each.reason
    )


def test_generic(tmp_path: Path) -> None:
    maps = {
        "input": "$.doc.text",
        "output": "$.reply[0]['text']",
        "group": '$.who["customer id"]',
        "gold": "$.truth",
    }
    rows, imported = read(
        tmp_path / "out.jsonl", "generic", "generic.jsonl", maps={**maps, "id": "$.key"}
    )
    assert {id: (row.document, row.answer, row.group, row.gold) for id, row in rows.items()} == {
        "a": ("Receipt 1", '{"total": 1.5}', "7", {"total": 1.5}),
        "b": ("Receipt 2", '{"total":2.5}', "8", {"total": 2.5}),
    }
    assert reasons(imported) == {
        "no answer": 1,
        "nothing lies where --map says": 1,
        "the gold answer is neither an object nor a text": 1,
    }


@pytest.mark.parametrize(
    ("maps", "said"),
    [
        ({}, "the messages are not mapped"),
        ({"input": "$.a"}, "the messages are not mapped"),
        ({"input": "$.a", "messages": "$.b"}, "both messages and input"),
        ({"inptu": "$.a", "output": "$.b"}, "Did you mean 'input'?"),
        ({"messages": "a.b"}, "'a.b' is not a path"),
        ({"messages": "$.a[*]"}, "is not a path"),
        ({"messages": "$..a"}, "is not a path"),
        ({"messages": "$.a["}, "is not a path"),
        ({"messages": "$.a\udcff"}, "is not a path"),
        ({"messages": "$['\udcff']"}, "is not a path"),
    ],
)
def test_a_map_that_names_no_place_is_refused(
    tmp_path: Path, maps: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as error:
        read(tmp_path / "out.jsonl", "generic", "generic.jsonl", maps=maps)
    assert said in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["openai-ft", "openai"])  # read once, and first for halves
def test_a_file_that_cannot_be_read_leaves_nothing_behind(tmp_path: Path, format: str) -> None:
    cut, out = tmp_path / "cut.json", tmp_path / "out.jsonl"
    cut.write_bytes(b'[{"messages": [')
    with pytest.raises(DataError, match="not one whole JSON array"):
        import_traces(ImportRequest(format, records.find_files([cut], but=out), {}), out, Quiet())
    assert list(tmp_path.iterdir()) == [cut]


def test_a_file_whose_name_is_not_utf8(tmp_path: Path) -> None:
    named = Path(os.fsdecode(os.fsencode(tmp_path) + b"/a\xff.jsonl"))
    try:
        named.write_bytes((SAMPLES / "openai_ft.jsonl").read_bytes())
    except OSError:
        pytest.skip("this file system has no such names")
    out = tmp_path / "out.jsonl"
    import_traces(
        ImportRequest("openai-ft", records.find_files([named], but=out), {}), out, Quiet()
    )
    assert traces.read(out)[0].id == "a\\xff-1"
