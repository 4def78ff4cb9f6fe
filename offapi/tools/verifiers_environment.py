"""Tasksets of the library `verifiers` 0.4, run as they are: their tools, state and scores.

A document stands for one of the taskset's tasks, and its id says which. Refused where a taskset has
it: `@stop` hooks, judges, and containers. Left out: harnesses and `@intercept` hooks, which are not
run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from offapi.data.documents import Document
from offapi.errors import ConfigError, nearest
from offapi.tools.mcp_server import McpSource
from offapi.tools.offered import KnownTools, Schemas, schemas_by_source
from offapi.tools.tool_environment import ToolEnvironment


def from_verifiers(taskset: Any) -> KnownTools:
    """Return what `Task(environment=...)` takes, made from a `verifiers.v1.Taskset`.

    The taskset's tasks are read now. Raise ConfigError where it never ends, or needs what is left
    out.
    """
    if not taskset.bounded:
        step = "Bound it: `taskset.take(1000)`."
        raise ConfigError("the taskset never ends.", where=type(taskset).__name__, next_step=step)
    tasks = {_id_of(task): task for task in taskset}
    for task in tasks.values():
        _refuse_what_is_left_out(task)

    def make(schemas: tuple[Schemas, ...]) -> VerifiersEnvironment:
        return VerifiersEnvironment(tasks, _toolsets(taskset, tasks), schemas)

    return KnownTools(make, lambda: schemas_by_source(_toolsets(taskset, tasks)))


def verifiers_documents(taskset: Any) -> Iterator[Document]:
    """Yield a document for each task of a taskset: its id, and its prompt as the text."""
    for task in taskset:
        yield Document(_id_of(task), task.data.prompt_text)


class VerifiersToolset(McpSource):
    """A toolset of verifiers, served within the episode's process."""

    def __init__(self, toolset: Any) -> None:
        self.toolset = toolset
        self.prefix = f"{toolset.server_name}_" if toolset.server_name else ""

    @property
    def where(self) -> str:
        """Name the toolset in errors."""
        return f"toolset {type(self.toolset).__name__}"

    def client(self) -> Any:
        """Return a client of the toolset's own server, which runs in this process."""
        from mcp import Client
        from mcp.server.mcpserver import MCPServer

        server = MCPServer(type(self.toolset).__name__)
        self.toolset.register(server)
        return Client(server)

    def hold(self, state: Any) -> None:
        """Let the tools read and write `state`, which verifiers sends them over HTTP."""

        async def pull() -> Any:
            return state

        async def push(before: bytes) -> None:
            return None

        self.toolset._pull_state, self.toolset._push_state = pull, push


class VerifiersEnvironment(ToolEnvironment):
    """One episode of a task of verifiers."""

    def __init__(
        self,
        tasks: Mapping[str, Any],
        toolsets: Sequence[VerifiersToolset],
        schemas: tuple[Schemas, ...],
    ) -> None:
        """Run the episode on one of `tasks`, by the document's id, with those toolsets."""
        super().__init__(toolsets, schemas)
        self._tasks, self._toolsets = tasks, toolsets
        self._task: Any = None
        self._trace: Any = None
        self._runtime: Any = None

    def reset(self, document: Document) -> Sequence[Mapping[str, Any]]:
        """Set the document's task up; its prompt is the document, so no message follows."""
        super().reset(document)
        self._task = self._tasks.get(document.id)
        if self._task is None:
            step = f"{nearest(document.id, self._tasks)} `verifiers_documents` makes the documents."
            what = "the taskset has no task of that id, name or index."
            raise ConfigError(what, where=f"document {document.id!r}", next_step=step)
        self._trace, self._runtime = _new_trace(self._task), _runtime(self.state.folder)
        self.run_async(self._set_up())
        return ()

    def score(self, messages: Sequence[Mapping[str, Any]]) -> float | None:
        """Return the sum of the task's weighted rewards."""
        _fill(self._trace, messages)

        async def finish() -> None:
            await self._task.finalize(trace=self._trace, runtime=self._runtime)
            await self._task.score(self._trace, self._runtime)

        self.run_async(finish())
        return float(self._trace.reward)

    async def _set_up(self) -> None:
        await self._task.setup(trace=self._trace, runtime=self._runtime)
        for each in self._toolsets:
            each.hold(self._trace.state)
            await each.toolset.setup()
            await each.toolset.setup_task(self._task.data)


def _id_of(task: Any) -> str:
    return str(task.data.id or task.data.name or task.data.idx)


def _refuse_what_is_left_out(task: Any) -> None:
    found = {
        "a container": task.NEEDS_CONTAINER or task.data.image,
        "a judge": task.config.judges,
        "@stop hooks": task.hooks("stop"),
    }
    needed = [name for name, value in found.items() if value]
    if needed:
        what = f"it needs {' and '.join(needed)}, which offapi does not run."
        step = "Leave those tasks out, or write them as an environment of your own."
        raise ConfigError(what, where=f"task {_id_of(task)!r} of verifiers", next_step=step)


def _toolsets(taskset: Any, tasks: Mapping[str, Any]) -> tuple[VerifiersToolset, ...]:
    """Return the toolsets that all tasks share, and those made for each episode."""
    own: list[Any] = []
    for task in tasks.values():
        own = list(type(task).toolsets(task.config))
        break
    shared = type(taskset).toolsets(taskset.config)
    return tuple(VerifiersToolset(toolset) for toolset in [*own, *shared])


def _new_trace(task: Any) -> Any:
    from verifiers.v1 import AgentConfig, AgentInfo, SubprocessConfig, Trace, TraceTask
    from verifiers.v1.state import state_cls

    recorded = TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash)
    agent = AgentInfo(config=AgentConfig(runtime=SubprocessConfig()))
    return Trace(task=recorded, state=state_cls(type(task))(), agent=agent)


def _runtime(folder: Any) -> Any:
    """Return verifiers' runtime of local processes, in the episode's folder."""
    from verifiers.v1 import SubprocessConfig
    from verifiers.v1.runtimes.subprocess import SubprocessRuntime

    runtime = SubprocessRuntime(SubprocessConfig())
    runtime.workdir = folder
    return runtime


def _fill(trace: Any, messages: Sequence[Mapping[str, Any]]) -> None:
    """Write the chat into `trace`; the assistant's messages after the last user's were sampled."""
    from verifiers.v1 import MessageNode

    asked = max((i for i, each in enumerate(messages) if each["role"] == "user"), default=-1)
    for i, message in enumerate(messages):
        sampled = message["role"] == "assistant" and i > asked
        parent = i - 1 if i else None
        node = {"parent": parent, "message": _message(message), "sampled": sampled}
        trace.nodes.append(MessageNode.model_validate(node))
    trace.is_completed = trace.ok = True


def _message(message: Mapping[str, Any]) -> dict[str, Any]:
    """Return OpenAI's message in verifiers' shape, where a call's name is not nested."""
    plain = {"role": message["role"], "content": message.get("content") or ""}
    if message["role"] == "tool":
        plain |= {"tool_call_id": message.get("tool_call_id", ""), "name": message.get("name")}
    if message.get("tool_calls"):
        calls = [(call["id"], call["function"]) for call in message["tool_calls"]]
        plain["tool_calls"] = [
            {"id": id, "name": function["name"], "arguments": _text(function["arguments"])}
            for id, function in calls
        ]
    return plain


def _text(arguments: Any) -> str:
    return arguments if isinstance(arguments, str) else json.dumps(arguments)
