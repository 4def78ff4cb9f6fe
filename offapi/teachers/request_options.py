"""The parameters of an endpoint's requests, respelled or dropped as the server asks.

Left out: when a request is sent again (`session`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from offapi.teachers.chat_completions import FORMAT, Reply
from offapi.teachers.connection import Connection
from offapi.teachers.teacher import Request


class RequestOptions:
    """What is sent besides the messages; `say` gets a sentence when a schema is refused."""

    def __init__(self, values: Mapping[str, Any], say: Callable[[str], None]) -> None:
        self.values, self.say = dict(values), say

    async def post(
        self, connection: Connection, request: Request, *, with_schema: bool = True
    ) -> Reply:
        """Make one attempt, and another at once when only a parameter is wrong.

        A server that answers without the schema only is asked without it from then on.
        """
        options = dict(self.values)
        if not with_schema:
            options.pop(FORMAT, None)
        reply = await connection.post(request, options)
        if reply.unsupported in options and reply.unsupported != FORMAT:
            self._respell(reply.unsupported)
            return await self.post(connection, request, with_schema=with_schema)
        if FORMAT not in options or not reply.refuses_schema:
            return reply
        bare = await self.post(connection, request, with_schema=False)
        if bare.status < 400 and not bare.again and self.values.pop(FORMAT, None):
            what = "The teacher refused the task's schema; it is asked without"
            self.say(f"{what} ({reply.reason}).")
        return bare

    def _respell(self, parameter: str) -> None:
        """Rename or drop a parameter: newer models reject `max_tokens` and the temperature."""
        value = self.values.pop(parameter, None)
        if parameter == "max_tokens" and value is not None:
            self.values["max_completion_tokens"] = value
