"""Why a row gives no trace. The reasons are few and fixed, so that they can be counted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from offapi.files.contents import save_as_utf_8
from offapi.text.display import safe_line

KEYS = 8  # named in a hint
MAP = (
    "If they hold a question and its answer, use the generic format with --map input=$.PATH --map"
    " output=$.PATH."
)


@dataclass(frozen=True)
class Dropped:
    """A row that gives no trace.

    `hint`: how to record it better; `detail`: what was found, for an error. `malformed`: the row
    does not have its format's form, which --strict refuses. Other rows are well formed, but teach
    nothing.
    """

    reason: str
    hint: str = ""
    malformed: bool = False
    detail: str = ""


class Unusable(Exception):
    """Raised where a row turns out to give no trace."""

    def __init__(self, dropped: Dropped, detail: str = "") -> None:
        self.dropped = (
            Dropped(dropped.reason, dropped.hint, dropped.malformed, detail) if detail else dropped
        )
        super().__init__(dropped.reason)


NOT_JSON = Dropped("not JSON", malformed=True)
NOT_UTF_8 = Dropped("not UTF-8", save_as_utf_8(), malformed=True)
NOT_AN_OBJECT = Dropped("not a JSON object", malformed=True)
NOTHING_IN_IT = Dropped("nothing in it that could be a row")
TOO_DEEP = Dropped("nested too deeply, or a number beyond 64 bits", malformed=True)

NO_MESSAGES = Dropped("no messages")
NO_PROMPT = Dropped("no prompt: only an answer is recorded")
NO_ANSWER = Dropped("no answer")
EMPTY_PROMPT = Dropped("an empty prompt: nothing was asked")
EMPTY_TURN = Dropped("an empty answer in an earlier turn")
NOT_ANSWERED = Dropped("the last message is not the assistant's")
NOT_A_CALL = Dropped("not a model's answer: another kind of record")
NOT_A_CHAT = Dropped(
    "not a chat", "For text completions use the generic format with --map input= and --map output=."
)
DUPLICATE = Dropped("duplicate")

TOOL_INCOMPLETE = Dropped("tool-incomplete: a tool call in an earlier turn has no result")
CUT_OFF = Dropped("cut off at the token limit")
FILTERED = Dropped("stopped by a content filter")
REFUSED = Dropped("the model refused")
FAILED = Dropped("the call failed")
PAUSED = Dropped("not finished: paused for a tool of the provider")
STREAMED = Dropped("streamed pieces", "Log the assembled response instead of its chunks.")
CACHE_HIT = Dropped("cache hit: the answer was not made for this request")
REDACTED = Dropped("content was redacted or shortened when it was logged")
CUT_SHORT = Dropped(
    "cut short by a length limit when it was recorded",
    "Raise OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT and OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT, or the"
    " limit of the collector, where the application runs, and record again.",
)
PARTS_LOST = Dropped(
    "the record says that parts of it were dropped when it was recorded",
    "Raise OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT, OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT and"
    " OTEL_SPAN_EVENT_COUNT_LIMIT where the application runs, and record again.",
)
GAP = Dropped(
    "one of its numbered messages or parts is missing",
    "Raise OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT where the application runs, and record again.",
)
WEIGHTLESS = Dropped("weight 0: nothing in it is to be learned")

IMAGE = Dropped("holds an image")
AUDIO = Dropped("holds audio or video")
DOCUMENT = Dropped("holds a file or document that is not text")
UNKNOWN_CONTENT = Dropped("holds content of an unknown kind")
HOSTED_TOOL = Dropped("uses a tool of the provider or a custom tool, which no local model has")
EARLIER = Dropped("continues a conversation whose beginning is not recorded")

BAD_MESSAGE = Dropped("a message is not an object with a role and text", malformed=True)
ODD_MESSAGE = Dropped(
    "looks like a message, but has keys that no message has",
    "Use the generic format with --map to the text itself, for instance --map"
    " output=$.output.content.",
)
NOT_ONE_ANSWER = Dropped(
    "the answer holds other messages than the model's",
    "Use the generic format with --map messages=$.PATH where one list holds the whole chat.",
)
BAD_ROLE = Dropped("a message's role is unknown", malformed=True)
BAD_CALL = Dropped("a tool call has no name, or is not an object", malformed=True)
BAD_TOOLS = Dropped("tools are not a list of definitions", malformed=True)
BAD_WEIGHT = Dropped("a weight is not 0 or 1", malformed=True)

UNREAD = "recorded in a shape that this format does not read"
# Reasons of rows that a format did not recognise, or whose answer it looks for elsewhere; it
# refused all others on purpose.
UNRECOGNISED = frozenset(
    {UNREAD, NO_ANSWER.reason}
    | {each.reason for each in (NOT_A_CALL, NO_MESSAGES, NOTHING_IN_IT, BAD_ROLE)}
)

# Reasons of rows that must not be taken by another format either.
GUARDS = frozenset(
    each.reason
    for each in (
        *(FAILED, CACHE_HIT, REDACTED, CUT_SHORT, PARTS_LOST, GAP, CUT_OFF, FILTERED, REFUSED),
        *(PAUSED, WEIGHTLESS, EMPTY_PROMPT, ODD_MESSAGE, TOOL_INCOMPLETE, IMAGE, AUDIO, DOCUMENT),
    )
)


def unread(found: Mapping[str, object], way: str = "") -> Dropped:
    """Return the reason for a record in an unknown shape, whose hint names the keys it has."""
    keys = ", ".join(safe_line(key, 60) for key in [*found][:KEYS])
    more = ", ..." if len(found) > KEYS else ""
    return Dropped(UNREAD, f"It has the keys {keys}{more}. {way or MAP}")


# Not a row of its own, so not counted as dropped.
PAIRED = Dropped("a request that is part of its result's row")
NO_REQUEST = Dropped("a result without its request", "Also name the file with the requests.")
NO_RESULT = Dropped("a request without a result", "Also name the file with the results.")
AMBIGUOUS = Dropped("its custom_id belongs to several requests", "Import one batch at a time.")
