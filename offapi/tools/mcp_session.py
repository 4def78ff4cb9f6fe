"""The MCP server of one episode, from its first call to the episode's end.

Left out: which tools it has (`offapi.tools.mcp_server`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from offapi.tools.mcp_server import McpSource, first_cause


class McpSession:
    """A running server of one episode, started at its first call. Use it in one event loop."""

    def __init__(self, source: McpSource) -> None:
        self._source = source
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._client: asyncio.Future[Any] | None = None

    async def call(self, name: str, arguments: Mapping[str, Any]) -> tuple[str, bool]:
        """Return the text of the result, and whether the server calls it an error."""
        if self._task is None or self._client is None:
            self._client = asyncio.get_running_loop().create_future()
            self._task = asyncio.create_task(self._run(self._client))
        client = await asyncio.shield(self._client)
        result = await client.call_tool(name.removeprefix(self._source.prefix), dict(arguments))
        said = [getattr(each, "text", f"[{each.type}]") for each in result.content]
        return "\n".join(said), bool(result.is_error)

    async def close(self) -> None:
        """Stop the server."""
        self._stop.set()
        if self._task is not None:
            await asyncio.wait([self._task])

    async def _run(self, started: asyncio.Future[Any]) -> None:
        """Hold the client open; its library wants it entered and left in one task."""
        try:
            async with self._source.client() as client:
                started.set_result(client)
                await self._stop.wait()
        except BaseException as error:
            if started.done():
                raise
            started.set_exception(first_cause(error))
