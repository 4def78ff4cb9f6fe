"""Training files in alpaca's shape: an instruction, what it is about, and the answer.

    {"instruction": "...", "input": "...", "output": "...", "system"?, "history"?: [[asked, said]]}

The instruction becomes the system prompt of the input, or the question itself where there is no
input. With a `system` of its own, instruction and input are one question. Left out: the template
that other trainers put around them.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from offapi.data.importers.shared import reasons
from offapi.data.importers.shared.loose_json import Json, first, items, text
from offapi.data.importers.shared.reading import read_answer
from offapi.data.importers.shared.reasons import Dropped, Unusable
from offapi.data.importers.shared.trace_or_reason import build_trace
from offapi.data.traces import Trace

ANSWERS = ("output", "response", "completion", "answer")


def rows(record: Mapping[str, Json]) -> Iterator[Trace | Dropped]:
    """Yield the one row in `record`."""
    instruction, answer = text(record.get("instruction")), first(record, *ANSWERS)
    if "instruction" not in record or answer is None:
        yield reasons.unread(record)
        return
    given = text(first(record, "input", "context"))
    system = text(record.get("system"))
    if system or not given:
        question = "\n".join(filter(None, (instruction, given)))
    else:
        system, question = instruction, given
    messages: list[Json] = [{"role": "system", "content": system}] if system else []
    for pair in items(record.get("history")):
        asked, said = pair if isinstance(pair, list) and len(pair) == 2 else (None, None)
        messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    try:
        said = read_answer(answer)
    except Unusable as error:
        yield error.dropped
        return
    yield build_trace([*messages, {"role": "user", "content": question}], said, id=record.get("id"))
