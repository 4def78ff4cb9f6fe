"""What a chat template is given besides the messages: its own switches, and today's date.

A template may read variables such as `enable_thinking`, `reasoning_effort` or `date_string`, and
may ask the clock (transformers gives it `strftime_now`). A run pins the date to the day it began.
Left out: tools and documents, which are not settings.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from offapi.errors import ConfigError, nearest

Options = Mapping[str, Any]

DATE = "date"  # the key by which a user sets the date that the clock shows
HISTORY = "history"  # the key that says how an agent's earlier turns are written, see HISTORIES
# append: as each was generated; split: as the template rewrites them, in an episode of its own each
HISTORIES = ("append", "split")
CLOCK = "strftime_now"  # what templates call; as a key, the day that a run has pinned
# What offapi, transformers or jinja2 gives a template, beside the special tokens.
GIVEN = frozenset(
    (
        *("messages", "tools", "documents", "add_generation_prompt", "continue_final_message"),
        *("conversation", "chat_template", "tokenize", "sanitize_control_tokens", "padding"),
        *("truncation", "max_length", "return_tensors", "return_dict", "tokenizer_kwargs"),
        *("return_assistant_tokens_mask", "raise_exception", CLOCK, "range", "dict", "lipsum"),
        *("cycler", "joiner", "namespace"),
    )
)
_BLOCK = re.compile(r"\{%[-+]?\s*(?:end)?generation\s*[-+]?%\}")  # a tag of transformers' own
_CODES = [*"aAbBcdDeFGhHIjmMpSTuUVwWxXyYZ", *(f"-{code}" for code in "demHIMSj")]


def variables(template: str | Mapping[str, str]) -> frozenset[str]:
    """Return the variables that a template reads, of any of several; none where it is broken."""
    from jinja2 import Environment, TemplateError, meta

    if not isinstance(template, str):
        return frozenset().union(*map(variables, template.values()))
    environment = Environment(extensions=["jinja2.ext.loopcontrols"])
    try:
        return frozenset(
            meta.find_undeclared_variables(environment.parse(_BLOCK.sub("", template)))
        )
    except (TemplateError, RecursionError):
        return frozenset()  # rendering it says what is wrong


def settings_of(read: frozenset[str]) -> list[str]:
    """Return the keys that a user can set, of the variables that a template reads."""
    own = {name for name in read - GIVEN if not name.endswith("_token")}
    return sorted(own | ({DATE} if CLOCK in read else set()))


def check_options(options: Options, read: frozenset[str], where: str) -> None:
    """Raise ConfigError for a key that the template never reads, or a date that cannot be read."""
    known = settings_of(read)
    if HISTORY in options:
        _one_of(options[HISTORY], where)
    for name, value in options.items():
        if name not in (CLOCK, HISTORY) and name not in known:
            says = f"it reads {', '.join(known)}" if known else "it reads no setting at all"
            raise ConfigError(
                f"template.{name}: the chat template never reads {name!r}; {says}.",
                where=where,
                next_step=nearest(name, known) if known else "Leave it out.",
            )
        if name == DATE and CLOCK in read:
            _day(value, where)


def pin_date(options: Options, day: str) -> Options:
    """Return `options` with the day that a run began, for a template that asks the clock."""
    return {**options, CLOCK: day}


def given_variables(options: Options) -> dict[str, Any]:
    """Return what the template is given as variables; a day of TOML as text."""
    return {
        name: value.isoformat() if isinstance(value, date) else value
        for name, value in options.items()
        if name not in (CLOCK, HISTORY)
    }


def shown(value: object) -> str:
    """Return an option's value as a recipe or `--template` spells it."""
    return json.dumps(value, default=str, ensure_ascii=False)


def with_date(template: str, options: Options) -> str:
    """Return `template` with a clock that stands still, where a date is set.

    `date` comes before the day that a run has pinned; without either, the clock is the system's.
    The clock is a jinja2 macro, since transformers hands templates no functions.
    """
    day = options.get(DATE, options.get(CLOCK))
    if day is None or CLOCK not in template:
        return template
    moment = datetime.fromisoformat(str(day))
    texts = {f"%{code}": moment.strftime(f"%{code}") for code in _CODES}
    codes = json.dumps(texts | {"%%": "%"})
    return (
        "{% macro strftime_now(format) %}{% set now = namespace(text=format) %}"
        f"{{% for code, text in {codes}.items() %}}"
        "{% set now.text = now.text | replace(code, text) %}{% endfor %}"
        # trim_blocks takes this line's end, so the template's own first line stays the first
        "{{ now.text }}{% endmacro %}\n" + template
    )


def _one_of(value: object, where: str) -> None:
    if value not in HISTORIES:
        raise ConfigError(
            f'template.{HISTORY} must be "append" or "split", got {value!r}.',
            where=where,
            next_step="Leave it out for append.",
        )


def _day(value: object, where: str) -> None:
    try:
        date.fromisoformat(str(value))
    except ValueError:
        raise ConfigError(
            f"template.{DATE} must be a day such as 2026-11-01, got {value!r}.",
            where=where,
            next_step="Write year, month and day.",
        ) from None
