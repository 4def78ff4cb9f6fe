"""What a request asks of the engine, and what is said besides the text when its rows are done.

Left out: making it of a request (`offapi.serve.plan`) and sending it
(`offapi.serve.chat_completions`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from offapi.completions import Completion
from offapi.engine import RowRequest
from offapi.serve.chat_request import ChatRequest
from offapi.serve.served_models import ServedModel
from offapi.tools import Turn


@dataclass(frozen=True)
class Finished:
    """What is known when all rows are done.

    `member` is the answer's `offapi` object. `text` replaces the text of the one choice; None
    leaves it. `reasons` are the choices' finish reasons where they are not the rows' own. `turns`
    are the choices that call tools.
    """

    member: Mapping[str, Any]
    text: str | None = None
    reasons: Mapping[int, str] = field(default_factory=dict)
    turns: Mapping[int, Turn] = field(default_factory=dict)


@dataclass(frozen=True)
class Exchange:
    """A request, as rows of the engine.

    The first `n` rows are the choices, in order; others are read with them. `finish` gets the
    completions of all rows. With `held`, `finish` may replace texts, so none is sent before.
    """

    model: ServedModel
    asked: ChatRequest
    rows: tuple[RowRequest, ...]
    finish: Callable[[Sequence[Completion]], Awaitable[Finished]]
    held: bool = False

    @property
    def prompt_tokens(self) -> int:
        """The tokens of the prompt, which the choices share."""
        return len(self.rows[0].tokens)
