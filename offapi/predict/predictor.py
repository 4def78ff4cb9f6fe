"""A model that answers documents and chats, from Python: `offapi.open(run).predict(documents)`.

Left out: files of answers (`offapi.predict.command`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from offapi.backend import Backend, Sampling, default_backend, load
from offapi.chat.chat import IN_FRONT, Chat
from offapi.chat.template_options import Options
from offapi.confidence import promise
from offapi.confidence.promise import AnswersFrom, Promise
from offapi.constrain import Constraints, Level
from offapi.data.documents import Document
from offapi.errors import ConfigError, DataError
from offapi.files.hashing import sha256_file
from offapi.model_spec import DType, ModelSpec
from offapi.predict.agent_documents import require_single_answers
from offapi.predict.answering_model import AnsweringModel
from offapi.predict.level import strongest_level
from offapi.predict.predict_documents import AT_ONCE, Asking, predict_documents
from offapi.predict.prediction import DocumentAnswer
from offapi.progress import LOADING, say_nothing
from offapi.task import Task, load_task

Question = str | Document | Mapping[str, Any]
CHAT_TOKENS = 512


@dataclass(frozen=True)
class AskedHow:
    """How the documents are asked: the level, and the calibration that holds for its answers."""

    level: Level
    promise: Promise | None
    no_promise: str = ""  # why the run's calibration cannot be used


@dataclass
class Predictor:
    """A run or a model, loaded when it first answers, until `close`.

    Use it in a `with` block, or close it. `task` is None where only `chat` is wanted.
    """

    answering: AnsweringModel
    task: Task | None
    task_file: Path | None
    backend_name: str
    dtype: DType = "auto"
    say: Callable[[str], None] = field(default=say_nothing, repr=False)
    template: Options = field(default_factory=dict, repr=False)  # over the run's own
    _loaded: Backend | None = field(default=None, init=False, repr=False)
    _bounds: dict[Level, Constraints | None] = field(default_factory=dict, init=False, repr=False)

    def predict(
        self,
        documents: Question | Iterable[Question],
        *,
        constrain: Level | None = None,
        candidates: int = 1,
        signals: bool = False,
    ) -> Iterator[DocumentAnswer]:
        """Yield the answer to each document, in order, as they are asked for.

        A document is a text, a `Document`, or an object with "document" and perhaps "id"; without
        an id its number counts, from 1. One alone need not be in a list. `constrain` is how far
        answers are bound (default: as far as the task declares), `candidates` the number of bound
        readings of which the likeliest is answered. Raise ConfigError without a task, DataError for
        what is not a document.
        """
        asking = self.asking(self.asked(constrain, candidates), candidates, signals=signals)
        if isinstance(documents, str | Document | Mapping):
            documents = [documents]
        return self._answers(asking, iter(documents))

    def _answers(self, asking: Asking, source: Iterator[Question]) -> Iterator[DocumentAnswer]:
        numbers = count(1)
        while some := [_document(each, next(numbers)) for each in islice(source, AT_ONCE)]:
            yield from self._in_order(asking, some)

    def _in_order(self, asking: Asking, documents: Sequence[Document]) -> Iterator[DocumentAnswer]:
        named = [Document(str(at), each.text) for at, each in enumerate(documents)]
        waiting: dict[int, DocumentAnswer] = {}
        due = 0
        for answer in predict_documents(self.backend, asking, named):
            waiting[int(answer.id)] = answer
            while due in waiting:
                yield waiting.pop(due).named(documents[due].id)
                due += 1

    def chat(
        self, messages: str | Sequence[Mapping[str, Any]], *, max_tokens: int = CHAT_TOKENS
    ) -> str:
        """Return the model's next turn in a chat, greedy; a text is the user's first turn."""
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        prompt = self.chat_format.prompt(turns)
        sampling = Sampling(max_tokens, self.chat_format.stop_ids)
        group = next(iter(self.backend.rollout([prompt], 1, sampling)))
        return self.chat_format.decode(group.completions[0].tokens).strip()

    def asked(self, constrain: Level | None = None, candidates: int = 1) -> AskedHow:
        """Return how documents are asked, by default as the run's calibration was made.

        A calibration for other answers gives no confidence, and the reason is kept.
        """
        task, run = self._task(), self.answering.run
        path = run.path / promise.FILE if run else None
        if path is None or not path.is_file():
            usual: Level = "off" if task.is_agent else strongest_level(task)
            return AskedHow(constrain or usual, None)
        given = promise.read(path)
        level = constrain or _level(given.made_for.constrain)
        if candidates > 1:
            return AskedHow(level, None, "The run was calibrated with one candidate.")
        if self.task_file is None:
            return AskedHow(
                level, None, "The calibration is for a task file, and a Task was given."
            )
        own = self.answering.options
        if any(own.get(name, self) != value for name, value in self.template.items()):
            return AskedHow(level, None, "The calibration is for the run's own template settings.")
        if self.answering.quantize != self.answering.trained_bits.bits:
            return AskedHow(level, None, "The calibration is for the base in the training's bits.")
        answers = AnswersFrom(*self._made_from, level)
        try:
            return AskedHow(level, promise.read(path, answers))
        except ConfigError as error:
            return AskedHow(level, None, str(error))

    def asking(self, asked: AskedHow, candidates: int = 1, *, signals: bool = False) -> Asking:
        """Return what is asked of every document.

        Raise ConfigError where the answers cannot be bound, or has no field to vary.
        """
        asked_for = {
            "several candidates": candidates > 1,
            "confidence": signals or asked.promise is not None,
            f"the constraint {asked.level!r}": asked.level != "off",
        }
        for what, wanted in asked_for.items():
            if wanted:
                require_single_answers(self._task(), what)
        bound = self._bound(asked.level)
        if candidates > 1 and (bound is None or bound.fields.candidates is None):
            what = "several candidates need bound answers and a field that is quoted or one_of."
            step = "Declare one in the task's `bind` (`offapi.quote`), or ask for one candidate."
            raise ConfigError(what, next_step=step)
        context = self.answering.context
        return Asking(
            self._task(), self.chat_format, context, bound, candidates, asked.promise, signals
        )

    @cached_property
    def _made_from(self) -> tuple[str, str | None, str]:
        """The hashes of the base, its adapter and the task file, as they were loaded."""
        assert self.task_file is not None
        facts = self.answering.facts
        adapter = facts["adapter"]["sha256"] if facts["adapter"] else None
        return facts["base"]["sha256"], adapter, sha256_file(self.task_file)

    @cached_property
    def chat_format(self) -> Chat:
        """The model's tokenizer and template."""
        answering = self.answering
        chat = Chat.load(answering.model.path, self.template, answering.options)
        if chat.no_system:
            self.say(IN_FRONT)
        return chat

    @property
    def backend(self) -> Backend:
        """The loaded model. Raise what loading raises."""
        if self._loaded is None:
            self.say(LOADING)
            model = self.answering
            for line in model.trained_bits.lines(model.quantize, self.backend_name):
                self.say(line)
            spec = ModelSpec(
                path=model.model.path,
                adapter=model.adapter,
                dtype=self.dtype,
                quantize=model.quantize,
            )
            self._loaded = load(self.backend_name, spec)
        return self._loaded

    def close(self) -> None:
        """Free the model; it is loaded again when it is asked again."""
        if self._loaded is not None:
            self._loaded.close()
            self._loaded = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        model, task = self.answering, self.task
        named = model.run.path.name if model.run else model.model.name
        asks = f", task {task.name!r}" if task else ", no task"
        state = "loaded" if self._loaded else "not loaded"
        return f"<offapi predictor: {named!r}{asks}, {self.backend_name}, {state}>"

    def _task(self) -> Task:
        if self.task is None:
            step = "Name one: offapi.open(model, task='task.py')."
            raise ConfigError("there is no task to ask documents about.", next_step=step)
        return self.task

    def _bound(self, level: Level) -> Constraints | None:
        if level == "off":
            return None
        if level not in self._bounds:
            self._bounds[level] = Constraints.of(self._task(), self.chat_format, level)
        return self._bounds[level]


def open(
    run_or_model: str | Path, task: str | Path | Task | None = None, backend: str | None = None
) -> Predictor:
    """Return what answers documents and chats: a run's folder or a model, by name or folder.

    `task` is a task file or a Task, by default the run's. `backend` is "torch" or "mlx", by default
    as this machine suits. Raise RunError, ModelError or ConfigError for what cannot be used.
    """
    answering = AnsweringModel.of(run_or_model)
    if isinstance(task, Task):
        return Predictor(answering, task, None, backend or default_backend())
    file = Path(task) if task is not None else answering.task_file
    loaded = load_task(file) if file is not None else None
    return Predictor(answering, loaded, file, backend or default_backend())


def _document(given: Question, number: int) -> Document:
    """Return what was given as a document. Raise DataError, with its number, where it is none."""
    if isinstance(given, Document):
        return given
    if isinstance(given, str):
        return Document(str(number), given)
    text, id = given.get("document"), given.get("id", number)
    if not isinstance(text, str):
        step = 'Give texts, or objects with "document".'
        raise DataError("not a document.", where=f"document {number}", next_step=step)
    return Document(str(id), text)


def _level(name: str) -> Level:
    from offapi.constrain import LEVELS

    return next((level for level in LEVELS if level == name), "off")
