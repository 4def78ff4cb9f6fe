"""Documents in, answers out: what a loaded model reads, with the signals of every field.

Each document is one group of a rollout, whose prompt is read once: the bound reading that is
answered, a free reading to compare it with, and runner-up candidates. Left out: files
(`offapi.predict.answers_file`) and loading models (`offapi.predict.predictor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

from offapi.backend import Backend, Group, Sampling
from offapi.chat.chat import Chat
from offapi.confidence.promise import Promise
from offapi.data.documents import Document
from offapi.engine import Matcher, StartMatcher
from offapi.errors import DataError, OffapiError
from offapi.predict.compose import Readings, compose, with_confidence, without_signals
from offapi.predict.prediction import DocumentAnswer
from offapi.predict.reading import Reading
from offapi.task import Task
from offapi.text.display import plural

TOO_LONG = "too long for the model"
AT_ONCE = 1024  # documents of one rollout: their prompts are in memory together


class Bound(Protocol):
    """What binds answers to a document; `offapi.constrain.Constraints` does."""

    def start(
        self, document: str, *, second: bool = False, candidates: int = 1
    ) -> StartMatcher: ...


@dataclass(frozen=True)
class Asking:
    """What is asked of every document.

    `signals` asks how sure the model is of each field, for which a bound reading is compared with a
    free one; `promise` turns the signals into confidences, and `keep_signals` leaves them in the
    answers. `candidates` is the number of bound readings, of which the likeliest is answered.
    `context` is the model's context length in tokens; None: not known.
    """

    task: Task
    chat: Chat
    context: int | None = None
    bound: Bound | None = None
    candidates: int = 1
    promise: Promise | None = None
    keep_signals: bool = False

    @property
    def signals(self) -> bool:
        """Whether anything asks how sure the model is of each field."""
        return self.keep_signals or self.promise is not None

    @property
    def second(self) -> bool:
        """Whether there is a free reading too, to compare the bound one with."""
        return self.bound is not None and self.signals

    @property
    def readings(self) -> int:
        """The readings of each document."""
        return self.second + self.candidates if self.bound is not None else 1


def predict_documents(
    backend: Backend, asking: Asking, documents: Sequence[Document]
) -> Iterator[DocumentAnswer]:
    """Yield the answer to every document, as they finish.

    What is wrong with one document is that answer's error and never ends the others'.
    """
    for first in range(0, len(documents), AT_ONCE):
        yield from _some(backend, asking, documents[first : first + AT_ONCE])


def _some(
    backend: Backend, asking: Asking, documents: Sequence[Document]
) -> Iterator[DocumentAnswer]:
    asked: list[tuple[Document, tuple[int, ...]]] = []
    for document in documents:
        try:
            asked.append((document, _prompt(asking, document)))
        except OffapiError as error:
            yield _failed(asking, document, str(error))
    if not asked:
        return
    weighed = asking.signals or asking.candidates > 1
    sampling = Sampling(asking.task.max_answer_tokens, asking.chat.stop_ids, signals=weighed)
    prompts = [prompt for _, prompt in asked]
    bounds = _starts(asking, [document for document, _ in asked])
    for group in backend.rollout(prompts, asking.readings, sampling, starts=bounds):
        document, prompt = asked[group.prompt]
        readings = _readings(asking, group)
        unbound = bounds[group.prompt].error if bounds is not None else ""
        if unbound:
            answer = _failed(asking, document, unbound)
        else:
            answer = _answer(asking, document, readings)
        yield replace(answer, prompt_tokens=len(prompt), completion_tokens=readings.tokens)


class _Start:
    """A document's matchers, made when its readings start, and let go when all have.

    A document that cannot be bound is read freely, and `error` has the reason.
    """

    def __init__(self, make: Callable[[], StartMatcher], samples: int) -> None:
        self.error = ""
        self._make, self._left = make, samples
        self._start: StartMatcher | None = None

    def __call__(self, sample: int) -> Matcher | None:
        matcher = None
        try:
            self._start = self._start or self._make()
            matcher = self._start(sample)
        except OffapiError as error:
            self.error = str(error)
        self._left -= 1
        if not self._left:
            self._start = None
        return matcher


def _starts(asking: Asking, documents: Sequence[Document]) -> list[_Start] | None:
    """Return what bounds each document's readings; None where they are free."""
    bound = asking.bound
    if bound is None:
        return None
    start = partial(bound.start, second=asking.second, candidates=asking.candidates)
    return [_Start(partial(start, each.text), asking.readings) for each in documents]


def _failed(asking: Asking, document: Document, error: str) -> DocumentAnswer:
    accepted = None if asking.promise is None else False
    return DocumentAnswer(document.id, None, accepted=accepted, error=error)


def _answer(asking: Asking, document: Document, readings: Readings) -> DocumentAnswer:
    """Return the answer with what is asked of it; what its checks raise is its error."""
    try:
        answer = compose(asking.task, document, readings, signals=asking.signals)
    except OffapiError as error:
        return _failed(asking, document, str(error))
    if asking.promise is not None:
        answer = with_confidence(answer, asking.promise)
    return answer if asking.keep_signals else without_signals(answer)


def _prompt(asking: Asking, document: Document) -> tuple[int, ...]:
    """Return the prompt's tokens. Raise DataError where no answer fits behind them."""
    task = asking.task
    prompt = asking.chat.prompt(task.messages(document.text), id=document.id)
    if asking.context is not None and len(prompt) + task.max_answer_tokens > asking.context:
        need = f"{plural(len(prompt), 'prompt token')} and {task.max_answer_tokens} for the answer"
        raise DataError(f"{TOO_LONG}: {need}, of {asking.context:,}.")
    return prompt


def _readings(asking: Asking, group: Group) -> Readings:
    """Return the group's completions, read: the bound ones first to last, and the free one."""
    read = [Reading.of(asking.task, asking.chat, each) for each in group.completions]
    second = read.pop(1) if asking.second else None
    return Readings(tuple(read), second)
