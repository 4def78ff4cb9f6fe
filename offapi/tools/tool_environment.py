"""The environment of a task that offers plain tools: it calls them, and answers with their results.

Arguments are checked against the schema first. What a tool raises is the model's to read. Left out:
ending a tool that hangs, which its process's starter does (`offapi.agent.episode_host`).
"""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from itertools import chain, groupby
from pathlib import Path
from typing import Any, TypeVar

from offapi.data.documents import Document
from offapi.errors import ConfigError, describe_error, nearest
from offapi.tools.arguments import fault_of_arguments
from offapi.tools.calls import Observation, ToolCall, Turn
from offapi.tools.episode_state import EpisodeState
from offapi.tools.function_schema import state_parameters
from offapi.tools.mcp_server import McpSource
from offapi.tools.mcp_session import McpSession
from offapi.tools.offered import Schemas, ToolSource
from offapi.tools.results import (
    error_message,
    malformed_messages,
    result_message,
    result_text,
)

Message = dict[str, Any]
Resulting = TypeVar("Resulting")
# (place of the call in its turn, None as it begins, and its message and whether it failed)
OnCall = Callable[[int, tuple[Message, bool] | None], None]


class ToolEnvironment:
    """One episode of plain tools, sync and async."""

    def __init__(
        self,
        sources: Sequence[ToolSource],
        schemas: Sequence[Schemas],
        *,
        seconds: float | None = None,
        base: Path = Path(),
        on_call: OnCall = lambda place, result: None,
    ) -> None:
        """Offer `sources`, each with its `schemas`; `seconds` is the limit of an async call.

        `base` is that of `EpisodeState`. `on_call` hears of each call's begin and
        end, so that what was answered is not lost where a later call ends the process.
        """
        self.tools = tuple(chain(*schemas))
        self._schemas = {each["function"]["name"]: each["function"] for each in self.tools}
        self._functions: dict[str, Callable[..., Any]] = {}
        self._servers: dict[str, McpSession] = {}  # by the name of a tool
        for source, offered in zip(sources, schemas, strict=True):
            names = [each["function"]["name"] for each in offered]
            if isinstance(source, McpSource):
                self._servers.update(dict.fromkeys(names, McpSession(source)))
            else:
                self._functions[names[0]] = source
        self._seconds, self._base = seconds, base
        self._on_call = on_call
        self.state = EpisodeState("", base=base)
        self._loop: asyncio.Runner | None = None

    def reset(self, document: Document) -> Sequence[Mapping[str, Any]]:
        """Begin the episode; tools add no message of their own."""
        self.state = EpisodeState(document.text, document.id, base=self._base)
        return ()

    def step(self, turn: Turn) -> Observation:
        """Call the tools in order; async ones that follow each other run side by side."""
        started = time.perf_counter()
        results = [result for calls in self._side_by_side(turn) for result in self._call(calls)]
        messages = [message for message, _ in results] + malformed_messages(turn.malformed)
        errors = sum(failed for _, failed in results) + len(turn.malformed)
        seconds = time.perf_counter() - started
        return Observation(tuple(messages), errors=errors, seconds=seconds)

    def score(self, messages: Sequence[Mapping[str, Any]]) -> float | None:
        """Leave the reward to the task's checks or reward."""
        return None

    def close(self) -> None:
        """Remove the episode's folder and close its connections."""
        if self._loop is not None:
            for session in set(self._servers.values()):
                self.run_async(session.close())
            self._loop.close()
        self.state.close()

    def run_async(self, work: Awaitable[Resulting]) -> Resulting:
        """Run `work` in the episode's event loop, which lives between turns."""

        async def run() -> Resulting:
            return await work

        self._loop = self._loop or asyncio.Runner()
        return self._loop.run(run())

    def _side_by_side(self, turn: Turn) -> Iterator[list[tuple[int, ToolCall]]]:
        """Yield the calls that run together: one plain call, or all async ones up to the next."""

        def together(each: tuple[int, ToolCall]) -> int:
            return -1 if self._is_async(each[1]) else each[0]

        for _, calls in groupby(enumerate(turn.calls), key=together):
            yield list(calls)

    def _is_async(self, call: ToolCall) -> bool:
        function = self._functions.get(call.name)
        return call.name in self._servers or inspect.iscoroutinefunction(function)

    def _call(self, calls: list[tuple[int, ToolCall]]) -> list[tuple[Message, bool]]:
        for place, _ in calls:
            self._on_call(place, None)
        if not self._is_async(calls[0][1]):
            place, call = calls[0]
            return [self._report(place, self._answer(call))]
        return self.run_async(self._gather(calls))

    async def _gather(self, calls: list[tuple[int, ToolCall]]) -> list[tuple[Message, bool]]:
        async def one(place: int, call: ToolCall) -> tuple[Message, bool]:
            return self._report(place, await self._answer_async(call))

        return list(await asyncio.gather(*(one(place, call) for place, call in calls)))

    def _report(self, place: int, result: tuple[Message, bool]) -> tuple[Message, bool]:
        self._on_call(place, result)
        return result

    def _answer(self, call: ToolCall) -> tuple[Message, bool]:
        try:
            if fault := self._fault(call):
                return error_message(call, fault), True
            value = self._functions[call.name](**self._arguments(call))
            return result_message(call, result_text(value)), False
        except ConfigError:
            raise  # the task's own fault, which no answer of the model repairs
        except BaseException as error:  # SystemExit too
            return error_message(call, describe_error(error)), True

    async def _answer_async(self, call: ToolCall) -> tuple[Message, bool]:
        try:
            if fault := self._fault(call):
                return error_message(call, fault), True
            value, failed = await asyncio.wait_for(self._run(call), self._seconds)
            if failed:
                return error_message(call, value), True
            return result_message(call, result_text(value)), False
        except ConfigError:
            raise
        except TimeoutError:
            limit = f"more than {self._seconds:g} seconds" if self._seconds else "too long"
            return error_message(call, f"it took {limit}."), True
        except BaseException as error:
            return error_message(call, describe_error(error)), True

    async def _run(self, call: ToolCall) -> tuple[Any, bool]:
        if call.name in self._servers:
            return await self._servers[call.name].call(call.name, call.arguments)
        return await self._functions[call.name](**self._arguments(call)), False

    def _fault(self, call: ToolCall) -> str:
        """Return why `call` cannot be made; "" if it can."""
        schema = self._schemas.get(call.name)
        if schema is None:
            return f"there is no tool {call.name!r}. {nearest(call.name, self._schemas)}"
        return fault_of_arguments(schema, call.arguments)

    def _arguments(self, call: ToolCall) -> dict[str, Any]:
        states = dict.fromkeys(state_parameters(self._functions[call.name]), self.state)
        return {**call.arguments, **states}
