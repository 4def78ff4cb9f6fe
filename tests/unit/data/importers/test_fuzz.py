"""Importers on any input: no crash, no row lost without a reason, and only readable traces.

Records are arbitrary JSON, JSON made of the words that importers look for, and samples in which
something was exchanged, cut or repeated. OFFAPI_FUZZ=N tries N records of each kind instead of a
few.
"""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import msgspec
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from offapi.data import traces
from offapi.data.importers.importer import FORMATS, find_importer
from offapi.data.importers.pairs import Half, Others, noted_halves
from offapi.data.importers.records import ImportJob, RecordFile, find_files, read_jobs
from offapi.data.importers.shared.reasons import PAIRED, TOO_DEEP
from offapi.data.importers.worker import ImportedJob, ImportSettings, Worker
from offapi.files import jsonl

SAMPLES = Path(__file__).parents[3] / "samples" / "traces"
FUZZ = settings(
    max_examples=int(os.environ.get("OFFAPI_FUZZ", "60")),
    deadline=None,
    suppress_health_check=list(HealthCheck),
    derandomize="OFFAPI_FUZZ" not in os.environ,
)
PREFIXES = {
    "openai-ft": "openai_ft",
    "agents-sdk": "agents",
    "openinference": "phoenix openinference",
}
MAPS = {
    "messages": "$.messages",
    "output": "$.output",
    "gold": "$.gold",
    "system": "$.system",
    "tools": "$.tools",
}


def records(format: str) -> list[Any]:
    """Return the records of a format's samples."""
    prefixes = tuple(PREFIXES.get(format, format).split())
    paths = [path for path in sorted(SAMPLES.iterdir()) if path.name.startswith(prefixes)]
    found = [
        record
        for job in read_jobs(find_files(paths, but=SAMPLES / "none"), START)
        for record in job.records
    ]
    return [msgspec.json.decode(record) for record in found if record.strip()]


START = {"file": 0, "at": 0, "records": 0}
RECORDS = {format: records(format) for format in FORMATS}


def words(value: Any) -> set[str]:
    """Return keys and short texts in a value."""
    if isinstance(value, dict):
        return set(value) | {word for each in value.values() for word in words(each)}
    if isinstance(value, list):
        return {word for each in value for word in words(each)}
    return {value} if isinstance(value, str) and len(value) < 40 else set()


WORDS = sorted(
    words(list(RECORDS.values()))
    | {"model", "refusal", "image", "thinking", "0", "1", "message", "call"}
)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    TEXTS,
)
KEYS = st.one_of(st.sampled_from(WORDS), TEXTS)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(KEYS, inner, max_size=6),
        inner.map(lambda value: msgspec.json.encode(value).decode()),  # JSON in a text
    ),
    max_leaves=20,
)


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the paths to everything in a value."""
    pairs = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    return [at, *(place for key, each in pairs for place in places(each, (*at, key)))]


@st.composite
def mutated(draw: st.DrawFn, format: str) -> Any:
    """Return a sample in which one to three things were changed."""
    value = copy.deepcopy(draw(st.sampled_from(RECORDS[format])))
    for _ in range(draw(st.integers(1, 3))):
        way = draw(st.sampled_from(places(value)))
        if not way:
            continue
        holder = value
        for step in way[:-1]:
            holder = holder[step]
        match draw(st.sampled_from(["exchange", "remove", "repeat", "wrap", "write"])):
            case "exchange":
                holder[way[-1]] = draw(VALUES)
            case "remove":
                del holder[way[-1]]
            case "repeat" if isinstance(holder, list):
                holder.append(copy.deepcopy(holder[way[-1]]))
            case "wrap":
                holder[way[-1]] = [holder[way[-1]]]
            case "write":
                holder[way[-1]] = msgspec.json.encode(holder[way[-1]]).decode()
    return value


def check(format: str, *values: Any, others: Path | None = None) -> ImportedJob:
    """Check that every record gives a row or a reason, and that each row is a trace."""
    maps = MAPS if format == "generic" else {}
    worker = Worker(ImportSettings(format, maps, others))
    lines = tuple(map(msgspec.json.encode, values))
    done = worker.work(ImportJob(RecordFile(Path("x.jsonl"), "x.jsonl", 0), 1, lines, {}, 0))
    rows = list(done.rows())
    if others is None:
        assert {row.record for row in rows} == set(range(1, len(values) + 1))
    for row in rows:
        assert row.dropped is None or "please report" not in row.dropped.reason, row.dropped
        if row.dropped is None:
            read = traces.parse(jsonl.parse(Path("x.jsonl"), row.record, row.line))
            assert read.id == row.id
            assert read.messages[-1].get("content") or read.messages[-1].get("tool_calls")
    return done


@pytest.mark.parametrize("format", FORMATS)
@FUZZ
@given(data=st.data())
def test_any_json_gives_rows_or_reasons(format: str, data: st.DataObject) -> None:
    check(format, data.draw(VALUES))


@pytest.mark.parametrize("format", FORMATS)
@FUZZ
@given(data=st.data())
def test_a_changed_sample_gives_rows_or_reasons(format: str, data: st.DataObject) -> None:
    check(format, data.draw(mutated(format)))


@pytest.mark.parametrize("format", ["openai", "anthropic"])
@FUZZ
@given(data=st.data())
def test_no_half_of_a_batch_is_lost(
    format: str, data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Requests with a result give no row of their own; everything else does."""
    values = data.draw(
        st.lists(st.one_of(mutated(format), st.sampled_from(RECORDS[format])), max_size=6)
    )
    importer = find_importer(format, {})
    assert importer.halves is not None
    found: list[Half] = [
        half for value in values if isinstance(value, dict) for half in importer.halves(value)
    ]
    with noted_halves(tmp_path_factory.mktemp("join") / "join", found) as path:
        done = check(format, *values, others=path)
        others = Others(path)
        results = {half.key for half in found if half.request is None}
        paired = sum(half.request is not None and half.key in results for half in found)
        whole = [
            value
            for value in values
            if not (isinstance(value, dict) and list(importer.halves(value)))
        ]
        rows = [row for row in done.rows() if row.dropped != PAIRED]
        assert len(list(done.rows())) - len(rows) == paired
        assert len(rows) >= len(found) - paired + len(whole)
        others.close()


@FUZZ
@given(st.binary(max_size=300))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    worker = Worker(ImportSettings("openai", {}, None))
    rows = list(
        worker.work(
            ImportJob(RecordFile(Path("x"), "x", 0), 1, tuple(data.split(b"\n")), {}, 0)
        ).rows()
    )
    assert len(rows) >= sum(bool(line.strip()) for line in data.split(b"\n"))


def test_numbers_and_nesting_beyond_json_are_a_reason() -> None:
    chat: Any = {
        "messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    }
    deep: Any = {}
    for _ in range(400):
        deep = {"a": deep}
    done = check(
        "openai-ft",
        *({**chat, "tools": [{"function": {"name": value}}]} for value in (deep, 2**70)),
    )
    assert [row.dropped for row in done.rows()] == [TOO_DEEP] * 2
    line = b'{"messages":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    done = Worker(ImportSettings("openai-ft", {}, None)).work(
        ImportJob(RecordFile(Path("x"), "x", 0), 1, (line,), {}, 0)
    )
    assert [row.dropped and row.dropped.reason for row in done.rows()] == ["not JSON"]


def test_orjson_writes_what_msgspec_reads() -> None:
    """Both are used, so they must agree on texts."""
    text = "".join(map(chr, [*range(0x20, 0x300), 0x2028, 0xFFFD, 0x1F600]))
    assert (
        msgspec.json.decode(orjson.dumps(text)) == text == orjson.loads(msgspec.json.encode(text))
    )
