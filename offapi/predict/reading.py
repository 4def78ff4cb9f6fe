"""One completion, read: its answer, and what the model's own distribution says of each field.

Left out: comparing readings with each other and with the document (`offapi.predict.signals`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offapi.chat.chat import Chat
from offapi.checks.fields import value_at
from offapi.checks.places import Span
from offapi.checks.verdict import Answer
from offapi.completions import Completion
from offapi.predict.answer_fields import TEXT, answer_fields
from offapi.predict.spans import token_spans, value_spans
from offapi.task import Task


@dataclass(frozen=True)
class FieldTokens:
    """The tokens that wrote a field's value, quotation marks included.

    `free_logprobs` and `margins` are those of `Completion`, one per token, in nats; empty where the
    completion has none. `span` is the value's place in the reading's text.
    """

    span: Span
    free_logprobs: tuple[float, ...] = ()
    margins: tuple[float, ...] = ()

    @property
    def mean_logprob(self) -> float | None:
        """The mean log-probability of the tokens, None without any."""
        count = len(self.free_logprobs)
        return sum(self.free_logprobs) / count if count else None


@dataclass(frozen=True)
class Reading:
    """What a model wrote for a document, and how it is read as the task's answer.

    `fields` holds each field that the text has, by its dotted path. `cut` says that the token limit
    ended the text.
    """

    text: str
    answer: Answer
    fields: Mapping[str, FieldTokens] = field(default_factory=dict)
    cut: bool = False
    tokens: int = 0

    @classmethod
    def of(
        cls, task: Task, chat: Chat, completion: Completion, prompt: Sequence[int] = ()
    ) -> Reading:
        """Read `completion` of `prompt` as an answer to `task`."""
        text = chat.decode(completion.tokens)
        answer = task.read_answer(chat.answer_text(prompt, completion.tokens))
        places = _places(task, text, answer)
        weighed = bool(places) and completion.free_logprobs is not None
        spans = token_spans(chat.decode, completion.tokens) if weighed else []
        fields = {name: _tokens_of(place, spans, completion) for name, place in places.items()}
        return cls(text, answer, fields, completion.finish == "length", len(completion.tokens))

    def value(self, name: str) -> Any:
        """Return the value of a field; None where it is null, absent, or nothing can be read."""
        if self.answer.value is not None:
            return value_at(self.answer.value, name)
        return self.answer.text if name == TEXT and TEXT in self.fields else None


def _places(task: Task, text: str, answer: Answer) -> dict[str, Span]:
    """Return where each field's value stands; inside a null object, where the null stands."""
    start = max(text.rfind(answer.text), 0)
    if task.free_text:
        return {TEXT: (start, start + len(answer.text))} if answer.text else {}
    if answer.value is None:
        return {}
    found = value_spans(text, max(text.find("{", start), 0))
    nulls = {path for path, (first, end) in found.items() if text[first:end] == "null"}
    places: dict[str, Span] = {}
    for name in answer_fields(task):
        parts = name.split(".")
        around = [".".join(parts[:end]) for end in range(1, len(parts))]
        written = name if name in found else next((path for path in around if path in nulls), None)
        if written is not None:
            places[name] = found[written]
    return places


def _tokens_of(place: Span, spans: list[Span], completion: Completion) -> FieldTokens:
    at = [i for i, (start, end) in enumerate(spans) if start < place[1] and end > place[0]]
    return FieldTokens(place, _at(at, completion.free_logprobs), _at(at, completion.margins))


def _at(places: list[int], values: tuple[float, ...] | None) -> tuple[float, ...]:
    return () if values is None else tuple(values[i] for i in places)
