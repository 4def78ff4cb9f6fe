"""A JSON schema as a grammar of compact JSON, whose fields a document may bind further.

Objects are written in the order of their properties and hold no others; what neither this module
nor the grammar library can enforce is refused, with the field and the keyword. Left out: what binds
a field (`bound`), and tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from offapi.checks.schema_types import choices_of
from offapi.constrain.keywords import (
    ANNOTATIONS,
    DATE,
    STRING_CHARACTER,
    check_keywords,
    own_keywords,
    refused,
)
from offapi.task.answer_text import spell_value

Schema = Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """A part of a grammar: its Lark expression, and texts that say how long it may become.

    `widest` is an answer of its kind with everything in it once; `step` is the most that one token
    can commit to, such as the longest of several names.
    """

    rule: str
    widest: str
    step: str = ""


# (path, schema of a string, number or integer) -> what binds it; None: the schema alone
BindField = Callable[[str, Schema], Part | None]


def literal(text: str) -> str:
    """Return `text` as a literal of a Lark grammar."""
    return orjson.dumps(text).decode()


def one_of_texts(texts: Sequence[str]) -> str:
    """Return the Lark expression of any of `texts`."""
    return "(" + " | ".join(map(literal, texts)) + ")"


@dataclass
class Grammar:
    """The grammar of a schema, in the making: rules are added as parts of the schema are read."""

    root: Schema
    bind: BindField
    amounts: Callable[[str], bool]  # whether numbers at a path are written as amounts
    rules: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)  # paths that a document has no reading for

    def whole(self) -> tuple[str, Part]:
        """Return the Lark grammar of the answer, and its parts' sum."""
        part = self.value(self.root, "", ())
        return "\n".join([f"start: {part.rule}", *self.rules]), part

    def add(self, expression: str, terminal: bool = False) -> str:
        """Add a rule and return its name."""
        if len(self.rules) >= _MOST_RULES:
            raise refused("", "$ref", "the schema has too many parts")
        name = f"{'T' if terminal else 'r'}{len(self.rules)}"
        self.rules.append(f"{name}: {expression}")
        return name

    def value(self, part: object, path: str, seen: tuple[str, ...]) -> Part:
        """Return the grammar of the value at `path`; `seen` are the references that led here."""
        if part is True or part == {}:
            return self.json({}, path)
        if not isinstance(part, Mapping):
            raise refused(path, "false", "no value fits it")
        check_keywords(part, path)
        if isinstance(reference := part.get("$ref"), str) and own_keywords(part) == {"$ref"}:
            if reference in seen:
                return self.json(part, path)
            return self.value(self.target(reference, path), path, (*seen, reference))
        for name in ("anyOf", "oneOf"):
            if name in part and own_keywords(part) <= {name} | _HINTS:
                if name == "oneOf" and not self.disjoint(part[name]):
                    return self.json(part, path)
                return self.any_of(part[name], path, seen)
        if "enum" in part or "const" in part:
            return self.choices(part, path)
        types = part.get("type")
        if isinstance(types, list):
            return self.any_of([{**part, "type": one} for one in types], path, seen)
        if types is None and ("properties" in part or not path):
            types = "object"
        return self.typed(types, part, path, seen)

    def any_of(self, parts: Sequence[object], path: str, seen: tuple[str, ...]) -> Part:
        """Return the grammar of any of `parts`; of null alone where the rest has no reading."""
        found = self.either([self.value(one, path, seen) for one in parts])
        if path in self.unread and any(map(_null, parts)):
            self.unread.remove(path)
            return Part('"null"', "null")
        return found

    def typed(self, name: object, part: Schema, path: str, seen: tuple[str, ...]) -> Part:
        """Return the grammar of one JSON type."""
        if name == "null":
            return Part('"null"', "null")
        if name == "boolean":
            return Part('("true" | "false")', "false")
        if name == "object" and own_keywords(part) <= _OBJECT and _closed(part):
            return self.fields_of(part, path, seen)
        if name == "array" and own_keywords(part) <= _ARRAY and "items" in part:
            return self.items_of(part, path, seen)
        if name in ("string", "number", "integer"):
            bound = self.bind(path, part)
            if bound is not None:
                return bound
        if name == "string" and own_keywords(part) == {"type", "format"} and _day(part):
            return Part(self.add(f"/{DATE}/", terminal=True), '"2000-01-01"')
        if name == "string" and own_keywords(part) <= _STRING:
            return self.string(part)
        return self.json(part, path)

    def fields_of(self, part: Schema, path: str, seen: tuple[str, ...]) -> Part:
        """Return the grammar of an object with the properties of `part`, in their order."""
        properties = part.get("properties") or {}
        required = set(part.get("required") or ())
        if missing := sorted(required - set(properties)):
            raise refused(path, "required", f"{missing[0]!r} is not one of the properties")
        fields = [
            (name, self.value(inner, f"{path}.{name}" if path else name, seen))
            for name, inner in properties.items()
        ]
        following = started = ""  # what may follow where nothing is written yet, and after a field
        for name, value in reversed(fields):
            entry = f"{literal(_key(name))} {value.rule}"
            if name in required:
                following = self.add(f"{entry} {started}")
                started = self.add(f'"," {following}')
            else:
                plain = self.add(f"{entry} {started}")
                following = self.add(f"{plain} | {following}" if following else f"({plain})?")
                started = self.add(f'("," {entry})? {started}')
        widest = "{" + ",".join(_key(name) + value.widest for name, value in fields) + "}"
        step = max((value.step for _, value in fields), key=len, default="")
        optional = [n + v.widest for n, v in fields if n not in required]
        return Part(f'("{{" {following} "}}")', widest, max([step, *optional], key=len))

    def items_of(self, part: Schema, path: str, seen: tuple[str, ...]) -> Part:
        """Return the grammar of a list."""
        item = self.value(part["items"], path + "[]", seen)
        name = self.add(item.rule)
        least, most = part.get("minItems", 0), part.get("maxItems")
        step = max(item.step, item.widest, key=len)
        _check_least(path, "minItems", least, len(item.widest))
        widest = "[" + ",".join([item.widest] * max(1, least)) + "]"
        if most == 0:
            return Part('"[]"', "[]")
        more = f'("," {name}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        inner = f"{name} {more}"
        return Part(f'("[" {inner if least else f"({inner})?"} "]")', widest, step)

    def string(self, part: Schema) -> Part:
        """Return the grammar of a free string."""
        least, most = part.get("minLength", 0), part.get("maxLength", "")
        _check_least("", "minLength", least, 1)
        name = self.add(f'/"{STRING_CHARACTER}{{{least},{most}}}"/', terminal=True)
        return Part(name, '"' + "ab " * (least + 6) + '"')

    def choices(self, part: Schema, path: str) -> Part:
        """Return the grammar of the values of an enum that fit the rest of the schema."""
        from offapi.constrain.readings import fitting

        values = fitting(choices_of(part, self.root), part, self.root)
        if not values:
            raise refused(path, "enum", "none of its values fits the rest of the schema")
        texts = [spell_value(value, amount=self.amounts(path)) for value in values]
        longest = max(texts, key=len)
        return Part(one_of_texts(texts), longest, longest)

    def either(self, parts: Sequence[Part]) -> Part:
        """Return the grammar of any of `parts`."""
        widest = max((part.widest for part in parts), key=len)
        step = max((part.step for part in parts), key=len)
        rule = "(" + " | ".join(part.rule for part in parts) + ")"
        return Part(rule, widest, max(step, widest, key=len))

    def json(self, part: Schema, path: str) -> Part:
        """Return what the grammar library makes of a part of the schema.

        Raise ConfigError where something below `path` is bound, which it knows nothing of.
        """
        self.check_free(part, path, 0)
        kept: dict[str, Any] = {key: part[key] for key in part if key not in _PROSE}
        for name in ("$defs", "definitions"):
            if name in self.root:
                kept.setdefault(name, self.root[name])
        kept["x-guidance"] = {
            "whitespace_flexible": False, "item_separator": ",", "key_separator": ":"
        }  # fmt: skip
        text = orjson.dumps(kept).decode()
        check_library(f"start: %json {text}", path)
        return Part(self.add(f"%json {text}"), "x" * 24)

    def check_free(self, part: object, path: str, depth: int) -> None:
        """Raise ConfigError where a string or number below `path` is bound by the document."""
        if depth > _DEEPEST or not isinstance(part, Mapping):
            return
        leaf = depth > 0 and part.get("type") in ("string", "number", "integer")
        if leaf and self.bind(path, part) is not None:
            raise refused(
                    path, "the schema around it", "a bound field stands in what only a validator"
                    " reads (anyOf, allOf, patternProperties …)"
                )  # fmt: skip
        for name, inner in (part.get("properties") or {}).items():
            self.check_free(inner, f"{path}.{name}" if path else name, depth + 1)
        self.check_free(part.get("items"), path + "[]", depth + 1)
        for name in ("anyOf", "oneOf", "allOf"):
            for inner in part.get(name) or ():
                self.check_free(inner, path, depth + 1)

    def target(self, reference: str, path: str) -> object:
        """Return the part of the schema that `reference` names."""
        found: object = self.root
        for step in reference.removeprefix("#").split("/")[1:]:
            step = step.replace("~1", "/").replace("~0", "~")
            found = found.get(step) if isinstance(found, Mapping) else None
        if not reference.startswith("#") or found is None:
            raise refused(path, "$ref", f"{reference!r} names no part of the schema")
        return found

    def disjoint(self, parts: Iterable[object]) -> bool:
        """Return whether no value fits two of `parts`, by their types."""
        types = [part.get("type") for part in parts if isinstance(part, Mapping)]
        return all(isinstance(one, str) for one in types) and len(set(types)) == len(list(parts))


_DEEPEST = 8
_MOST_RULES = 4000
_LONGEST = 1 << 18  # characters of the shortest answer that a schema may ask for
_HINTS = frozenset({"type"})
_OBJECT = frozenset({"type", "properties", "required", "additionalProperties"})
_ARRAY = frozenset({"type", "items", "minItems", "maxItems"})
_STRING = frozenset({"type", "minLength", "maxLength"})
_PROSE = ANNOTATIONS - {"$defs", "definitions"}


def _closed(part: Schema) -> bool:
    return bool(part.get("properties")) and part.get("additionalProperties") in (None, False)


def _null(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "null"


def _day(part: Schema) -> bool:
    return part.get("format") == "date"


def _check_least(path: str, keyword: str, least: int, size: int) -> None:
    """Raise ConfigError where `least` things of `size` characters are more than any answer has."""
    if least * size > _LONGEST:
        raise refused(path, keyword, "no answer of a model is that long")


def _key(name: str) -> str:
    return orjson.dumps(name).decode() + ":"


def check_library(grammar: str, path: str) -> None:
    """Raise ConfigError, naming the field at `path`, for what the grammar library cannot do."""
    from llguidance import LLMatcher

    error = LLMatcher.validate_grammar(grammar)
    if error:
        said = error.partition("failed to compile JSON schema: ")[2] or error
        lines = [line for line in said.splitlines() if not line.lstrip()[:1].isdigit()]
        why = " ".join(lines).partition(" | start")[0].strip(" ^")
        raise refused(path, " ".join(why.split()), "the grammar library cannot enforce it")
