"""A task's constraint: for each document, what each of its completions may say.

Levels, each with those before it: "schema" (the answer parses and fits), "source" (quoted fields,
numbers and dates are what the document prints), "register" (fields bound to a list are names of
it). Left out: sampling, which is an engine's, and places in the document (`evidence`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import orjson

from offapi.chat.chat import Chat
from offapi.constrain.closing import closing
from offapi.constrain.fields import Binding, BoundFields, Level
from offapi.constrain.grammar import Grammar, Part, one_of_texts
from offapi.constrain.keywords import refused
from offapi.constrain.matcher import GrammarMatcher, Room, Runner
from offapi.constrain.quotes import check_limits, quoted
from offapi.constrain.readings import date_texts, fitting, number_texts
from offapi.constrain.register import read_register
from offapi.constrain.vocabulary import Vocabulary
from offapi.errors import ConfigError
from offapi.files.hashing import sha256_file
from offapi.task import Task
from offapi.task.answer_text import spell_value
from offapi.task.bind import OneOf
from offapi.text.display import plural

if TYPE_CHECKING:
    from llguidance import LLMatcher

_SAMPLE = "Word 2000-01-01 1.00"  # a document that every kind of field has a reading of
_SPARE = 8  # tokens of room for a way to the end that is not the shortest
_CHARACTER = 4  # tokens that the rest of one character may take


@dataclass(frozen=True)
class Bounded:
    """One document's constraint: the matcher to copy, the room its answers need, what is unread.

    `unread` are the paths of bound fields of which the document prints no reading and that
    cannot be null: their values are bound by the schema alone.
    """

    matcher: LLMatcher
    room: Room
    unread: tuple[str, ...]


@dataclass(frozen=True)
class Constraints:
    """The constraint of a task's answers at a level, for the tokens of one model."""

    task: Task
    level: Level
    vocabulary: Vocabulary

    @classmethod
    def of(cls, task: Task, chat: Chat, level: Level) -> Constraints:
        """Return the constraint of `task` at `level`.

        Raise ConfigError for a task without a schema, a schema that cannot be enforced, a list
        that cannot be read, or a max_answer_tokens that no whole answer fits into; ModelError for
        a tokenizer that the grammar library cannot read.
        """
        if task.schema is None:
            raise ConfigError(
                f"task {task.name!r} answers with text, which constrain = {level!r} cannot bind.",
                next_step="Give the task a schema, or set constrain = 'off'.",
            )
        found = cls(task, level, Vocabulary.of(chat))
        if level != "off":
            found.bounded(_SAMPLE)
        return found

    @property
    def fields(self) -> BoundFields:
        """What binds the task's fields."""
        return BoundFields(self.task, self.level)

    def start(self, document: str, *, second: bool = False, candidates: int = 1) -> DocumentStart:
        """Return what bounds the completions of `document`.

        Sample 0 is bound; if `second`, sample 1 is free. The others are runner-ups: they begin the
        first bound field with its second, third, ... likeliest token. `candidates` counts the bound
        ones. Raise what `of` raises, for this document, when the first completion starts.
        """
        return DocumentStart(self, document, second, candidates)

    def matcher(self, bounded: Bounded, rank: int) -> GrammarMatcher:
        """Return a fresh matcher of a document; `rank` above 0 makes it that runner-up."""
        path, runner = self.fields.candidates, None
        if rank and path is not None:
            name = path.rpartition(".")[2]
            runner = Runner(orjson.dumps(name) + b':"', rank)
        return GrammarMatcher(bounded.matcher.deep_copy(), self.vocabulary, bounded.room, runner)

    @cached_property
    def key(self) -> str:
        """The level, and a hash of everything in the task that bounds answers, lists included."""
        lists = {
            path: sha256_file(bound.path)
            for path, bound in self.task.bind.items()
            if isinstance(bound, OneOf) and self.level == "register"
        }
        quoted = sorted(self.fields.declared.keys() - lists.keys())
        kinds = {path: repr(match) for path, match in self.task.match.items()}
        parts = [self.task.schema, self.task.max_answer_tokens, kinds, quoted, lists]
        digest = hashlib.sha256(orjson.dumps(parts, option=orjson.OPT_SORT_KEYS)).hexdigest()
        return f"{self.level}-{digest[:12]}"

    def bounded(self, document: str) -> Bounded:
        """Return the constraint of one document. Raise what `of` raises."""
        if not self._by_document:
            return self._whole
        return self._build(document)

    @cached_property
    def _by_document(self) -> bool:
        return self.level in ("source", "register")

    @cached_property
    def _whole(self) -> Bounded:
        return self._build("")

    def _build(self, document: str) -> Bounded:
        from llguidance import LLMatcher

        text, part, unread = self.grammar(document)
        matcher = LLMatcher(self.vocabulary.tokenizer, text)
        if matcher.is_error():
            raise ConfigError(
                f"the constraint of task {self.task.name!r} cannot be built:"
                f" {matcher.get_error().splitlines()[0]}.",
                next_step="Simplify the schema, or set constrain = 'off'.",
            )
        return Bounded(matcher, self._room(matcher, part), unread)

    def grammar(self, document: str) -> tuple[str, Part, tuple[str, ...]]:
        """Return the Lark grammar of a document's answers, its parts' sum, and what is unread."""
        binder = _Binder(self, document)
        text, part = binder.grammar.whole()
        return text, part, tuple(binder.grammar.unread)

    def _room(self, matcher: LLMatcher, part: Part) -> Room:
        """Return what answers need. Raise ConfigError where none fits into max_answer_tokens."""
        limit = self.task.max_answer_tokens
        needs = Needs.of(matcher, part, self.vocabulary, limit)
        if needs.least is None or needs.least > limit:
            least = "no way to end one was found"
            if needs.least is not None:
                least = f"the shortest one has {plural(needs.least, 'token')}"
            raise ConfigError(
                f"max_answer_tokens = {limit} has no room for an answer of task"
                f" {self.task.name!r}: {least}.",
                where="task, field 'max_answer_tokens'",
                next_step=f"Raise it to {plural(2 * (needs.least or needs.longest), 'token')}.",
            )
        return needs.room(limit)


@dataclass(frozen=True)
class Needs:
    """What answers of a grammar need, in tokens: the shortest one found, and `Room`'s numbers.

    `least` is None where no way to end an answer was found.
    """

    least: int | None
    longest: int
    step: int

    @classmethod
    def of(cls, matcher: LLMatcher, part: Part, vocabulary: Vocabulary, limit: int) -> Needs:
        """Measure the answers of a grammar's `part`, whose `matcher` is at its beginning."""
        longest = len(vocabulary.encode(part.widest)) + _SPARE
        end = closing(matcher, "outside", vocabulary, 2 * longest + limit)
        step = len(vocabulary.encode(part.step)) + _CHARACTER
        return cls(None if end is None else len(end), longest, step)

    def room(self, limit: int) -> Room:
        """Return the room of an answer of at most `limit` tokens, which is at least `least`."""
        return Room(limit, max(self.longest, (self.least or 0) + self.step), self.step)


class DocumentStart:
    """What bounds one document's completions, as `offapi.engine.StartMatcher`."""

    def __init__(self, of: Constraints, document: str, second: bool, candidates: int) -> None:
        self._of, self._document, self._second, self._count = of, document, second, candidates

    @property
    def document(self) -> str:
        """The document."""
        return self._document

    @property
    def alike(self) -> bool:
        """Whether all completions are bound alike, as `Constraints.start(document)` does it."""
        return not self._second and self._count == 1

    @cached_property
    def bounded(self) -> Bounded:
        """The document's constraint, built when it is first needed."""
        return self._of.bounded(self._document)

    @cached_property
    def grammar(self) -> tuple[str, Part] | None:
        """The grammar of the document's answers, and its parts' sum; None: they are free."""
        return None if self._of.level == "off" else self._of.grammar(self._document)[:2]

    @property
    def unread(self) -> tuple[str, ...]:
        """The bound fields of which the document prints no reading; the schema alone binds them."""
        return () if self._of.level == "off" else self.bounded.unread

    def __call__(self, sample: int) -> GrammarMatcher | None:
        """Return the matcher of a completion; None: it is free."""
        if self._of.level == "off" or (self._second and sample == 1):
            return None
        rank = sample - 1 if self._second and sample else sample
        return self._of.matcher(self.bounded, rank if rank < self._count else 0)


class _Binder:
    """The grammar of one document's answers, in the making."""

    def __init__(self, of: Constraints, document: str) -> None:
        self.of, self.document = of, document
        schema = of.task.schema or {}
        self.grammar = Grammar(schema, self._bind, of.fields.amounts)

    def _bind(self, path: str, part: Mapping[str, Any]) -> Part | None:
        binding = self.of.fields.at(path, part)
        if binding is None:
            return None
        found = self._bound(binding, path, part)
        if found is None and path not in self.grammar.unread:
            self.grammar.unread.append(path)
        return found

    def _bound(self, binding: Binding, path: str, part: Mapping[str, Any]) -> Part | None:
        if isinstance(binding, OneOf):
            return self._listed(binding, path, part)
        if binding == "quote":
            check_limits(part, path)
            return quoted(self.document, part, path, self.grammar)
        return self._read(binding, path, part)

    def _listed(self, binding: OneOf, path: str, part: Mapping[str, Any]) -> Part:
        """Return the names that the document may mean. Raise ConfigError where none is allowed."""
        names = read_register(binding).candidates(self.document)
        names = fitting(names, part, self.grammar.root)
        if not names:
            raise refused(path, "minLength or pattern", f"no near name of {binding.path} fits it")
        return _choice([spell_value(name, amount=False) for name in names])

    def _read(
        self, binding: Literal["number", "date"], path: str, part: Mapping[str, Any]
    ) -> Part | None:
        read = number_texts if binding == "number" else date_texts
        texts = read(self.document, part, self.grammar.root)
        return _choice(texts) if texts else None


def _choice(texts: Sequence[str]) -> Part:
    longest = max(texts, key=len)
    return Part(one_of_texts(texts), longest, longest)
