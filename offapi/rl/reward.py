"""Reward one batch of completions by the task's `reward` or its checks, and audit it.

Rewards come first and see no gold, unless the run rewards right answers. Before each call of the
user's code the process notes the call and the completion, so that another process can name a call
that never returns. Left out: how long a call may take, see `reward_pool`.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import math
import reprlib
import traceback
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from numbers import Real
from pathlib import Path
from statistics import fmean
from typing import Any

from offapi.checks.gold import compare_fields
from offapi.checks.verdict import Answer, Check, Context, Verdict, check_needs, plain
from offapi.data.documents import KnownAnswer
from offapi.errors import ConfigError, error_sentence
from offapi.task import Task, load_task
from offapi.text.display import plural
from offapi.workers.supervised import CallNote

BATCH = -1  # in place of a completion's index: all of them
GOLD = "gold"  # the audit of the fields of `match`
ENVIRONMENT = "environment"  # the part that is its score
SCORE = "Let its `score` return a number, or add a check that needs no gold to the task."
FIX = "Fix it. Where it cannot judge, it should return None, which leaves the completion out."


@dataclass(frozen=True)
class Asked:
    """A completion, the document it answers, and that document's gold, which no reward sees.

    `messages` are an agent's whole chat, and `score` is its environment's, which stands in for the
    task's reward and checks.
    """

    row: str  # the document's id
    document: str
    text: str
    gold: KnownAnswer | None = None
    messages: tuple[Mapping[str, Any], ...] = ()
    score: float | None = None


@dataclass(frozen=True)
class Judged:
    """The reward and audit of a completion.

    `reward` is None where the reward function gave none; the completion then does not count in its
    group. `parts` are the scores of all checks, `audit` those of the checks that are not rewarded.
    The audit "gold", where gold is known, is the share of the task's `match` fields that are right;
    `fields` has each of them.
    """

    reward: float | None
    parts: Mapping[str, float]
    audit: Mapping[str, float]
    fields: Mapping[str, float] = field(default_factory=dict)

    @property
    def rewarded(self) -> dict[str, float]:
        """The scores of the checks that make the reward."""
        return {name: score for name, score in self.parts.items() if name not in self.audit}


@dataclass(frozen=True)
class Fault:
    """Why a batch has no rewards; `index` is the completion at fault, or BATCH."""

    what: str
    where: str
    next_step: str
    index: int
    traceback: str


def rows_at(index: int, asked: Sequence[Asked]) -> str:
    """Return the rows of `asked` that a call for completion `index`, or BATCH, is for."""
    first, last = (asked[0], asked[-1]) if index == BATCH else (asked[index], asked[index])
    if first.row == last.row:
        return f"row {first.row!r}"
    return f"rows {first.row!r} to {last.row!r}"


def rewarded(task: Task, *, gold: bool = False) -> tuple[str, ...]:
    """Return the names of the checks that make the reward.

    None of the audit, none that needs gold without `gold`, and no check at all where the task has a
    `reward`. Raises ConfigError where nothing would be left to reward, and no environment scores,
    or where `gold` is to be rewarded and no check compares it.
    """
    if gold:
        _require_gold_checks(task)
    if task.reward is not None:
        return ()
    names = [
        name
        for name, (check, _) in task.checks.items()
        if name not in task.audit and (gold or not check_needs(check, "gold"))
    ]
    if not names and task.environment is None:
        step = "Add a check that needs no gold, or a `reward` function, to the task."
        raise ConfigError(f"task {task.name!r} has nothing to reward: gold is not.", next_step=step)
    return tuple(names)


def _require_gold_checks(task: Task) -> None:
    """Raise ConfigError where right answers could not be rewarded."""
    compared = [name for name, (check, _) in task.checks.items() if check_needs(check, "gold")]
    if task.reward is None and set(compared) - set(task.audit):
        return
    what = f"task {task.name!r} has no check that compares an answer with gold."
    step = "Add `all_right` or `matches_gold` to its checks, or leave out `gold`."
    if task.reward is not None:
        what = f"task {task.name!r} has a `reward` function, which sees no gold."
        step = "Leave out `gold`, or reward by checks."
    raise ConfigError(what, where="gold", next_step=step)


def judging(
    settings: tuple[Path, bool], note: CallNote
) -> Callable[[Sequence[Asked]], list[Judged] | Fault]:
    """Return the function that judges batches by a task file, and whether it rewards gold."""
    task_file, gold = settings
    return Rewarder(load_task(task_file), note, asyncio.Runner(), gold=gold).judge


class Rewarder:
    """A task as GRPO asks it: rewards first, without gold unless asked for, then the audit."""

    def __init__(
        self, task: Task, note: CallNote, loop: asyncio.Runner, *, gold: bool = False
    ) -> None:
        self._task, self._note, self._loop, self._gold = task, note, loop, gold
        self._index, self._call = BATCH, ""  # the call in progress
        names = rewarded(task, gold=gold)
        audit = [name for name in task.checks if name not in names]
        self._rewarding = self._part(names)
        self._auditing = self._part(audit)
        self._goldless = self._part(
            [name for name in audit if not check_needs(task.checks[name][0], "gold")]
        )

    def _part(self, names: Sequence[str]) -> Task | None:
        """Return the task with some of its checks, each noted before it runs; None without any."""
        all_checks = self._task.checks
        checks = {
            name: (self._noted(name, all_checks[name][0]), all_checks[name][1]) for name in names
        }
        return replace(self._task, checks=checks, audit=()) if checks else None

    def _noted(self, name: str, check: Check) -> Check:
        """Return `check` as one that notes itself before it runs."""

        @functools.wraps(check)
        def noted(document: str, answer: Answer, context: Context) -> Verdict:
            self._begin(f"check {name!r}")
            return check(document, answer, context)

        return noted

    def _begin(self, call: str) -> None:
        self._call = call
        self._note.begin(self._index, call)

    def judge(self, asked: Sequence[Asked]) -> list[Judged] | Fault:
        """Return each completion's reward, in order.

        Raises DataError where the task cannot compare the gold.
        """
        for one in asked:
            if one.gold is not None:
                self._task.check_gold(one.gold, row=one.row)
        self._index = BATCH
        try:
            return self._judge(asked)
        except ConfigError as error:
            shown = "".join(traceback.format_exception(error.__cause__ or error))
            return Fault(error.what, error.where, error.next_step, self._index, shown)

    def _judge(self, asked: Sequence[Asked]) -> list[Judged]:
        rewards = self._rewards(asked)
        judged = []
        for i, (one, (reward, parts)) in enumerate(zip(asked, rewards, strict=True)):
            right = self._right(one)
            _, checked = self._grade(
                self._goldless if one.gold is None else self._auditing, asked, i, one.gold
            )
            audit = dict(checked)
            if right:
                audit[GOLD] = fmean(right.values())
            judged.append(Judged(reward, {**parts, **checked}, audit, right))
        return judged

    def _rewards(
        self, asked: Sequence[Asked]
    ) -> Sequence[tuple[float | None, Mapping[str, float]]]:
        """Return each completion's reward, and the scores that make it."""
        scored = [
            None if one.score is None else (one.score, {ENVIRONMENT: one.score}) for one in asked
        ]
        if all(scored):
            return [each for each in scored if each]
        judged: list[tuple[float | None, Mapping[str, float]]]
        if self._task.reward is not None:
            judged = [(reward, {}) for reward in self._ask(asked)]
        elif self._rewarding is None:
            what = "the environment gave no score, and no check is rewarded."
            raise ConfigError(what, where=f"task {self._task.name!r}", next_step=SCORE)
        else:
            golds = [one.gold if self._gold else None for one in asked]
            judged = [self._grade(self._rewarding, asked, i, gold) for i, gold in enumerate(golds)]
        return [own or given for own, given in zip(scored, judged, strict=True)]

    def _grade(
        self, task: Task | None, asked: Sequence[Asked], index: int, gold: KnownAnswer | None
    ) -> tuple[float, Mapping[str, float]]:
        """Return the weighted mean of the checks of `task`, and each one's score."""
        if task is None:
            return 0.0, {}
        self._index, one = index, asked[index]
        grade = task.grade(one.document, one.text, gold, row=one.row, messages=one.messages)
        return float(grade.score), {
            str(name): float(part.score) for name, part in grade.parts.items()
        }

    def _right(self, one: Asked) -> dict[str, float]:
        if one.gold is None or isinstance(one.gold, str):
            return {}
        right = compare_fields(self._task.read_answer(one.text).value, one.gold, self._task.match)
        return {f"{GOLD}.{name}": float(share) for name, share in right.items()}

    def _ask(self, asked: Sequence[Asked]) -> list[float | None]:
        """Return what the task's `reward` gives for all completions, checked.

        A coroutine is awaited, all in one loop.
        """
        reward = self._task.reward
        assert reward is not None
        name = getattr(reward, "__name__", type(reward).__name__)
        self._begin(f"reward {name!r}")
        documents = [one.document for one in asked]
        try:
            returned: object = reward(documents, [one.text for one in asked])
            if inspect.isawaitable(returned):
                returned = self._loop.run(_wait(returned))
            given = _listed(returned)
        except BaseException as error:  # SystemExit too
            raise self._wrong(f"the function raised {error_sentence(error)}", asked) from error
        if given is None:
            raise self._wrong(
                f"the function returned {reprlib.repr(returned)}, not a list of numbers.", asked
            )
        if len(given) != len(asked):
            raise self._wrong(
                f"the function returned {plural(len(given), 'reward')} for"
                f" {plural(len(asked), 'completion')}.",
                asked,
            )
        return [self._number(value, asked, i) for i, value in enumerate(given)]

    def _number(self, value: object, asked: Sequence[Asked], index: int) -> float | None:
        if (value := plain(value)) is None:
            return None
        with suppress(OverflowError):
            if isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
                return float(value)
        self._index = index
        raise self._wrong(
            f"the function gave {reprlib.repr(value)}, not a finite number or None.", asked
        )

    def _wrong(self, what: str, asked: Sequence[Asked]) -> ConfigError:
        where = f"task {self._task.name!r}, {self._call}, {rows_at(self._index, asked)}"
        return ConfigError(what, where=where, next_step=FIX)


def _listed(value: object) -> list[object] | None:
    """Return a list, tuple or array as a list; None for anything else or unordered."""
    if (
        not isinstance(value, Iterable)
        or not hasattr(value, "__getitem__")
        or isinstance(value, str | bytes | Mapping)
    ):
        return None
    return list(value)


async def _wait(value: Awaitable[object]) -> object:
    return await value
