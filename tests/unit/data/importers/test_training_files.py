"""Training files of other projects, documents within messages, and hints to other formats."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from imported_row import (
    ANSWER,
    ASKED,
    FOUND,
    SAID,
    USER,
    Quiet,
    Row,
    question_and_answer,
    read_row,
    why_dropped,
)

from offapi.data import rows
from offapi.data.documents import Document
from offapi.data.importers import records
from offapi.data.importers.run import Imported, ImportRequest, import_traces
from offapi.errors import DataError

SYSTEM = {"role": "system", "content": "Extract."}
ENCODED = base64.b64encode(ASKED.encode()).decode()
SHAREGPT = [{"from": "human", "value": ASKED}, {"from": "gpt", "value": ANSWER}]
CONTENTS = [
    {"role": "user", "parts": [{"text": ASKED}]},
    {"role": "model", "parts": [{"text": ANSWER}]},
]
FILES: dict[str, Row] = {
    "ShareGPT": {"conversations": SHAREGPT},
    "ShareGPT with roles": {"conversation": [USER, SAID]},
    "Gemini": {"contents": CONTENTS},
    "PaLM": {
        "messages": [
            {"author": "user", "content": ASKED},
            {"author": "bot", "content": ANSWER},
        ]
    },
    "TRL": {"prompt": [USER], "completion": [SAID]},
    "LangChain": {"messages": [{"type": "human", "content": ASKED}, {"type": "ai", "content": ANSWER}]},
}  # fmt: skip


@pytest.mark.parametrize("file", FILES)
def test_a_training_file_is_read(file: str) -> None:
    assert question_and_answer("openai-ft", FILES[file]) == (ASKED, ANSWER)


@pytest.mark.parametrize(
    "record",
    [
        {"system": "Extract.", "messages": [USER, SAID]},
        {"system": "Extract.", "conversations": SHAREGPT},
        {"systemInstruction": {"parts": [{"text": "Extract."}]}, "contents": CONTENTS},
        {"system_instruction": {"role": "system", "parts": [{"text": "Extract."}]}, "contents": CONTENTS},
    ],
)  # fmt: skip
def test_a_system_prompt_next_to_the_messages_is_kept(record: Row) -> None:
    assert read_row("openai-ft", record)["messages"] == [SYSTEM, USER, SAID]


def test_tools_of_sharegpt_and_gemini_are_read() -> None:
    called = {"from": "function_call", "value": '{"name": "look", "arguments": {"a": 1}}'}
    chat = [SHAREGPT[0], called, {"from": "observation", "value": "r"}, SHAREGPT[1]]
    tools = '[{"name": "look", "parameters": {}}]'
    first = read_row("openai-ft", {"conversations": chat, "tools": tools})
    call = {"functionCall": {"name": "look", "args": {"a": 1}}}
    result = {"functionResponse": {"name": "look", "response": {"r": 1}}}
    contents = [
        CONTENTS[0],
        {"role": "model", "parts": [call]},
        {"role": "user", "parts": [result]},
    ]
    declared = [{"functionDeclarations": [{"name": "look", "parameters": {}}]}]
    second = read_row("openai-ft", {"contents": [*contents, CONTENTS[1]], "tools": declared})
    for row in (first, second):
        assert [message["role"] for message in row["messages"]] == [
            "user",
            "assistant",
            "tool",
            "assistant",
        ]
        assert row["messages"][1]["tool_calls"][0]["function"]["name"] == "look"
        assert row["tools"][0]["function"]["name"] == "look"


ALPACA = {"instruction": "Extract.", "input": ASKED, "output": ANSWER}


def test_alpaca_keeps_the_instruction() -> None:
    assert read_row("alpaca", ALPACA)["messages"] == [SYSTEM, USER, SAID]
    assert read_row("alpaca", {**ALPACA, "input": ""})["messages"] == [
        {"role": "user", "content": "Extract."},
        SAID,
    ]
    own = read_row("alpaca", {**ALPACA, "system": "Be brief.", "history": [["a", "b"]]})
    assert [message["content"] for message in own["messages"]] == [
        "Be brief.",
        "a",
        "b",
        f"Extract.\n{ASKED}",
        ANSWER,
    ]
    assert why_dropped("alpaca", {**ALPACA, "output": ""}).reason == "no answer"


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": [USER], "chosen": [SAID], "rejected": [SAID]},
        {"chosen": [USER, SAID], "rejected": [USER, SAID]},
        {"input": {"messages": [USER]}, "preferred_output": [SAID], "non_preferred_output": [SAID]},
    ],
)
def test_a_preference_pair_names_the_way(record: Row) -> None:
    found = why_dropped("openai-ft", record)
    assert "pair" in found.reason
    assert "--map" in found.hint


@pytest.mark.parametrize(
    ("record", "maps"),
    [
        ({"prompt": [USER], "chosen": [SAID]}, {"input": "$.prompt", "output": "$.chosen"}),
        ({"chosen": [USER, SAID]}, {"messages": "$.chosen"}),
        (
            {"input": {"messages": [USER]}, "preferred_output": [SAID]},
            {"input": "$.input", "output": "$.preferred_output"},
        ),
        ({"c": SHAREGPT}, {"messages": "$.c"}),
        ({"c": {"contents": CONTENTS}}, {"messages": "$.c"}),
        (ALPACA, {"system": "$.instruction", "input": "$.input", "output": "$.output"}),
    ],
)
def test_the_ways_that_hints_name_work(record: Row, maps: dict[str, str]) -> None:
    assert question_and_answer("generic", record, **maps) == (ASKED, ANSWER)


def test_an_undesirable_answer_is_not_learned() -> None:
    record = {"prompt": [USER], "completion": [SAID], "label": False}
    assert "undesirable" in why_dropped("openai-ft", record).reason
    assert question_and_answer("openai-ft", {**record, "label": True}) == (ASKED, ANSWER)


GOLD = {"vendor": "Foo Ltd", "total": 12.5}


@pytest.mark.parametrize(
    ("record", "gold"),
    [
        ({"messages": [SYSTEM, USER], "reference_answer": GOLD}, GOLD),
        ({"messages": [USER], "reference_answer": json.dumps(GOLD), "difficulty": 3}, GOLD),
        ({"messages": [USER], **GOLD}, GOLD),
        ({"messages": [USER], "reference_answer": "yes"}, "yes"),
        ({"contents": CONTENTS[:1], "references": GOLD}, GOLD),
        ({"messages": [USER, SAID, USER], "answer": GOLD}, GOLD),
    ],
)
def test_an_example_for_reinforcement_is_a_document(record: Row, gold: Any, tmp_path: Path) -> None:
    out, imported = import_file(tmp_path, "openai-ft", record)
    (read,) = rows.read_rows(out)
    assert read == Document("in-1", ASKED, gold)
    assert (imported.usable, imported.documents) == (1, 1)


def test_an_example_without_a_usable_reference_says_so() -> None:
    listed = why_dropped("openai-ft", {"messages": [USER], "reference_answer": [1]})
    assert "known answer" in listed.reason
    assert "gold" in listed.hint
    bare = why_dropped("openai-ft", {"messages": [USER]})
    assert bare.reason == "the last message is not the assistant's"
    masked = {"messages": [{"role": "user", "content": "[REDACTED]"}], "answer": GOLD}
    assert "redacted" in why_dropped("openai-ft", masked).reason


def test_an_import_of_documents_resumes_without_their_duplicates(tmp_path: Path) -> None:
    record = {"messages": [USER], "answer": GOLD}
    out, imported = import_file(tmp_path, "openai-ft", record, record)
    assert (imported.usable, imported.dropped[0].reason) == (1, "duplicate")
    assert len(out.read_text().splitlines()) == 1


DOCUMENTS: dict[str, Row] = {
    "plain text": {"type": "document", "source": {"type": "text", "data": ASKED}},
    "contents": {
        "type": "document",
        "source": {"type": "content", "content": [{"type": "text", "text": ASKED}]},
    },
    "encoded text": {
        "type": "document",
        "source": {"type": "base64", "media_type": "text/plain", "data": ENCODED},
    },
    "search result": {
        "type": "search_result",
        "source": "s",
        "content": [{"type": "text", "text": ASKED}],
    },
    "file": {"type": "file", "file": {"file_data": f"data:text/plain;base64,{ENCODED}"}},
    "input file": {"type": "input_file", "file_data": f"data:text/plain;base64,{ENCODED}"},
    "Gemini's": {"inlineData": {"mimeType": "text/plain", "data": ENCODED}},
    "Converse's": {"document": {"format": "txt", "source": {"bytes": ENCODED}}},
    "OpenTelemetry's": {"type": "blob", "mime_type": "text/plain", "content": ENCODED},
}


@pytest.mark.parametrize("kind", DOCUMENTS)
@pytest.mark.parametrize("title", ["", "Invoice 7"])
def test_a_document_that_is_text_is_read_with_its_title(kind: str, title: str) -> None:
    titled = kind in ("plain text", "contents", "encoded text", "search result")
    block = {**DOCUMENTS[kind], **({"title": title} if title and titled else {})}
    asked = [{"role": "user", "content": [block, {"type": "text", "text": "Extract."}]}]
    read, _ = question_and_answer("openai-ft", {"messages": [*asked, SAID]})
    before = f"{title}\n" if title and titled else ""
    assert read == f"{before}{ASKED}\nExtract."


@pytest.mark.parametrize(
    ("block", "said"),
    [
        ({"type": "document", "source": {"type": "url", "url": "https://a/b"}}, "not text"),
        (
            {
                "type": "document",
                "source": {"type": "base64", "media_type": "application/pdf", "data": "JVBERi0="},
            },
            "not text",
        ),
        ({"type": "file", "file": {"file_id": "f"}}, "not text"),
        ({"type": "file", "mediaType": "image/png", "data": "aGk="}, "an image"),
        ({"fileData": {"mimeType": "image/png", "fileUri": "gs://a"}}, "an image"),
        ({"inlineData": {"mimeType": "audio/wav", "data": "aGk="}}, "audio"),
        ({"executableCode": {"code": "1"}}, "a tool of the provider"),
    ],
)
def test_other_media_are_named(block: Row, said: str) -> None:
    record = {"messages": [{"role": "user", "content": [block]}, SAID]}
    assert said in why_dropped("openai-ft", record).reason


def import_file(tmp_path: Path, format: str, *found: Row) -> tuple[Path, Imported]:
    """Import a file of records, and return the output and what became of the rows."""
    source, out = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_text("\n".join(map(json.dumps, found)))
    files = records.find_files([source], but=out)
    return out, import_traces(ImportRequest(format, files, {}), out, Quiet())


def refusal(tmp_path: Path, format: str, record: Row) -> str:
    """Return the error of an import whose one row is not usable."""
    with pytest.raises(DataError) as error:
        import_file(tmp_path, format, record)
    return str(error.value)


LITELLM = {"id": "x", "call_type": "acompletion", "status": "success", "startTime": 1790000000.0}
SHORTENED = {"role": "user", "content": "Foo ... (litellm_truncated 2000 chars) ..."}
GUARDED: list[tuple[str, Row]] = [
    ("litellm", {**LITELLM, "messages": [SHORTENED], "response": FOUND}),
    ("litellm", {**LITELLM, "messages": [USER], "response": FOUND, "status": "failure"}),
    ("openai-ft", {**LITELLM, "messages": [USER], "response": FOUND, "cache_hit": "True"}),
    ("openai-ft", {"prompt": [USER], "chosen": [SAID], "rejected": [SAID]}),
    ("langfuse", {"type": "GENERATION", "level": "ERROR", "input": [USER], "output": SAID}),
    ("anthropic", {"id": "o", "type": "GENERATION", "level": "ERROR", "input": ASKED, "output": "a"}),
]  # fmt: skip


@pytest.mark.parametrize(("format", "record"), GUARDED)
def test_no_other_format_is_named_past_a_guard(format: str, record: Row, tmp_path: Path) -> None:
    assert "looks like the format" not in refusal(tmp_path, format, record)


LOSSY: list[tuple[str, Row]] = [
    ("anthropic", {"instruction": "Do it well.", "messages": [USER, SAID]}),
    ("otel", {"question": ASKED, "messages": [USER, SAID], "expected": GOLD}),
]


@pytest.mark.parametrize(("format", "record"), LOSSY)
def test_no_format_is_named_that_loses_a_text_or_the_gold(
    format: str, record: Row, tmp_path: Path
) -> None:
    assert "looks like the format" not in refusal(tmp_path, format, record)


FITTING: list[tuple[str, Row, str]] = [
    ("openai-ft", ALPACA, "alpaca"),
    ("otel", {"messages": [SYSTEM, USER, SAID]}, "openai-ft"),
    ("openai-ft", {"request": {"messages": [USER]}, "response": FOUND}, "openai"),
    ("langfuse", {"run_type": "llm", "inputs": {"messages": [USER]}, "outputs": FOUND}, "openai"),
    ("openai", {"conversations": SHAREGPT}, "openai-ft"),
    ("openai", {"messages": [SYSTEM, USER, SAID]}, "openai-ft"),
    ("anthropic", {"messages": [SYSTEM, USER, SAID]}, "openai-ft"),
]


@pytest.mark.parametrize(("format", "record", "named"), FITTING)
def test_a_format_that_reads_the_rows_whole_is_named(
    format: str, record: Row, named: str, tmp_path: Path
) -> None:
    assert f"It looks like the format {named!r}." in refusal(tmp_path, format, record)


def test_gold_next_to_a_pair_is_kept() -> None:
    row = read_row("openai", {"input": [USER], "output": SAID, "expected": {"vendor": "Foo Ltd"}})
    assert row["gold"] == {"vendor": "Foo Ltd"}
    assert row["messages"] == [USER, SAID]
