"""OpenAI's chat completions as bytes: what is sent, and what a reply means.

Replies are judged, never trusted: servers differ, and proxies answer in their place.
Left out: streaming, tools, several choices.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from typing import Any

import orjson

from offapi.errors import TeacherError
from offapi.teachers.teacher import Request, Usage
from offapi.text.display import safe_line

AGAIN = {408, 425, 429, *range(500, 600)}  # HTTP statuses worth another try
REASON_CHARACTERS = 300  # some servers echo the whole request in an error


@dataclass(frozen=True)
class Reply:
    """One reply. With `reason` it is no answer;
    `again` says that the same request may yet get one.
    """

    output: str = ""
    reason: str = ""
    usage: Usage | None = None  # None: not known, and may be charged
    status: int = 0  # HTTP's; 0: there was no reply
    again: bool = False
    wait: float | None = None  # seconds the server asks to be left alone
    unsupported: str = ""  # the request's parameter that this model does not take


def request_body(request: Request, model: str | None, options: Mapping[str, Any]) -> bytes:
    """The request as JSON. Without `model` the server's own default answers."""
    named = {"model": model} if model else {}
    return orjson.dumps({**named, "messages": request.messages, **options})


def read_reply(status: int, headers: Mapping[str, str], content: bytes) -> Reply:
    """What the reply means. TeacherError when no other
    request could fare better (key, quota, address).
    """
    if 200 <= status < 300:
        return _completion(content)
    error = _error(content)
    reason = f"HTTP {status}" + (f": {error['message']}" if error["message"] else "")
    if status in (401, 402) or error["code"] == "insufficient_quota":
        hint = (
            "Name the environment variable that holds your key with --api-key-env, and see that the"
            " account pays."
        )
        raise TeacherError(f"the teacher refused access ({reason}).", next_step=hint)
    if status in (404, 405) or 300 <= status < 400:
        hint = (
            "Check the address (it ends in /v1 with most servers) and --model. Redirects are not"
            " followed."
        )
        to = (
            f" It redirects to {clean(headers['location'])}."
            if 300 <= status < 400 and "location" in headers
            else ""
        )
        raise TeacherError(f"nothing answers there ({reason}).{to}", next_step=hint)
    refused = Reply(reason=reason, status=status, usage=Usage())
    if status == 400 and error["code"].startswith("unsupported"):
        return replace(refused, unsupported=error["param"])
    wait = retry_after(headers.get("retry-after", ""))
    return replace(refused, again=status in AGAIN, wait=wait if status in AGAIN else None)


def retry_after(value: str, now: float | None = None) -> float | None:
    """Seconds from now that a Retry-After header names (RFC 9110, 10.2.3): a number or a date.

    None: none readable.
    """
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - (
                time.time() if now is None else now
            )
        except ValueError:
            return None
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def clean(text: str) -> str:
    """`text` from a server as one line that fits a reason."""
    return safe_line(text, REASON_CHARACTERS)


def describe_failure(error: Exception) -> str:
    """What an exception of the HTTP client says, or at least its name."""
    return clean(str(error)) or type(error).__name__


def _completion(content: bytes) -> Reply:
    try:
        value = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        return Reply(reason=f"malformed JSON: {clean(str(error))}")
    try:
        choice = value["choices"][0]
        message = choice["message"]
        text, refusal, finish = (
            message.get("content"),
            message.get("refusal"),
            choice.get("finish_reason"),
        )
    except (KeyError, IndexError, TypeError, AttributeError):
        if isinstance(value, dict) and value.get("error"):
            return Reply(reason=f"error: {_error(content)['message']}")
        return Reply(reason=f"no choices: {clean(content.decode('utf-8', 'replace'))}")
    usage = _usage(value.get("usage"))
    if text is not None and not isinstance(text, str):
        return Reply(reason="content is not text", usage=usage)
    return Reply(text or "", _fault(text, refusal, finish), usage)


def _fault(text: str | None, refusal: object, finish: object) -> str:
    """Why a well-formed completion is no answer; empty when it is one."""
    if finish == "length":
        return "truncated"
    if finish == "content_filter":
        return "content_filter"
    if refusal:
        return f"refused: {clean(str(refusal))}"
    if text is None:
        return "no content"
    return "" if text.strip() else "empty answer"


def _usage(value: object) -> Usage | None:
    if not isinstance(value, dict):
        return None
    counts = [value.get("prompt_tokens"), value.get("completion_tokens", 0)]
    prompt, completion = (n if isinstance(n, int) and n >= 0 else None for n in counts)
    return None if prompt is None or completion is None else Usage(prompt, completion)


def _error(content: bytes) -> dict[str, str]:
    """Message, code and param of an error reply, in
    OpenAI's shape or the simpler ones servers use.
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
