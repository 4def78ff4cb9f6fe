"""Check that the backends compute the same from one model folder, on a few fixed token sequences.

The tokens are drawn from a fixed seed, so neither tokenizer nor template plays a part. The logprobs
in the folder's `parity.json` are the truth, computed by a library alone (`reference`); those of the
demo model come with offapi. Left out: adapters, dtypes other than fp32, and which implementation a
backend takes (`agreement`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from offapi.backend import Backend
from offapi.completions import Sampling
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import ModelError
from offapi.models import lock
from offapi.models.settings_files import read_json
from offapi.models.weight_files import check_weights
from offapi.randomness import uniforms
from offapi.text.display import plural

TOLERANCE = 1e-3  # nats
SEED = 20261
LENGTHS = (5, 24, 61, 130)  # tokens; a wrong rope shows more in longer sequences


@dataclass(frozen=True)
class GreedyRow:
    """What is said greedily after `prompt`, and by how many nats each token led."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    margins: tuple[float, ...]


@dataclass(frozen=True)
class ParityRecord:
    """Logprobs (nats) of `sequences`, computed by `by`, and what it says greedily.

    Row i has one fewer than sequence i, whose first token has no context.
    """

    by: str
    sequences: tuple[tuple[int, ...], ...]
    logprobs: tuple[tuple[float, ...], ...]
    greedy: tuple[GreedyRow, ...] = ()


def parity_sequences(
    vocabulary: int, lengths: Sequence[int] = LENGTHS
) -> tuple[tuple[int, ...], ...]:
    """Return the fixed sequences for a model with a vocabulary of that size."""
    draws = [uniforms(SEED, 0, i, 0, length) for i, length in enumerate(lengths)]
    return tuple(tuple(map(int, draw.astype(np.float64) * vocabulary)) for draw in draws)


def other_greedy_tokens(backend: Backend, record: ParityRecord) -> str:
    """Return where `backend` says other tokens greedily than the record, "" if nowhere.

    All prompts are rolled out together, as groups of two, so that they share what they can. Where
    two tokens are as likely to within the tolerance, either may follow, and the row ends there.
    """
    rows = record.greedy
    if not rows:
        return ""
    sampling = Sampling(max_tokens=len(rows[0].tokens), stop_ids=())
    for group in backend.rollout([row.prompt for row in rows], 2, sampling):
        row = rows[group.prompt]
        for said in group.completions:
            for place, (token, wanted) in enumerate(zip(said.tokens, row.tokens, strict=True)):
                if token == wanted:
                    continue
                if row.margins[place] > 2 * TOLERANCE:
                    return f"token {place + 1} after {plural(len(row.prompt), 'token')}"
                break
    return ""


def record_parity(backend: Backend, tokens: Sequence[tuple[int, ...]], by: str) -> ParityRecord:
    """Return what `backend` computes for `tokens`."""
    rows = backend.score(_episodes(tokens))
    return ParityRecord(by, tuple(tokens), tuple(map(round_logprobs, rows)))


def round_logprobs(logprobs_T: Floats) -> tuple[float, ...]:
    """Return the logprobs as a record holds them."""
    return tuple(round(float(logprob), 6) for logprob in logprobs_T)


def largest_difference(backend: Backend, record: ParityRecord) -> float:
    """Return the largest difference (nats) between `backend` and the record.

    It is NaN if either contains NaN.
    """
    rows = backend.score(_episodes(record.sequences))
    pairs = zip(rows, record.logprobs, strict=True)
    return float(
        np.max([np.max(np.abs(np.asarray(a, np.float64) - np.asarray(b))) for a, b in pairs])
    )


def encode_record(record: ParityRecord) -> bytes:
    """Return the content of `parity.json`."""
    pairs = zip(record.sequences, record.logprobs, strict=True)
    rows = [{"tokens": tokens, "logprobs": logprobs} for tokens, logprobs in pairs]
    content: dict[str, Any] = {"version": 1, "by": record.by, "sequences": rows}
    if record.greedy:
        content["greedy"] = [asdict(row) for row in record.greedy]
    return orjson.dumps(content)


def read_record(folder: Path, name: str = lock.PARITY, again: str = "") -> ParityRecord | None:
    """Return the record in `folder`, None if it has none.

    Raise ModelError when it is damaged; `again` says what the user does then.
    """
    path = folder / name
    if not path.is_file():
        return None
    content = read_json(path)
    try:
        rows = [
            (tuple(map(int, row["tokens"])), tuple(map(float, row["logprobs"])))
            for row in content["sequences"]
        ]
        if not rows or any(len(logprobs) != len(tokens) - 1 for tokens, logprobs in rows):
            raise ValueError("every token but the first needs a logprob")
        sequences = tuple(tokens for tokens, _ in rows)
        greedy = tuple(map(_greedy_row, content.get("greedy", ())))
        logprobs = tuple(logprobs for _, logprobs in rows)
        return ParityRecord(str(content["by"]), sequences, logprobs, greedy)
    except (KeyError, TypeError, ValueError) as error:
        again = again or f"Run `offapi models remove {path.parent.name}`, and add the model again."
        raise ModelError(
            f"the file is not a parity record ({error}).", where=str(path), next_step=again
        ) from None


def _greedy_row(row: Mapping[str, Any]) -> GreedyRow:
    prompt, tokens = (tuple(map(int, row[key])) for key in ("prompt", "tokens"))
    margins = tuple(map(float, row["margins"]))
    if not prompt or not len(tokens) == len(margins) > 0:
        raise ValueError("every greedy token needs its margin")
    return GreedyRow(prompt, tokens, margins)


def _episodes(tokens: Sequence[tuple[int, ...]]) -> list[Episode]:
    return [
        Episode(f"parity-{i}", (Segment(row[:1], sampled=False), Segment(row[1:], sampled=True)))
        for i, row in enumerate(tokens)
    ]


def too_large_for(folder: Path, config: Mapping[str, Any], name: str) -> str:
    """Return why the backend `name` should not try to load `folder` in fp32, or ""."""
    import psutil

    if config.get("quantization"):
        return "" if name == "mlx" else "the weights are quantised for MLX"
    if config.get("quantization_config") and name == "mlx":
        return "the weights are quantised for torch"
    need = 4 * sum(int(np.prod(shape)) for _, shape in check_weights(folder).values())  # bytes
    free = int(psutil.virtual_memory().available)
    return f"needs {need / 1e9:.1f} GB, but {free / 1e9:.1f} GB are free" if need > free else ""
