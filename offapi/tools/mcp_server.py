"""MCP servers as tools: programs that speak the Model Context Protocol on stdin and stdout.

The official SDK (`pip install mcp`, version 2) is the client. Its server is started once for each
episode, and ends with it. Left out: servers behind a URL, since offapi works offline, and all of
the protocol but tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from offapi.errors import ConfigError, describe_error

LISTING = 30.0  # seconds that a server has to start and say its tools


class McpSource:
    """What speaks MCP and offers tools; `prefix` comes before their names."""

    prefix = ""

    @property
    def where(self) -> str:
        """Name it in errors."""
        raise NotImplementedError

    def client(self) -> Any:
        """Return the SDK's client, not yet started; ConfigError where the SDK is missing."""
        raise NotImplementedError

    def schemas(self) -> tuple[Mapping[str, Any], ...]:
        """Start it, and return its tools in OpenAI's shape.

        Raise ConfigError where it does not start or has none.
        """
        import asyncio  # 20 ms that most tasks do not need

        client = self.client()
        try:
            found = asyncio.run(asyncio.wait_for(_list(client, self.prefix), LISTING))
        except Exception as error:
            what = f"it does not say its tools: {describe_error(first_cause(error))}."
            step = "Run the command by hand: it must speak MCP on stdin and stdout."
            raise ConfigError(what, where=self.where, next_step=step) from None
        if not found:
            step = "Leave it out of `tools`, or see why it lists none."
            raise ConfigError("it has no tools.", where=self.where, next_step=step)
        return found


@dataclass(frozen=True)
class McpServer(McpSource):
    """A server's command; its tools are offered under the names that it gives them."""

    command: str
    arguments: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def where(self) -> str:
        """Name the server in errors."""
        return f"MCP server {' '.join([self.command, *self.arguments])!r}"

    def client(self) -> Any:
        """Return the SDK's client, not yet started; ConfigError where the SDK is missing."""
        try:
            from mcp import Client, StdioServerParameters
        except ImportError:
            step = "Install it: pip install 'offapi-kit[mcp]'."
            what = "MCP servers need the package `mcp`, version 2 or later."
            raise ConfigError(what, where=self.where, next_step=step) from None
        parameters = StdioServerParameters(
            command=self.command, args=list(self.arguments), env=dict(self.env)
        )
        return Client(parameters)


def mcp(command: str, *arguments: str, env: Mapping[str, str] | None = None) -> McpServer:
    """Return a server for `Task.tools`, started as `command` with `arguments`.

    It gets `env` and a few safe variables of this process, such as PATH; see the SDK's
    `get_default_environment`. Raise ConfigError for a URL.
    """
    if "://" in command:
        what = f"an MCP server must be a command, got {command!r}."
        step = "Start a server here that speaks MCP on stdin and stdout: offapi works offline."
        raise ConfigError(what, next_step=step)
    return McpServer(command, arguments, dict(env or {}))


async def _list(client: Any, prefix: str) -> tuple[Mapping[str, Any], ...]:
    async with client:
        page = await client.list_tools()
        tools = list(page.tools)
        while page.next_cursor:
            page = await client.list_tools(cursor=page.next_cursor)
            tools += page.tools
    return tuple(_schema(tool, prefix) for tool in tools)


def _schema(tool: Any, prefix: str) -> Mapping[str, Any]:
    function = {
        "name": prefix + tool.name,
        "description": tool.description or "",
        "parameters": tool.input_schema,
    }
    return {"type": "function", "function": function}


def first_cause(error: BaseException) -> BaseException:
    """Return the error that a group of tasks wraps."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
