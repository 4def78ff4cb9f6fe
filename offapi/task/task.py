"""Task: one file a user writes, used by every recipe to prompt, to learn and to grade.

The same object writes the prompt and the answer that the student learns, and grades any answer with
its checks. Left out: tokens (`offapi.chat.chat`) and running tools (`offapi.agent`).
"""

from __future__ import annotations

import functools
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from offapi.checks.answer_reading import read_answer, read_text, read_trace
from offapi.checks.fields import value_at
from offapi.checks.gold_mistakes import gold_advice, gold_mistake
from offapi.checks.kinds import Match
from offapi.checks.verdict import Answer, Check, Context, Verdict, check_needs, plain_verdict
from offapi.data.documents import KnownAnswer, fields_of
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError, error_sentence
from offapi.task.answer_text import spell
from offapi.task.bind import Bind
from offapi.task.example import Example
from offapi.task.validate import validate_task
from offapi.tools.environment import Environment
from offapi.tools.offered import ToolSource, schemas_of
from offapi.workers import time_limit

Weighted = tuple[Check, float]
Message = dict[str, Any]
Scores = Sequence[float | None]
# (documents, answers), plain or async
Reward = Callable[[Sequence[str], Sequence[str]], Scores | Awaitable[Scores]]
Part = Verdict  # one check's share of a grade
_FIX = "Fix the check; an answer that it cannot grade should score 0, with a reason."


@dataclass(frozen=True)
class Grade:
    """How good an answer is: the weighted mean of its checks' scores.

    `parts` are the checks' verdicts, `value` is the object that was graded. `forms` are those of
    `answer_reading`: what was set aside, or why there is no object.
    """

    score: float  # in [0, 1]; audit checks do not count
    parts: Mapping[str, Part]
    # the text itself where the task answers with text; None: the text is not one JSON object
    value: KnownAnswer | None
    forms: tuple[str, ...] = ()


@dataclass(frozen=True)
class Task:
    """What to extract, how to write it, and how to distinguish a good answer from a bad one.

    `schema` is the JSON schema of the answer, an object; answers are written in the order of its
    properties. With `schema=None` the answer is free text, and the checks alone say how good it is.
    `match` maps a field, or a dotted path into objects, to its kind: how it is compared with gold
    (`offapi.checks.kinds`). `checks` maps a name to (check, weight); all checks of one answer
    together may take `check_seconds` (see `offapi.workers.time_limit`; None: no limit). Raise
    ConfigError when the parts contradict each other.

    `audit` names checks that are scored and never rewarded: a student whose grade rises while they
    do not is gaming the other checks. `reward` scores a whole batch of answers at once in GRPO, in
    place of the checks, which then all are audit. It returns a finite number for each answer, or
    None to leave that answer out.

    `bind` says which fields are the document's own words (`offapi.quote`) or names of a list
    (`offapi.one_of`); commands apply it under `constrain`.

    `strict` refuses an answer in a code fence or a tool call, which is otherwise read as if it
    stood alone. Set it where a student's answers are used as they come.

    `tools` are what an agent may call before it answers: typed functions with docstrings, plain or
    async, and `offapi.mcp(...)`. `environment` is for what is more than tools, and makes one
    `Environment` an episode. An episode has at most `max_turns` turns of the model, each of
    `max_answer_tokens`; a call may take `tool_seconds`, all calls together `max_tool_seconds`.
    `opening` returns what the prompt shows of a document whose rest tools read.
    """

    name: str
    instructions: str  # without examples
    schema: Mapping[str, Any] | None  # None: the answer is free text
    checks: Mapping[str, Weighted]
    match: Mapping[str, Match] = field(default_factory=dict)
    examples: tuple[Example, ...] = ()
    max_answer_tokens: int = 96
    check_seconds: float | None = 10.0
    audit: tuple[str, ...] = ()
    reward: Reward | None = None
    strict: bool = False
    bind: Mapping[str, Bind] = field(default_factory=dict)
    tools: tuple[ToolSource, ...] = ()
    environment: Callable[[], Environment] | None = None  # instead of tools
    max_turns: int = 8
    tool_seconds: float = 10.0
    max_tool_seconds: float = 60.0
    opening: Callable[[str], str] | None = None  # None: the prompt shows the whole document
    file: Path | None = field(default=None, compare=False)  # set by `load_task`

    def __post_init__(self) -> None:
        validate_task(self)

    def messages(self, document: str, shots: int = 0) -> list[Message]:
        """Return the chat that asks for `document`'s answer, after `shots` worked examples.

        All documents share everything before their own text, so a backend prefills it once. Of
        the document, the prompt shows what `opening` returns.
        """
        if not 0 <= shots <= len(self.examples):
            raise ConfigError(
                f"shots must be from 0 to {len(self.examples)}, the worked examples of task"
                f" {self.name!r}, got {shots}.",
                next_step="Ask for fewer shots, or add `examples` to the task.",
            )
        chat: list[Message] = [{"role": "system", "content": self.instructions}]
        for example in self.examples[:shots]:
            chat.append({"role": "user", "content": example.document})
            chat.append({"role": "assistant", "content": self.answer_text(example.answer)})
        return [*chat, {"role": "user", "content": self._shown(document)}]

    def _shown(self, document: str) -> str:
        if self.opening is None:
            return document
        where, step = f"task {self.name!r}", "Return the text that the prompt shows."
        try:
            shown = self.opening(document)
        except Exception as error:
            what = f"opening raised {error_sentence(error)}"
            raise ConfigError(what, where=where, next_step=step) from error
        if not isinstance(shown, str) or not shown.strip():
            what = f"opening must return a text that is not empty, got {shown!r}."
            raise ConfigError(what, where=where, next_step=step)
        return shown

    @property
    def free_text(self) -> bool:
        """Whether the answer is a text instead of a JSON object."""
        return self.schema is None

    @property
    def is_agent(self) -> bool:
        """Whether an answer is an episode in which the model may call tools."""
        return bool(self.tools) or self.environment is not None

    @functools.cached_property
    def tool_schemas(self) -> tuple[Mapping[str, Any], ...]:
        """The tools offered, in OpenAI's shape; none where the task has none.

        Raise ConfigError where a tool has no schema.
        """
        return schemas_of(self.tools, self.environment, f"task {self.name!r}")

    @property
    def needs_gold(self) -> bool:
        """Whether one of the checks cannot grade without gold."""
        return any(check_needs(check, "gold") for check, _ in self.checks.values())

    def answer_text(self, answer: KnownAnswer, *, row: str = "") -> str:
        """Return `answer` as the one text that the student learns.

        An object is written as JSON, see `offapi.task.answer_text`; a text as it is, without white
        space around it. Raise DataError, naming `row`, for the kind of answer that the task does
        not give.
        """
        if self.schema is None:
            if isinstance(answer, str) and answer.strip():
                return answer.strip()
        elif isinstance(answer, Mapping):
            return spell(answer, self.schema, self.match)
        raise self._wrong_kind("the answer", answer, row)

    def grade_trace(self, trace: Trace) -> Grade:
        """Grade the last message of `trace` against what it was made from.

        Of an agent's that is what it was asked: checks find results in `Context.messages`.

        Raise what `grade` raises.
        """
        context = self._context(trace.gold, trace.messages, trace.tools or ())
        document = trace.asked if self.is_agent else trace.document
        return self._grade(document, self.read_trace(trace), context, trace.id)

    def grade(
        self,
        document: str,
        text: str,
        gold: KnownAnswer | None = None,
        *,
        row: str = "",
        messages: Sequence[Mapping[str, Any]] = (),
    ) -> Grade:
        """Grade the answer `text` for `document`; `row` names it in errors.

        `messages` are an agent's whole chat, for checks that look at its calls.

        Raise ConfigError when a check raises or returns no score in [0, 1]: a faulty check never
        gives a score.
        """
        tools = self.tool_schemas if messages else ()
        context = self._context(gold, messages, tools)
        return self._grade(document, self.read_answer(text), context, row)

    def read_answer(self, text: str) -> Answer:
        """Read a model's words as this task's answer: see `offapi.checks.answer_reading`."""
        return read_text(text) if self.free_text else read_answer(text, strict=self.strict)

    def read_trace(self, trace: Trace) -> Answer:
        """Read the last message of `trace`, a tool call included."""
        if self.free_text:
            return read_text(trace.messages[-1].get("content") or "")
        return read_trace(trace, strict=self.strict)

    def _context(
        self,
        gold: KnownAnswer | None,
        messages: Sequence[Mapping[str, Any]] = (),
        tools: Sequence[Mapping[str, Any]] = (),
    ) -> Context:
        return Context(self.schema or {}, self.match, gold, self.free_text, messages, tools)

    def _grade(self, document: str, answer: Answer, context: Context, row: str) -> Grade:
        if self.free_text and not answer.text and not _calls(context.messages):
            empty = Verdict(0.0, answer.error)
            return Grade(0.0, dict.fromkeys(self.checks, empty), None, answer.forms)
        parts: dict[str, Verdict] = {}
        total, weights, name = 0.0, 0.0, ""
        alarm = time_limit.start(self.check_seconds)
        try:
            try:
                for name, (check, weight) in self.checks.items():
                    parts[name] = verdict = self._ask(name, check, document, answer, context, row)
                    if name not in self.audit:
                        total += verdict.score * weight
                        weights += weight
            finally:
                if alarm:
                    time_limit.stop()
        except time_limit.TimeUp:
            if not alarm:
                raise  # another task's check asked for this grade, and its time ran out
            what = (
                f"the answer's checks took more than check_seconds = {self.check_seconds:g}; this"
                " one was running."
            )
            step = "Fix the check, or give the task more check_seconds."
            raise ConfigError(what, where=self._where(name, row), next_step=step) from None
        value = (answer.text or None) if self.free_text else answer.value
        return Grade(total / weights, parts, value, answer.forms)

    def _ask(
        self, name: str, check: Check, document: str, answer: Answer, context: Context, row: str
    ) -> Verdict:
        try:
            verdict = plain_verdict(check(document, answer, context))
        except time_limit.TimeUp:
            raise
        except BaseException as error:  # SystemExit too: a check ends no command
            if isinstance(error, KeyboardInterrupt) and _hears_ctrl_c():
                raise
            where = self._where(name, row)
            raise ConfigError(
                f"the check raised {error_sentence(error)}", where=where, next_step=_FIX
            ) from error
        if isinstance(verdict, str):
            raise ConfigError(verdict, where=self._where(name, row), next_step=_FIX)
        return verdict

    def _where(self, check: str, row: str) -> str:
        return f"task {self.name!r}, check {check!r}" + (f", row {row!r}" if row else "")

    def check_gold(self, gold: KnownAnswer, *, row: str) -> None:
        """Raise DataError, naming `row` and the field, when `gold` does not fit `match`.

        That is when a field is missing or has the wrong type, or when gold is a text where the task
        answers with an object, or the reverse.
        """
        if not isinstance(gold, str if self.free_text else Mapping):
            raise self._wrong_kind("gold", gold, row)
        for path, match in self.match.items():
            mistake = gold_mistake(path, match, fields_of(gold), self.schema or {})
            if not mistake:
                continue
            value = value_at(fields_of(gold), path)
            advice = f"Task {self.name!r} compares the fields {', '.join(self.match)}."
            if mistake == "is missing":
                advice += " Write null where there is none."
            got = "" if value is None else f", got {value!r}"
            raise DataError(
                f"gold field {path!r} {mistake}{got}.",
                where=f"document {row!r}",
                next_step=gold_advice(match, value) or advice,
            )

    def _wrong_kind(self, what: str, answer: KnownAnswer, row: str) -> DataError:
        if self.free_text:
            got = "an empty text" if isinstance(answer, str) else "an object"
            wanted = f"a text, since task {self.name!r} has no schema"
            step = "Write the answer as text, or give the task a schema."
        else:
            got = f"the text {answer[:40]!r}" if isinstance(answer, str) else type(answer).__name__
            wanted = f"an object with the fields of task {self.name!r}"
            step = "Write its fields as an object; only a task with schema=None answers with text."
        where = f"document {row!r}" if row else ""
        return DataError(f"{what} must be {wanted}, got {got}.", where=where, next_step=step)


def _calls(messages: Sequence[Mapping[str, Any]]) -> bool:
    """Return whether the last message calls tools."""
    return bool(messages and messages[-1].get("tool_calls"))


def _hears_ctrl_c() -> bool:
    """Return whether Ctrl-C may be why a KeyboardInterrupt was raised; helpers do not hear it."""
    return signal.getsignal(signal.SIGINT) is signal.default_int_handler
