"""The connection to an endpoint: one attempt at one request, with its reply or why there is none.

Left out: whether and when to retry (`session`), and what a reply means (`chat_completions`).
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from typing import Any

import httpx2

from offapi.teachers import chat_completions
from offapi.teachers.teacher import Request, Usage

PATH = "/chat/completions"
LARGEST_REPLY = 8 << 20  # bytes
CONNECT_SECONDS = 10.0


class Connection:
    """A client for the base `url`; `timeout` is in seconds, for one attempt."""

    def __init__(
        self, url: str, model: str | None, key: str | None, timeout: float, concurrency: int
    ) -> None:
        self.url = f"{url.rstrip('/')}{PATH}"
        self.model, self.key, self.timeout = model, key, timeout
        self._key = _spelled(key) if key else None
        headers = {"content-type": "application/json"}
        if key:
            headers["authorization"] = f"Bearer {key}"
        self.client = httpx2.AsyncClient(
            headers=headers,
            timeout=httpx2.Timeout(timeout, connect=min(CONNECT_SECONDS, timeout)),
            limits=httpx2.Limits(max_connections=concurrency),
            follow_redirects=False,
            trust_env=False,  # a proxy or a .netrc could reach other hosts or add other keys
        )

    async def post(self, request: Request, options: Mapping[str, Any]) -> chat_completions.Reply:
        """Make one attempt.

        A server that is unreachable, slow or breaks off is a reply too, with its reason.
        """
        content = chat_completions.request_body(request, self.model, options)
        try:
            async with asyncio.timeout(self.timeout):
                return await self._exchange(content, bool(request.tools))
        except (TimeoutError, httpx2.ReadTimeout, httpx2.WriteTimeout):
            return chat_completions.Reply(
                reason=f"timed out: no answer in {self.timeout:g} s", again=True
            )
        except (httpx2.ConnectError, httpx2.ConnectTimeout) as error:
            return chat_completions.Reply(
                reason=f"unreachable: {self._hide(chat_completions.describe_failure(error))}",
                again=True,
                usage=Usage(),
            )
        except httpx2.HTTPError as error:
            return chat_completions.Reply(
                reason=f"connection lost: {self._hide(chat_completions.describe_failure(error))}",
                again=True,
            )

    async def close(self) -> None:
        """Close what is open."""
        await self.client.aclose()

    async def _exchange(self, content: bytes, with_tools: bool) -> chat_completions.Reply:
        async with self.client.stream("POST", self.url, content=content) as response:
            received = b""
            async for chunk in response.aiter_bytes():
                received += chunk
                if len(received) > LARGEST_REPLY:
                    return chat_completions.Reply(reason=f"reply larger than {LARGEST_REPLY} bytes")
        # some servers quote the key in their errors
        headers = {name: self._hide(value) for name, value in response.headers.items()}
        body = self._hide(received.decode("latin-1")).encode("latin-1")
        status = response.status_code
        return chat_completions.read_reply(status, headers, body, with_tools=with_tools)

    def _hide(self, text: str) -> str:
        """Return `text` without the key."""
        return self._key.sub("[key]", text) if self._key else text


def _spelled(key: str) -> re.Pattern[str]:
    """Return a pattern for `key` as it is, and as JSON, URLs and HTML may escape any part of it."""
    letters = []
    for letter in key:
        code, quoted = f"{ord(letter):02x}", r"\\*" if letter in "/\"'\\" else ""
        ways = [quoted + re.escape(letter), rf"\\+u(?i:00{code})", f"%(?i:{code})"]
        ways += [f"&#0*{ord(letter)};", f"&#[xX]0*(?i:{code});"]
        letters.append(f"(?:{'|'.join(ways)})")
    return re.compile("".join(letters))
