"""Load a recipe (TOML) into a frozen dataclass; errors name file, line and field.

Unknown keys are errors. Relative paths in a file are relative to that file, those in `--set`
to the working folder. Left out: environment variables, includes, and formats other than TOML.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, is_dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from offapi.errors import ConfigError, nearest, place
from offapi.text.type_names import plain_types

T = TypeVar("T")
Key = tuple[str, ...]


def load(path: Path, kind: type[T], overrides: Sequence[str] = ()) -> T:
    """Read `path` as a `kind` (a dataclass), with `overrides` such as `lora.rank=8` on top.

    Raise ConfigError for a file that is not TOML, an unknown or missing key, a value of the
    wrong type, or a value that the dataclass refuses with ValueError.
    """
    values, source = _read(path, kind, overrides)
    _no_unknown(values, kind, (), source)
    return cast(T, _convert(values, kind, (), source))


def load_table(
    path: Path, name: str, kinds: Mapping[str, Any], overrides: Sequence[str] = ()
) -> dict[str, Any]:
    """Read the table `name` of `path`, whose keys have the types in `kinds`.

    A key that is not given is None. Raise ConfigError as `load` does.
    """
    values, source = _read(path, {name: kinds}, overrides)
    table = values.get(name, {})
    _no_unknown(table, kinds, (name,), source)
    return {
        key: _convert(table[key], kind, (name, key), source) if key in table else None
        for key, kind in kinds.items()
    }


def peek(path: Path, key: str) -> Any:
    """Return the value of a top-level `key`, or None. Raise ConfigError if it is not TOML."""
    try:
        return tomllib.loads(_text(path)).get(key)
    except tomllib.TOMLDecodeError as error:
        what, line = _split_line(str(error))
        raise ConfigError(
            f"not valid TOML: {what}.", where=f"{path}{line}", next_step="Fix that line."
        ) from None


def resolved(config: Any) -> dict[str, Any]:
    """Return `config`, defaults included, as JSON values for a run's manifest."""
    # Without asdict, msgspec would leave out the defaults.
    plain: dict[str, Any] = msgspec.to_builtins(asdict(config), enc_hook=_encode)
    return plain


def _read(path: Path, kind: Any, overrides: Sequence[str]) -> tuple[dict[str, Any], _Source]:
    """Return the values of a file with `overrides` on top, and where each came from."""
    text = _text(path)
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        what, line = _split_line(str(error))
        raise ConfigError(
            f"not valid TOML: {what}.", where=f"{path}{line}", next_step="Fix that line."
        ) from None
    values = _located(values, kind, path.absolute().parent)
    source = _Source(path, text)
    for override in overrides:
        source = _set(values, override, source)
    return values, source


def _convert(value: Any, kind: Any, key: Key, source: _Source) -> Any:
    """Return the value of `key` as a `kind`. Raise ConfigError if it is something else."""
    try:
        return msgspec.convert(value, kind, strict=True, dec_hook=_decode)
    except msgspec.ValidationError as error:
        raise _refused(str(error), value, kind, key, source) from None


class _Source:
    """The origin of each key: a line of the file, or an override."""

    def __init__(self, path: Path, text: str, overrides: Mapping[Key, str] | None = None) -> None:
        self.path, self.text, self.overrides = path, text, dict(overrides or {})

    def where(self, key: Key) -> str:
        """Return `recipe.toml, line 3, field 'lora.rank'`, or `--set lora.rank=x`."""
        for given, override in self.overrides.items():
            if key and given[: len(key)] == key[: len(given)]:
                return f"--set {override}"
        return place(self.path, _line_of(self.text, key), ".".join(key))

    def overridden(self, key: Key) -> bool:
        """Return whether the value of `key` was given with --set."""
        return key in self.overrides


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"not UTF-8 ({error.reason}).", where=str(path), next_step="Save it as UTF-8."
        ) from None
    except OSError as error:
        others = (
            [other.name for other in path.parent.glob("*.toml")] if path.parent.is_dir() else []
        )
        step = nearest(path.name, others) if others else "Check the path."
        raise ConfigError(
            f"cannot be read: {error.strerror}.", where=str(path), next_step=step
        ) from None


def _split_line(message: str) -> tuple[str, str]:
    """Split tomllib's message into its text and `, line N`."""
    position = re.search(r" \(at (?:line (\d+)|end of document).*\)$", message)
    if not position:
        return message, ""
    return message[: position.start()], f", line {position[1]}" if position[1] else ", at its end"


def _line_of(text: str, key: Key) -> int | None:
    """Return the 1-based line of the statement that defines `key`, or else of its table.

    The shortest prefix of the file that is valid TOML and has the key ends with that statement,
    whatever its syntax.
    """
    lines = text.splitlines()
    first = 1  # the line after the last valid prefix, where the current statement starts
    for end in range(1, len(lines) + 1):
        try:
            values: Any = tomllib.loads("\n".join(lines[:end]) + "\n")
        except tomllib.TOMLDecodeError:
            continue
        if _holds(values, key):
            return first
        first = end + 1
    return _line_of(text, key[:-1]) if len(key) > 1 else None


def _holds(values: Any, key: Key) -> bool:
    for part in key:
        if isinstance(values, list):
            if not part.isdigit() or int(part) >= len(values):
                return False
            values = values[int(part)]
        elif isinstance(values, dict) and part in values:
            values = values[part]
        else:
            return False
    return True


def _set(values: dict[str, Any], override: str, source: _Source) -> _Source:
    """Put `a.b=value` into `values`, and return a source that remembers it."""
    name, equals, raw = override.partition("=")
    key = tuple(part.strip() for part in name.split("."))
    if not equals or not all(key):
        raise ConfigError(
            "an override must have the form key=value.",
            where=f"--set {override}",
            next_step="For example: --set lr=5e-4",
        )
    table = values
    for part in key[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise ConfigError(
                f"{part!r} is not a table.",
                where=f"--set {override}",
                next_step="See the recipe file.",
            )
    table[key[-1]] = toml_value(raw)
    return _Source(source.path, source.text, {**source.overrides, key: override})


def toml_value(raw: str) -> Any:
    """Return `raw` as a TOML value, or else as a string."""
    try:
        parsed = tomllib.loads(f"x = {raw}")
    except tomllib.TOMLDecodeError:
        return raw
    usable = isinstance(parsed["x"], bool | int | float | str | list | dict)
    return parsed["x"] if usable and len(parsed) == 1 else raw


def _located(values: Any, kind: Any, folder: Path) -> Any:
    """Return `values` with relative paths made absolute, wherever `kind` wants a Path."""
    hints = _hints(kind)
    if hints and isinstance(values, dict):
        return {name: _located(value, hints.get(name), folder) for name, value in values.items()}
    if isinstance(values, list):
        item = next(iter(get_args(kind)), None)
        return [_located(value, item, folder) for value in values]
    if isinstance(values, dict):
        item = get_args(kind)[1] if len(get_args(kind)) == 2 else None
        return {name: _located(value, item, folder) for name, value in values.items()}
    if isinstance(values, str) and (kind is Path or Path in get_args(kind)):
        return str(folder / Path(values).expanduser())
    return values


def _no_unknown(values: Any, kind: Any, key: Key, source: _Source) -> None:
    hints = _hints(kind)
    if not hints or not isinstance(values, dict):
        return
    for name, value in values.items():
        if name not in hints:
            where = source.where((*key, name))
            raise ConfigError(f"unknown key {name!r}.", where=where, next_step=nearest(name, hints))
        _no_unknown(value, hints[name], (*key, name), source)


def _decode(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value).expanduser()
    raise TypeError(f"Expected `{kind.__name__}`, got `{type(value).__name__}`")


def _encode(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    raise TypeError(f"a configuration cannot hold a {type(value).__name__}")


def _refused(message: str, value: Any, kind: Any, above: Key, source: _Source) -> ConfigError:
    """Turn msgspec's error about the value of the key `above` into a ConfigError.

    Its message ends with ` - at `$.a.b[0]``.
    """
    what, _, tail = message.partition(" - at `$")
    key = tuple(re.findall(r"[^.\[\]`]+", tail))
    missing = re.search(r"missing required field `(.+)`", what)
    if missing:
        where = source.where((*above, *key)) if above or key else str(source.path)
        name = ".".join((*above, *key, missing[1]))
        return ConfigError(
            f"{name!r} is missing.",
            where=where,
            next_step=f"Add {missing[1]} = ... to the file, or use --set {name}=...",
        )
    if what.split(" ")[0] in _hints_at(kind, key):  # a dataclass's own refusal: "lr must be ..."
        key = (*key, what.split(" ")[0])
    value, choices = _at(value, key), _choices(kind, key)
    key = (*above, *key)
    if choices:
        step = nearest(str(value), choices)
    elif source.overridden(key) and "Expected `str`" in what:
        step = f"To give a text, quote it: --set '{'.'.join(key)}=\"...\"'."
    else:
        step = "Fix that value."
    words = plain_types(what).replace("an object", "a table")  # as TOML calls it
    offending = "" if isinstance(value, dict | list) or repr(value) in what else f": {value!r}"
    return ConfigError(f"{words}{offending}.", where=source.where(key), next_step=step)


def _at(values: Any, key: Key) -> Any:
    """Return the value given for `key`; None if a default was refused."""
    for part in key:
        values = values[int(part)] if isinstance(values, list) else values.get(part)
    return values


def _hints(kind: Any) -> Mapping[str, Any]:
    """Return the types of the keys of a dataclass, of an optional one, or of a mapping."""
    if isinstance(kind, Mapping):
        return kind
    dataclass = next((each for each in (kind, *get_args(kind)) if is_dataclass(each)), None)
    return get_type_hints(dataclass) if dataclass else {}


def _hints_at(kind: Any, key: Key) -> Mapping[str, Any]:
    """Return the hints of the dataclass at `key`, or of the last one on the way."""
    hints = _hints(kind)
    for part in key:
        hints = _hints(hints.get(part)) or hints
    return hints


def _choices(kind: Any, key: Key) -> list[str]:
    """Return the strings that a Literal field accepts; none for another kind of field."""
    for part in key:
        kind = _hints(kind).get(part)
    literal = next((each for each in (kind, *get_args(kind)) if get_origin(each) is Literal), None)
    return [str(choice) for choice in get_args(literal)]
