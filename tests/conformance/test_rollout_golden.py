"""Rollouts give the tokens that they gave before there was an engine below them, bit for bit.

`rollout_golden.json` was recorded from the code that decoded one closed call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import oracle
import orjson
import pytest
from test_rollout import KINDS, PROMPTS, SAMPLED, run

from offapi.backend import Backend, Completion, Sampling
from offapi.model_spec import Limits

Load = Callable[..., Backend]
GOLDEN = Path(__file__).parent / "rollout_golden.json"
STOPPING = replace(SAMPLED, stop_ids=tuple(range(0, 300, 9)), max_tokens=16)
GREEDY = Sampling(max_tokens=12, stop_ids=(7, 81))
RAGGED = [(5, 6, 7), tuple(range(5, 90)), (250,), (5, 6), tuple(range(120, 160))]


@dataclass(frozen=True)
class Case:
    """One call of `rollout`."""

    prompts: Sequence[tuple[int, ...]]
    n: int
    sampling: Sampling


CASES = {
    **{f"{kind}, 3 each": Case(PROMPTS, 3, sampling) for kind, sampling in KINDS.items()},
    "stopping": Case(PROMPTS, 1, STOPPING),
    "stopping, 3 each": Case(PROMPTS, 3, STOPPING),
    "greedy": Case(PROMPTS, 1, GREEDY),
    "ragged, nothing shared": Case(RAGGED, 3, STOPPING),
    "one prompt": Case(PROMPTS[:1], 7, STOPPING),
    "twins": Case([RAGGED[1]] * 3, 2, STOPPING),
}


def completions(backend: Backend, case: Case) -> list[Completion]:
    """Return all completions, by prompt and then sample."""
    groups = run(backend, case.prompts, case.n, case.sampling)
    return [completion for group in groups for completion in group]


@pytest.mark.parametrize("rows", [1, 2, 7, 64])
@pytest.mark.parametrize("name", CASES)
def test_rollouts_give_what_they_gave(
    adapted: Load, backend_name: str, name: str, rows: int
) -> None:
    recorded = orjson.loads(GOLDEN.read_bytes())[backend_name][name]
    done = completions(adapted(limits=Limits(rollout_rows=rows)), CASES[name])
    assert [list(completion.tokens) for completion in done] == [row["tokens"] for row in recorded]
    for completion, row in zip(done, recorded, strict=True):
        logprobs_T = np.frombuffer(bytes.fromhex(row["logprobs"]), "<f4")
        np.testing.assert_allclose(completion.logprobs, logprobs_T, atol=oracle.CLOSE)


def record(backend: Backend) -> dict[str, object]:
    """Return what `rollout_golden.json` holds for a backend."""
    return {
        name: [
            {
                "tokens": completion.tokens,
                "logprobs": np.array(completion.logprobs, "<f4").tobytes().hex(),
            }
            for completion in completions(backend, case)
        ]
        for name, case in CASES.items()
    }
