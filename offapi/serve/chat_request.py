"""The body of POST /v1/chat/completions, read and checked before anything is computed.

What cannot be done as asked is refused: no parameter is dropped silently but those that have no
effect on an answer. Left out: its messages and tools (`offapi.serve.chat_messages`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from offapi.serve.chat_messages import Message, read_messages, read_tools
from offapi.serve.errors import ApiError, wrong
from offapi.serve.limits import ServerLimits
from offapi.text.display import plural

# Parameters without an effect here, which clients send by default.
IGNORED = frozenset(
    (
        "metadata",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "user",
    )
)

# Parameters that are not served, with the values that ask for nothing.
NEUTRAL: Mapping[str, Sequence[Any]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None, "none"),
    "repetition_penalty": (None, 1),
    "verbosity": (None, "medium"),
    "web_search_options": (None,),
}
_NAME = re.compile(r"[a-z][a-z0-9_]{0,39}")
_PATH = re.compile(r"\$\.([a-z_]+)")


class StreamOptions(msgspec.Struct):
    """How a streamed answer is sent."""

    include_usage: bool = False
    include_obfuscation: bool = False


class ResponseFormat(msgspec.Struct):
    """What the answer must be: text, any JSON object, or JSON of a schema."""

    type: str = "text"
    json_schema: dict[str, Any] | None = None


class ChatBody(msgspec.Struct):
    """The parameters that are served, as the body has them."""

    model: str
    messages: list[dict[str, Any]]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    n: int | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    stop: str | list[str] | None = None
    seed: int | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    response_format: ResponseFormat | None = None
    store: bool | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None


@dataclass(frozen=True)
class ChatRequest:
    """A checked request. `max_tokens` is None where the request leaves the limit to the server."""

    model: str
    messages: tuple[Message, ...]
    stream: bool = False
    include_usage: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    n: int = 1
    max_tokens: int | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: bool = False
    top_logprobs: int = 0
    format: ResponseFormat = ResponseFormat()
    store: bool = True  # false: never kept as a trace
    tools: tuple[Mapping[str, Any], ...] = ()  # that the model may call
    parallel_tool_calls: bool = True  # false: a turn has one call at most


def read_chat_request(body: bytes, limits: ServerLimits) -> ChatRequest:
    """Return the request in `body`. Raise ApiError (400) for what is wrong with it."""
    members = _members(body, limits)
    try:
        given = msgspec.convert(members, ChatBody)
    except msgspec.ValidationError as error:
        raise _misfit(error) from None
    _check_others(members)
    _check_bounds(given, limits)
    stops = [given.stop] if isinstance(given.stop, str) else given.stop or []
    options = given.stream_options or StreamOptions()
    return ChatRequest(
        model=given.model,
        messages=read_messages(given.messages, limits),
        stream=given.stream or False,
        include_usage=options.include_usage,
        temperature=given.temperature or 0.0,
        top_p=1.0 if given.top_p is None else given.top_p,
        top_k=max(given.top_k or 0, 0),
        min_p=given.min_p or 0.0,
        n=1 if given.n is None else given.n,
        max_tokens=given.max_completion_tokens or given.max_tokens,
        stop=tuple(stops),
        seed=given.seed,
        logprobs=given.logprobs or False,
        top_logprobs=given.top_logprobs or 0,
        format=given.response_format or ResponseFormat(),
        store=given.store is not False,
        tools=read_tools(given.tools, given.tool_choice, limits),
        parallel_tool_calls=given.parallel_tool_calls is not False,
    )


def _members(body: bytes, limits: ServerLimits) -> dict[str, Any]:
    """Return the body's object. Raise ApiError where it is none, or nested too deeply."""
    if _depth(body) > limits.depth:
        raise ApiError(400, f"The body is nested more than {limits.depth} levels deep.")
    try:
        members = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise ApiError(400, "The body is not valid JSON in UTF-8.") from None
    if not isinstance(members, dict):
        raise ApiError(400, "The body must be a JSON object.")
    return members


def _depth(body: bytes) -> int:
    """Return how deeply objects and lists are nested, without reading them."""
    depth = deepest = 0
    # A string without an end is one match too: retried at each of its quotes it would take hours.
    for mark in re.findall(rb'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', body, re.DOTALL):
        if mark in (b"[", b"{"):
            depth += 1
            deepest = max(deepest, depth)
        elif mark in (b"]", b"}"):
            depth -= 1
    return deepest


def _misfit(error: msgspec.ValidationError) -> ApiError:
    """Return the error for a member of a wrong type, named without its value."""
    text = str(error)
    place = _PATH.search(text)
    if "missing required field" in text:
        name = "model" if "`model`" in text else "messages"
        return wrong(name, f"The parameter {name!r} is missing.", "missing_required_parameter")
    name = place[1] if place else "body"
    return wrong(name, f"The parameter {name!r} has a wrong type.", "invalid_type")


def _check_others(members: Mapping[str, Any]) -> None:
    """Raise ApiError for a parameter that asks for something that is not served."""
    for name, value in members.items():
        if name in ChatBody.__struct_fields__ or name in IGNORED:
            continue
        if name not in NEUTRAL:
            known = name if _NAME.fullmatch(name) else None
            raise ApiError(
                400,
                "The request has a parameter that this server does not know.",
                param=known,
                code="unknown_parameter",
            )
        if value not in NEUTRAL[name]:
            raise wrong(name, f"{name!r} is not served.", "unsupported_parameter")


def _check_bounds(given: ChatBody, limits: ServerLimits) -> None:
    """Raise ApiError for a number out of its bounds."""
    bounds: dict[str, tuple[float, float]] = {
        "temperature": (0, 2),
        "min_p": (0, 1),
        "top_k": (-1, 1 << 20),
        "n": (1, limits.choices),
        "max_tokens": (1, limits.max_tokens),
        "max_completion_tokens": (1, limits.max_tokens),
        "top_logprobs": (0, limits.top_logprobs),
        "seed": (-(2**63), 2**63 - 1),
    }
    for name, (low, high) in bounds.items():
        value = getattr(given, name)
        if value is not None and not low <= value <= high:
            raise wrong(name, f"{name!r} must be from {low:g} to {high:g}.", "invalid_value")
    if given.top_p is not None and not 0 < given.top_p <= 1:
        raise wrong("top_p", "'top_p' must be above 0 and at most 1.", "invalid_value")
    if given.top_logprobs and not given.logprobs:
        raise wrong("top_logprobs", "'top_logprobs' needs 'logprobs' to be true.", "invalid_value")
    stops = [given.stop] if isinstance(given.stop, str) else given.stop or []
    longest = max(map(len, stops), default=1)
    if len(stops) > limits.stops or not 0 < longest <= limits.stop_characters or "" in stops:
        message = (
            f"'stop' must be at most {limits.stops} texts, each of 1 to"
            f" {plural(limits.stop_characters, 'character')}."
        )
        raise wrong("stop", message, "invalid_value")
