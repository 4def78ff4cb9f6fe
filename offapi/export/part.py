"""What an exported folder consists of, and what opens each part again.

A form of `offapi export --to FORM` is a module `offapi.export.FORM_form` with two functions:
`bytes_on_disk(source, quantize)` says beforehand what it takes, and raises where it cannot be done;
`write_form(source, folder, quantize)` writes into an empty folder and returns its parts. Left out:
the openers; those of torch and MLX are in the backends' `exported.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from offapi.episodes import Floats
from offapi.export.prompts import Turns

Tokens = tuple[int, ...]
TAIL = 32  # logprobs at the end of a sequence that a form gives at least, where it has so many


@dataclass(frozen=True, kw_only=True)
class ExportedPart:
    """One thing that a tool opens. `opener` is `package.module:function`, an `Opener`."""

    what: str  # as a sentence names it: "fused model"
    tool: str  # whose own code opens it: "transformers"
    opener: str
    how_to_open: str  # Python or shell, for the model card; OUT is the exported folder
    dtype: str  # the coarsest of its weights: float32, float16 or bfloat16
    bits: int | None = None  # of quantised weights
    folder: str = "."  # inside the exported folder
    rounds: bool = False  # its tool rounds what it computes to that dtype too
    temporary: bool = False  # written on the way: checked, and then removed


class OpenedForm(Protocol):
    """A part as its own tool has opened it, computing in float32."""

    def logprobs(self, tokens: Sequence[int]) -> Floats:
        """Return the logprobs (nats) of the last tokens, of all but the first where cheap."""
        ...

    def greedy(self, prompt: Sequence[int], max_tokens: int, stop_ids: Sequence[int]) -> Tokens:
        """Return the likeliest tokens after `prompt`, up to a stop id, which is the last."""
        ...

    def render(self, turns: Turns) -> Tokens | None:
        """Return the tokens of a chat by the folder's own template, up to the answer."""
        ...


class Opener(Protocol):
    """Opens the part in `folder`; only an adapter needs `base`, the base model's folder."""

    def __call__(self, folder: Path, base: Path) -> OpenedForm: ...
