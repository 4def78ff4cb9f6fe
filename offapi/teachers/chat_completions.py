"""OpenAI's chat completions as bytes: what is sent, and what a reply means.

Replies are checked, never trusted: servers differ, and proxies answer in their place. Left out:
streaming, several choices.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from offapi.errors import TeacherError
from offapi.teachers.teacher import Request, Usage
from offapi.text.display import safe_line
from offapi.tools.calls import MalformedCall, ToolCall

AGAIN = {408, 425, 429, *range(500, 600)}  # HTTP statuses worth another attempt
FORMAT = "response_format"
MOST_TOKENS = 1 << 53  # beyond it a count is no longer exact in JSON
YEAR = 366 * 86400.0  # seconds; nobody waits longer
CALL_CHARACTERS = 1000  # of a call that cannot be read, which the model is shown again
REASON_CHARACTERS = 300  # some servers echo the whole request in an error


@dataclass(frozen=True)
class Reply:
    """One reply. If it has a `reason`, it is not an answer.

    `again` says that the same request may still get one.
    """

    output: str = ""
    reason: str = ""
    usage: Usage | None = None  # None: unknown, and may be charged
    status: int = 0  # HTTP's; 0: there was no reply
    again: bool = False
    wait: float | None = None  # seconds the server asks to wait
    unsupported: str = ""  # the request's parameter that this model does not accept
    calls: tuple[ToolCall | MalformedCall, ...] = ()  # of a request that had tools

    @property
    def refuses_schema(self) -> bool:
        """Whether the request may have failed because it asked for a schema."""
        if self.status in (400, 422):
            return True
        failed = self.status >= 500 or self.reason.startswith("error:")
        return failed and _ABOUT_SCHEMA.search(self.reason) is not None


_ABOUT_SCHEMA = re.compile(r"response_format|schema|grammar|guided|structured", re.IGNORECASE)


def schema_option(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the option that asks for answers of this JSON schema."""
    form = {"name": "answer", "schema": dict(schema)}
    return {FORMAT: {"type": "json_schema", "json_schema": form}}


def request_body(request: Request, model: str | None, options: Mapping[str, Any]) -> bytes:
    """Return the request as JSON. Without `model` the server's own default answers."""
    named = {"model": model} if model else {}
    tools = {"tools": request.tools} if request.tools else {}
    return orjson.dumps({**named, "messages": request.messages, **tools, **options})


def read_reply(
    status: int, headers: Mapping[str, str], content: bytes, *, with_tools: bool = False
) -> Reply:
    """Return what the reply means; calls count only where the request offered tools.

    Raise TeacherError when no other request could succeed either (key, quota, address).
    """
    if 200 <= status < 300:
        return _completion(content, with_tools)
    error = _error(content)
    reason = f"HTTP {status}" + (f": {error['message']}" if error["message"] else "")
    if status in (401, 402) or error["code"] == "insufficient_quota":
        hint = (
            "Name the environment variable with your key in --api-key-env, and check that the"
            " account can pay."
        )
        raise TeacherError(f"the teacher refused access ({reason}).", next_step=hint)
    if status in (404, 405) or 300 <= status < 400:
        hint = (
            "Check the address (with most servers it ends in /v1) and --model. Redirects are not"
            " followed."
        )
        to = ""
        if 300 <= status < 400 and "location" in headers:
            to = f" It redirects to {clean(headers['location'])}."
        raise TeacherError(
            f"the address does not answer chat completions ({reason}).{to}", next_step=hint
        )
    refused = Reply(reason=reason, status=status, usage=Usage())
    if status == 400 and error["code"].startswith("unsupported"):
        return replace(refused, unsupported=error["param"])
    wait = retry_after(headers.get("retry-after", ""))
    return replace(refused, again=status in AGAIN, wait=wait if status in AGAIN else None)


def retry_after(value: str, now: float | None = None) -> float | None:
    """Return the seconds from now that a Retry-After header names, as a number or a date.

    RFC 9110, 10.2.3. None: the header is unreadable.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (
                time.time() if now is None else now
            )
        except (ValueError, OverflowError):
            return None
    return min(max(seconds, 0.0), YEAR) if math.isfinite(seconds) else None


def clean(text: str) -> str:
    """Return `text` from a server as one line that fits into a reason."""
    return safe_line(text, REASON_CHARACTERS)


def describe_failure(error: Exception) -> str:
    """Return what an exception of the HTTP client says, or at least its name."""
    return clean(str(error)) or type(error).__name__


def _completion(content: bytes, with_tools: bool) -> Reply:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return Reply(reason=f"malformed JSON: {clean(str(error))}")
    try:
        choice = value["choices"][0]
        message = choice["message"]
        text, refusal = message.get("content"), message.get("refusal")
        called = message.get("tool_calls") if with_tools else None
        finish = choice.get("finish_reason")
    except (KeyError, IndexError, TypeError, AttributeError):
        if isinstance(value, dict) and value.get("error"):
            return Reply(reason=f"error: {_error(content)['message']}")
        return Reply(reason=f"no choices: {clean(content.decode('utf-8', 'replace'))}")
    usage = _usage(value.get("usage"))
    if text is not None and not isinstance(text, str):
        return Reply(reason="content is not text", usage=usage)
    if called is not None and not isinstance(called, list):
        return Reply(reason="tool_calls is not a list", usage=usage)
    calls = tuple(map(read_call, called or ()))
    return Reply(text or "", _fault(text, refusal, finish, bool(calls)), usage, calls=calls)


def read_call(call: object) -> ToolCall | MalformedCall:
    """Return the call that `call` of OpenAI's shape is, or why it is none."""
    function = call.get("function") if isinstance(call, dict) else None
    written = orjson.dumps(call if function is None else function).decode()[:CALL_CHARACTERS]
    if not isinstance(call, dict) or not isinstance(function, dict):
        return MalformedCall(written, "it is not an object with a function.")
    name, given = function.get("name"), function.get("arguments")
    if not isinstance(name, str) or not name:
        return MalformedCall(written, "it names no function.")
    try:
        arguments = orjson.loads(given or "{}") if isinstance(given, str | None) else given
    except orjson.JSONDecodeError as error:
        return MalformedCall(written, f"its arguments are not JSON: {clean(str(error))}.")
    if not isinstance(arguments, dict):
        return MalformedCall(written, "its arguments are not a JSON object.")
    return ToolCall(str(call.get("id") or ""), name, arguments)


def _fault(text: str | None, refusal: object, finish: object, called: bool) -> str:
    """Return why a well-formed completion is not an answer; empty when it is one."""
    if finish == "length":
        return "truncated"
    if finish == "content_filter":
        return "content_filter"
    if refusal:
        return f"refused: {clean(str(refusal))}"
    if called:
        return ""
    if text is None:
        return "no content"
    return "" if text.strip() else "empty answer"


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get("prompt_tokens"), value.get("completion_tokens", 0)]
    prompt, completion = (n if type(n) is int and 0 <= n < MOST_TOKENS else None for n in counts)
    return None if prompt is None or completion is None else Usage(prompt, completion)


def _error(content: bytes) -> dict[str, str]:
    """Return message, code and param of an error reply.

    It is in OpenAI's shape or in the simpler ones that servers use.
    """
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError:
        value = content.decode("utf-8", "replace")
    if isinstance(value, dict):
        value = next(
            (value[name] for name in ("error", "message", "detail") if value.get(name)), ""
        )
    fields = value if isinstance(value, dict) else {"message": value}
    return {name: clean(str(fields.get(name) or "")) for name in ("message", "code", "param")}
