"""Guess the format of a file that does not have the format the user named.

A format is named only where it loses none of a row's texts, and takes no row that another format
refuses because it failed, was shortened or the like. Left out: using the guess without being asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import orjson

from offapi.data.importers import importer, records
from offapi.data.importers.importer import Outcome
from offapi.data.importers.records import RecordFile
from offapi.data.importers.shared.loose_json import Json, opened
from offapi.data.importers.shared.reasons import GUARDS, Dropped
from offapi.data.traces import Trace

RECORDS = 20  # to try
GOLD = frozenset(
    {
        *("expected", "expected_output", "expectedOutput", "gold", "reference", "reference_answer"),
        *("ground_truth", "label", "labels", "target", "rejected", "non_preferred_output"),
    }
)
GOLD_NAME = re.compile(r"(reference|expected|correct|gold|target|ground_truth)", re.IGNORECASE)
ABOUT = frozenset(  # keys whose texts are about a call, and not what was asked or answered
    {
        *("metadata", "headers", "params", "model_parameters", "modelParameters", "tools", "usage"),
        *("tool_definitions", "toolDefinitions", "functions", "error", "name", "tags", "status"),
        *("resource", "scope", "session", "hidden_params", "proxy_server_request", "extra", "info"),
        *("startTime", "endTime", "start_time", "end_time", "timestamp", "created_at", "scores"),
        *("serialized", "summary", "reasoning", "status_message", "statusMessage", "logs"),
    }
)


def better_format(named: str, given: Sequence[RecordFile]) -> str:
    """Return the format, other than the one `named`, that reads most of the first records.

    "" where no format reads any of them whole.
    """
    job = next(records.read_jobs(given, {"file": 0, "at": 0, "records": 0}), None)
    if job is None:
        return ""
    usable = dict.fromkeys([each for each in importer.FORMATS if each not in (named, "generic")], 0)
    for record in job.records[:RECORDS]:
        for format in _readers(record, list(usable)):
            usable[format] += 1
    best = max(usable, key=lambda format: usable[format])
    return best if usable[best] else ""


def best_reader(given: Sequence[RecordFile]) -> str:
    """Return the format that reads most of the first records, those read whole first.

    What other formats say of them does not count. "" where no format reads any.
    """
    job = next(records.read_jobs(given, {"file": 0, "at": 0, "records": 0}), None)
    formats = [format for format in importer.FORMATS if format != "generic"]
    usable = dict.fromkeys(formats, 0)
    for record in job.records[:RECORDS] if job is not None else ():
        try:
            value = msgspec.json.decode(record)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue
        for format in formats:
            outcomes = _outcomes(format, value)
            kept = [each for each in outcomes if not isinstance(each, Dropped)]
            if any(isinstance(each, Trace) for each in kept) or (kept and _names_gold(value)):
                usable[format] += 1 if _loses_text(value, outcomes) else RECORDS
    best = max(usable, key=lambda format: usable[format])
    return best if usable[best] else ""


def _names_gold(record: Mapping[str, Json]) -> bool:
    """Return whether a key of the record is called as a known answer is."""
    return any(GOLD_NAME.match(name) or name in GOLD for name in record)


def _readers(record: bytes, formats: Sequence[str]) -> list[str]:
    """Return the formats that read `record` whole; none where one of them refuses it."""
    try:
        value = msgspec.json.decode(record)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return []
    readers: list[str] = []
    for format in formats:
        outcomes = _outcomes(format, value)
        reasons = [each.reason for each in outcomes if isinstance(each, Dropped)]
        if any(reason in GUARDS for reason in reasons):
            return []
        if len(reasons) < len(outcomes) and not _loses_text(value, outcomes):
            readers.append(format)
    return readers


def _outcomes(format: str, value: Json) -> list[Outcome]:
    if not isinstance(value, dict):
        return []
    try:
        return list(importer.find_importer(format, {}).rows(value))
    except Exception:  # an importer that cannot read the row is not named
        return []


def _loses_text(record: Mapping[str, Json], outcomes: Sequence[Outcome]) -> bool:
    """Return whether a text or a known answer in `record` is in none of its rows."""
    kept = [each for each in outcomes if not isinstance(each, Dropped)]
    rows = [each.messages if isinstance(each, Trace) else each.text for each in kept]
    golds = [each.gold for each in kept]
    said = list(_texts([opened(orjson.dumps(row).decode()) for row in rows]))
    if not any(golds) and any(record.get(name) not in (None, "", [], {}) for name in GOLD):
        return True
    whole = "\n".join([*said, *_texts(golds)])
    return any(text.strip() not in whole for text in _texts(record) if " " in text.strip())


def _texts(value: Json) -> Iterator[str]:
    """Yield the texts in a value, also in JSON that is a text, but for those about a call."""
    content = opened(value)
    if isinstance(content, str):
        yield content
    elif isinstance(content, dict):
        for name, each in content.items():
            if name not in ABOUT:
                yield from _texts(each)
    elif isinstance(content, list | tuple):
        for each in content:
            yield from _texts(each)
