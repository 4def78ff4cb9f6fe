"""A teacher on this machine: any model in the store, with the task's worked examples, greedy."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import orjson

from offapi.backend import Backend, Sampling, load
from offapi.chat.chat import IN_FRONT, Chat
from offapi.chat.template_options import Options, shown
from offapi.constrain import Constraints, Level
from offapi.engine import StartMatcher
from offapi.model_spec import DType, ModelSpec
from offapi.models.store import Model
from offapi.progress import LOADING, say_nothing
from offapi.task import Task
from offapi.teachers.teacher import FREE, Answered, Price, Request, Usage
from offapi.text.display import plural


@dataclass(frozen=True)
class Local:
    """`model` on the backend called `backend`.

    The weights are loaded when the first answer is requested.
    """

    model: Model
    backend: str
    max_tokens: int
    dtype: DType = "float32"
    price: Price = FREE
    # The weights stay loaded between calls of `answers`, for callers that ask one at a time.
    keep_open: bool = False
    say: Callable[[str], None] = field(default=say_nothing, repr=False)
    # What bounds the answers: a task and a level. Each document is its request's last message.
    constrain: tuple[Task, Level] | None = None
    # Settings of the chat template, and those that it gets if it reads them.
    template: Options = field(default_factory=dict, hash=False)
    recorded: Options = field(default_factory=dict, hash=False, repr=False)

    @property
    def name(self) -> str:
        """The name that the user writes on the command line, with what bounds the answers."""
        bound = f" constrain={self._constraints.key}" if self._constraints else ""
        return local_name(self.model, self.template, bound)

    @cached_property
    def _constraints(self) -> Constraints | None:
        if self.constrain is None:
            return None
        task, level = self.constrain
        return Constraints.of(task, self._chat, level)

    def answers(self, requests: Sequence[Request]) -> Generator[Answered, None, None]:
        """Decode all requests in one batch that shares their common prefix.

        Raise ModelError and BackendError.
        """
        chat = self._chat
        prompts = [_encode_prompt(chat, request) for request in requests]
        context = context_of(self.model)
        fitting = [
            i
            for i, prompt in enumerate(prompts)
            if context is None or len(prompt) + self.max_tokens <= context
        ]
        for i in sorted(set(range(len(requests))) - set(fitting)):
            size = (
                f"{plural(len(prompts[i]), 'prompt token')} and {self.max_tokens} for the"
                " answer, of"
                f" {context}"
            )
            yield Answered(requests[i].id, "", reason=f"too long for the model: {size}")
        if fitting:
            asked = [requests[i] for i in fitting]
            yield from self._decode(chat, asked, [prompts[i] for i in fitting])

    def _decode(
        self, chat: Chat, requests: Sequence[Request], prompts: Sequence[Sequence[int]]
    ) -> Generator[Answered, None, None]:
        backend = self._kept if self.keep_open else self._load()
        try:
            since, sampling = time.perf_counter(), Sampling(self.max_tokens, chat.stop_ids)
            for group in backend.rollout(prompts, 1, sampling, starts=self._starts(requests)):
                completion, now = group.completions[0], time.perf_counter()
                whole = completion.finish == "stop"
                yield Answered(
                    requests[group.prompt].id,
                    chat.answer_text(
                        prompts[group.prompt],
                        completion.tokens[:-1] if whole else completion.tokens,
                    ),
                    reason="" if whole else "truncated",
                    usage=Usage(len(prompts[group.prompt]), len(completion.tokens)),
                    seconds=now - since,
                )
                since = now
        finally:
            if not self.keep_open:
                backend.close()

    def _starts(self, requests: Sequence[Request]) -> list[StartMatcher | None] | None:
        bound = self._constraints
        if bound is None:
            return None
        return [bound.start(str(request.messages[-1]["content"])) for request in requests]

    @cached_property
    def _chat(self) -> Chat:
        chat = Chat.load(self.model.path, self.template, self.recorded)
        if chat.no_system:
            self.say(IN_FRONT)
        return chat

    @cached_property
    def _kept(self) -> Backend:
        return self._load()

    def _load(self) -> Backend:
        self.say(LOADING)
        return load(self.backend, ModelSpec(path=self.model.path, dtype=self.dtype))


def local_name(model: Model, template: Options, bound: str = "") -> str:
    """Return a local teacher's name: the model, `bound`, and settings of its chat template."""
    told = "".join(f" {name}={shown(value)}" for name, value in sorted(template.items()))
    return f"local:{model.name}{bound}{told}"


def context_of(model: Model) -> int | None:
    """Return the model's context length in tokens; None when its config does not say."""
    config = orjson.loads((model.path / "config.json").read_bytes())
    limit = config.get("max_position_embeddings")
    return limit if isinstance(limit, int) else None


def _encode_prompt(chat: Chat, request: Request) -> tuple[int, ...]:
    return chat.prompt([dict(message) for message in request.messages])
