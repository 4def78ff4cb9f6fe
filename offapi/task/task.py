"""Task: one file a user writes, used by every recipe to prompt, to learn and to grade.

The same object words the prompt, spells the answer the student learns, and scores any
answer with its checks. Left out: tokens (`offapi.chat.chat`) and tools (not yet).
"""

from __future__ import annotations

import math
import re
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

from offapi.checks import gold as gold_check
from offapi.checks.schema import validator
from offapi.checks.verdict import Answer, Check, Context, Match, Verdict, parse
from offapi.data.traces import Trace
from offapi.errors import (
    ConfigError,
    DataError,
    NetworkBlocked,
    OffapiError,
    describe_error,
    nearest,
    place,
)
from offapi.task.answer_text import spell
from offapi.text.normalise import is_number
from offapi.workers import time_limit

Weighted = tuple[Check, float]
Message = dict[str, Any]
Scores = Sequence[float | None]
Reward = Callable[
    [Sequence[str], Sequence[str]], Scores | Awaitable[Scores]
]  # (documents, answers), plain or async


@dataclass(frozen=True)
class Example:
    """A worked example: what a teacher is shown before the document it shall answer for."""

    document: str
    answer: Mapping[str, Any]


Part = Verdict  # one check's share of a grade
KINDS: tuple[Match, ...] = get_args(Match)
_MEND = "Mend the check; an answer it cannot judge should score 0 with a reason."


@dataclass(frozen=True)
class Grade:
    """How good an answer is: the weighted mean of the checks'
    scores, each with its reason, and the value graded.
    """

    score: float  # in [0, 1]; audit checks do not count
    parts: Mapping[str, Part]
    value: Mapping[str, Any] | None  # None: the text is not one JSON object


@dataclass(frozen=True)
class Task:
    """What to extract, how to say it, how to tell a good answer from a bad one.

    `schema` is the JSON schema of the answer, an object; its properties' order is the order answers
    are written in. `match` says how each field is compared with gold. `checks` maps a name to
    (check, weight); all of them together may take `check_seconds` for an answer (see
    `offapi.workers.time_limit`; None: no limit). ConfigError when the parts contradict each other.

    `audit` names checks that are scored and never rewarded: where the score rises and they do not,
    a student games the others. `reward` scores a whole batch of answers at once in GRPO, in place
    of the checks, which are all audit then: a finite number each, or None, which leaves that answer
    out.
    """

    name: str
    instructions: str  # without examples
    schema: Mapping[str, Any]
    checks: Mapping[str, Weighted]
    match: Mapping[str, Match]
    examples: tuple[Example, ...] = ()
    max_answer_tokens: int = 96
    check_seconds: float | None = 10.0
    audit: tuple[str, ...] = ()
    reward: Reward | None = None

    def __post_init__(self) -> None:
        _validate(self)

    def messages(self, document: str, shots: int = 0) -> list[Message]:
        """The chat that asks for `document`'s answer, the first `shots` examples worked before it.

        All documents share everything before their own text, so a backend prefills it once.
        """
        if not 0 <= shots <= len(self.examples):
            raise ConfigError(
                f"task {self.name!r} has {len(self.examples)} worked examples, {shots} were asked"
                " for.",
                next_step="Ask for fewer shots, or add `examples` to the task.",
            )
        chat: list[Message] = [{"role": "system", "content": self.instructions}]
        for example in self.examples[:shots]:
            chat.append({"role": "user", "content": example.document})
            chat.append({"role": "assistant", "content": self.answer_text(example.answer)})
        return [*chat, {"role": "user", "content": document}]

    def answer_text(self, answer: Mapping[str, Any]) -> str:
        """`answer` as the one JSON text the student
        learns: fields in the schema's order, no spaces.

        Numbers keep two decimals at least (128.50), see `offapi.task.answer_text`.
        """
        return spell(answer, self.schema, self.match)

    def grade_trace(self, trace: Trace) -> Grade:
        """Score the last message of `trace` for what
        it was made from; raises what `grade` raises.
        """
        context = Context(self.schema, self.match, trace.gold, trace.messages, trace.tools or ())
        return self._grade(trace.document, trace.answer, context, trace.id)

    def grade(
        self, document: str, text: str, gold: Mapping[str, Any] | None = None, *, row: str = ""
    ) -> Grade:
        """Score the answer `text` for `document`; `row` names it in errors.

        ConfigError when a check raises or returns no score in [0, 1]: a faulty check is
        never a score.
        """
        return self._grade(document, text, Context(self.schema, self.match, gold), row)

    def _grade(self, document: str, text: str, context: Context, row: str) -> Grade:
        answer = parse(text)
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
                raise  # another task's check asked for this grade, and its time is up
            what = (
                f"the answer's checks took more than check_seconds = {self.check_seconds:g}; this"
                " one was at it."
            )
            mend = "Mend the check, or give the task more check_seconds."
            raise ConfigError(what, where=self._where(name, row), next_step=mend) from None
        return Grade(total / weights, parts, answer.value)

    def _ask(
        self, name: str, check: Check, document: str, answer: Answer, context: Context, row: str
    ) -> Verdict:
        try:
            verdict = check(document, answer, context)
        except Exception as error:
            where = self._where(name, row)
            raise ConfigError(
                f"the check raised {describe_error(error)}.", where=where, next_step=_MEND
            ) from error
        if not isinstance(verdict, Verdict):
            what = f"the check returned {verdict!r}, not a Verdict."
        elif not is_number(verdict.score) or not 0.0 <= verdict.score <= 1.0:
            what = f"the check scored {verdict.score!r}, not in [0, 1]."
        else:
            return verdict
        raise ConfigError(what, where=self._where(name, row), next_step=_MEND)

    def _where(self, check: str, row: str) -> str:
        return f"task {self.name!r}, check {check!r}" + (f", row {row!r}" if row else "")

    def check_gold(self, gold: Mapping[str, Any], *, row: str) -> None:
        """DataError naming `row` and the field when `gold`
        lacks a field of `match` or has it in a wrong type.
        """
        for name, kind in self.match.items():
            problem = "is missing" if name not in gold else gold_check.mistake(kind, gold[name])
            if problem:
                raise DataError(
                    f"gold field {name!r} {problem}"
                    + (f", got {gold[name]!r}." if name in gold else "."),
                    where=f"document {row!r}",
                    next_step=f"Task {self.name!r} compares the fields {', '.join(self.match)}.",
                )


def load(path: Path) -> Task:
    """The `task` a Python file defines. The file is run: it is the user's own code.

    ConfigError names the file and the line of whatever keeps it from being a task, NetworkBlocked
    those that asked for the network.
    """
    try:
        source = path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8: {error.reason}.", where=str(path), next_step="Save it as UTF-8."
        ) from None
    except OSError as error:
        hint = "Name the Python file that defines `task`; `offapi init` writes one."
        raise ConfigError(
            f"cannot read the task file: {error.strerror}.", where=str(path), next_step=hint
        ) from None
    module = ModuleType(f"offapi_task_{path.stem}")
    module.__file__ = str(path)
    try:
        exec(compile(source, str(path), "exec"), module.__dict__)
    except (Exception, SystemExit) as error:
        raise _fault(path, error) from error
    found = getattr(module, "task", None)
    if not isinstance(found, Task):
        what = (
            "defines no `task`"
            if found is None
            else f"`task` is a {type(found).__name__}, not an offapi.Task"
        )
        raise ConfigError(
            f"{what}.", where=str(path), next_step="Write `task = offapi.Task(...)` in it."
        )
    return found


def _fault(path: Path, error: BaseException) -> OffapiError:
    """`error`, raised while the file ran, at the last line of the file that led to it."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename == str(path)
    ]
    line = (
        error.lineno
        if isinstance(error, SyntaxError) and error.filename == str(path)
        else (lines or [None])[-1]
    )
    where = place(path, line)
    if blocked := _blocked(error):
        return NetworkBlocked(blocked.what, where=where, next_step=blocked.next_step)
    if isinstance(error, OffapiError):
        return ConfigError(error.what, where=where, next_step=error.next_step)
    return _unknown(error, where) or ConfigError(
        f"{describe_error(error)}.", where=where, next_step="Mend the task file."
    )


def _unknown(error: BaseException, where: str) -> ConfigError | None:
    """The error for an argument that Task or Example does
    not have, None where that is not what `error` says.
    """
    found = re.match(
        r"(Task|Example)\.__init__\(\) got an unexpected keyword argument '(\w+)'", str(error)
    )
    if not found or not isinstance(error, TypeError):
        return None
    known = [field.name for field in fields({"Task": Task, "Example": Example}[found[1]])]
    step = nearest(found[2], known)
    return ConfigError(
        f"offapi.{found[1]} has no argument {found[2]!r}.", where=where, next_step=step
    )


def _blocked(error: BaseException | None) -> NetworkBlocked | None:
    """The guard's refusal that `error` is, or that a library told as an error of its own."""
    while error is not None and not isinstance(error, NetworkBlocked):
        error = error.__cause__ or (error.__context__ if isinstance(error, OSError) else None)
    return error


def _validate(task: Task) -> None:
    """ConfigError at the first part of `task` that is wrong."""
    _validate_words(task)
    _validate_schema(task)
    if not task.checks:
        raise _wrong(
            task, "checks is empty", 'Add one, such as `"json": (offapi.checks.is_json, 1.0)`.'
        )
    for name, weighted in task.checks.items():
        if not (isinstance(weighted, tuple) and len(weighted) == 2 and callable(weighted[0])):
            raise _wrong(task, f"checks[{name!r}] is {weighted!r}", "Write (check, weight).")
        weight = weighted[1]
        if not is_number(weight) or not math.isfinite(weight) or weight <= 0:
            raise _wrong(
                task, f"checks[{name!r}] has the weight {weight!r}", "Weights are numbers above 0."
            )
    _validate_audit(task)
    for i, example in enumerate(task.examples):
        if not example.document.strip():
            raise _wrong(task, f"examples[{i}] has an empty document", "Give it one.")
        if not isinstance(example.answer, Mapping):
            raise _wrong(
                task, f"examples[{i}] has the answer {example.answer!r}", "Write an object, {...}."
            )
        errors = [
            error.message for error in validator(task.schema).iter_errors(dict(example.answer))
        ]
        if errors:
            raise _wrong(
                task,
                f"examples[{i}] does not fit the schema: {errors[0]}",
                "Mend the example or the schema.",
            )


def _validate_audit(task: Task) -> None:
    if not isinstance(task.audit, tuple):
        raise _wrong(
            task, f"audit is {task.audit!r}", 'Write a tuple of checks\' names, `audit=("json",)`.'
        )
    for name in task.audit:
        if not isinstance(name, str) or name not in task.checks:
            raise _wrong(
                task,
                f"audit names {name!r}, not one of the checks",
                nearest(str(name), task.checks),
            )
    if set(task.audit) == set(task.checks):
        raise _wrong(
            task,
            "every check is audit, and none is left to score by",
            "Leave one check out of `audit`.",
        )
    if task.reward is not None and not callable(task.reward):
        raise _wrong(
            task, f"reward is {task.reward!r}", "Write a function of (documents, answers)."
        )


def _validate_words(task: Task) -> None:
    for name in ("name", "instructions"):
        text = getattr(task, name)
        if not isinstance(text, str) or not text.strip():
            raise _wrong(task, f"{name} is {text!r}", "It must be a text that is not empty.")
    if not isinstance(task.max_answer_tokens, int) or task.max_answer_tokens < 1:
        raise _wrong(
            task,
            f"max_answer_tokens is {task.max_answer_tokens!r}",
            "It must be a whole number above 0.",
        )
    seconds = task.check_seconds
    if seconds is not None and not (is_number(seconds) and 0 <= seconds < math.inf):
        raise _wrong(
            task,
            f"check_seconds is {seconds!r}",
            "It must be a number of seconds, or None for no limit.",
        )
    if not isinstance(task.examples, tuple) or not all(
        isinstance(example, Example) for example in task.examples
    ):
        raise _wrong(
            task,
            "examples must be a tuple of offapi.Example",
            "Write `examples=(offapi.Example(...),)`.",
        )


def _validate_schema(task: Task) -> None:
    if not isinstance(task.schema, Mapping) or not isinstance(
        task.schema.get("properties"), Mapping
    ):
        hint = 'Write `schema={"type": "object", "properties": {...}, "required": [...]}`.'
        raise _wrong(task, "schema has no properties", hint)
    try:
        validator(task.schema)
    except (ValueError, TypeError) as error:
        raise _wrong(
            task, f"schema is no JSON schema: {error}", "See json-schema.org, draft 2020-12."
        ) from None
    if not task.match:
        raise _wrong(
            task,
            "match is empty",
            'Say how fields are compared, as in `match={"total": "number"}`.',
        )
    for name, kind in task.match.items():
        if name not in task.schema["properties"]:
            raise _wrong(
                task,
                f"match names {name!r}, not in the schema",
                nearest(name, task.schema["properties"]),
            )
        if kind not in KINDS:
            raise _wrong(task, f"match[{name!r}] is {kind!r}", nearest(str(kind), KINDS))


def _wrong(task: Task, what: str, next_step: str) -> ConfigError:
    label = task.name if isinstance(task.name, str) else "?"
    return ConfigError(f"task {label!r}: {what}.", next_step=next_step)
