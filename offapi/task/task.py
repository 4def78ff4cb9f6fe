"""Task: one file a user writes, used by every recipe to prompt, to learn and to grade.

The same object words the prompt, spells the answer the student learns, and scores any
answer with its checks. Left out: tokens (`offapi.chat.chat`) and tools (not yet).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from offapi.checks import gold as gold_check
from offapi.checks.verdict import Answer, Check, Context, Match, Verdict, parse
from offapi.data.traces import Trace
from offapi.errors import ConfigError, DataError, describe_error
from offapi.task.answer_text import spell
from offapi.task.example import Example
from offapi.task.validate import validate_task
from offapi.text.normalise import is_number
from offapi.workers import time_limit

Weighted = tuple[Check, float]
Message = dict[str, Any]
Scores = Sequence[float | None]
# (documents, answers), plain or async
Reward = Callable[[Sequence[str], Sequence[str]], Scores | Awaitable[Scores]]
Part = Verdict  # one check's share of a grade
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
        validate_task(self)

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
            problem = (
                "is missing" if name not in gold else gold_check.gold_mistake(kind, gold[name])
            )
            if problem:
                raise DataError(
                    f"gold field {name!r} {problem}"
                    + (f", got {gold[name]!r}." if name in gold else "."),
                    where=f"document {row!r}",
                    next_step=f"Task {self.name!r} compares the fields {', '.join(self.match)}.",
                )
