"""Documents in, answers out: what a loaded model reads, with the signals of every field.

Each document is one group of a rollout, whose prompt is read once: the bound reading that is
answered, a free reading to compare it with, and runner-up candidates. Left out: files
(`offapi.predict.answers_file`) and loading models (`offapi.predict.predictor`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol, Self

from offapi.backend import Backend, Completion, Sampling
from offapi.chat.chat import Chat
from offapi.confidence.promise import Promise
from offapi.data.documents import Document
from offapi.engine import Matcher, StartMatcher
from offapi.errors import DataError, OffapiError
from offapi.predict.agent_documents import predict_agent_documents
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

    @property
    def sampling(self) -> Sampling:
        """How every reading is drawn: greedily, with signals where they are compared."""
        weighed = self.signals or self.candidates > 1
        return Sampling(self.task.max_answer_tokens, self.chat.stop_ids, signals=weighed)


def predict_documents(
    backend: Backend, asking: Asking, documents: Sequence[Document]
) -> Iterator[DocumentAnswer]:
    """Yield the answer to every document, as they finish.

    What is wrong with one document is that answer's error and never ends the others'.
    """
    some = predict_agent_documents if asking.task.is_agent else _some
    for first in range(0, len(documents), AT_ONCE):
        yield from some(backend, asking, documents[first : first + AT_ONCE])


def _some(
    backend: Backend, asking: Asking, documents: Sequence[Document]
) -> Iterator[DocumentAnswer]:
    asked: list[AskedDocument] = []
    for document in documents:
        try:
            asked.append(AskedDocument.of(asking, document))
        except OffapiError as error:
            yield _failed(asking, document, str(error))
    if not asked:
        return
    prompts = [each.prompt for each in asked]
    starts = None if asking.bound is None else [each.start for each in asked]
    for group in backend.rollout(prompts, asking.readings, asking.sampling, starts=starts):
        yield asked[group.prompt].answer(group.completions)


class ReadingStart:
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


@dataclass(frozen=True)
class AskedDocument:
    """One document as it is asked: its prompt, and what bounds its readings (None: nothing)."""

    asking: Asking
    document: Document
    prompt: tuple[int, ...]
    start: ReadingStart | None

    @classmethod
    def of(cls, asking: Asking, document: Document) -> Self:
        """Ask about `document`. Raise DataError where no answer fits behind its prompt."""
        prompt, bound = _prompt(asking, document), asking.bound
        if bound is None:
            return cls(asking, document, prompt, None)
        make = partial(
            bound.start, document.text, second=asking.second, candidates=asking.candidates
        )
        return cls(asking, document, prompt, ReadingStart(make, asking.readings))

    def answer(self, completions: Sequence[Completion]) -> DocumentAnswer:
        """Return the answer that the readings give, in the order of `Asking.readings`.

        What is wrong with the document or its checks is the answer's error.
        """
        asking = self.asking
        readings = _readings(asking, completions, self.prompt)
        if self.start is not None and self.start.error:
            answer = _failed(asking, self.document, self.start.error)
        else:
            answer = _answer(asking, self.document, readings)
        return replace(answer, prompt_tokens=len(self.prompt), completion_tokens=readings.tokens)


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


def _readings(asking: Asking, completions: Sequence[Completion], prompt: Sequence[int]) -> Readings:
    """Return the completions, read: the bound ones first to last, and the free one."""
    read = [Reading.of(asking.task, asking.chat, each, prompt) for each in completions]
    second = read.pop(1) if asking.second else None
    return Readings(tuple(read), second)
