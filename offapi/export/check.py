"""Whether an exported model computes what its source computes: greedy tokens and logprobs.

Both compute in float32, so what differs is what was written. Left out: running them
(`offapi.export.reopen`), and accuracy on documents (`offapi.export.accuracy_lost`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from offapi import backend as backends
from offapi.backend import Backend, Sampling
from offapi.episodes import Episode, Floats, Segment
from offapi.errors import ExportError
from offapi.export.part import TAIL
from offapi.export.prompts import ANSWER_TOKENS, fixed_prompts
from offapi.export.source import ExportSource
from offapi.models.adapter_probe import holds_for, read_probe, tolerance
from offapi.models.parity import largest_difference, parity_sequences
from offapi.text.display import plural, share

Tokens = tuple[int, ...]

# Nats: float32 as between the backends; the others by what rounding the weights costs.
TOLERANCE = {"float32": 1e-3, "float16": 2e-2, "bfloat16": 2e-1}
ROUNDED_TOO = 5  # times as much where the tool rounds what it computes, as llama.cpp does
# Of quantised weights the mean over all tokens counts, since single tokens can change much.
MEAN_TOLERANCE = {8: 0.25, 4: 2.0}
FEWEST_BITS = 8  # from which no mean tolerance below holds


@dataclass(frozen=True)
class SourceAnswers:
    """What the source computes: greedy answers with their margins, and logprobs of sequences.

    A margin is the logprob of a greedy token less the likeliest other token's, in nats.
    """

    prompts: tuple[Tokens, ...]
    greedy: tuple[Tokens, ...]
    margins: tuple[tuple[float, ...], ...]
    sequences: tuple[Tokens, ...]
    logprobs: tuple[Floats, ...]  # (T - 1,) each: the first token has no context
    stop_ids: Tokens


@dataclass(frozen=True)
class FormAnswers:
    """What an exported form computes for the same prompts and sequences.

    `logprobs` are those of the last tokens of each sequence, where a tool is slow to give all.
    `rendered` are the tokens that its tool makes of the fixed chats with the folder's own template;
    None where the tool does not say.
    """

    greedy: tuple[Tokens, ...]
    logprobs: tuple[Floats, ...]
    rendered: tuple[Tokens, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class FormCheck:
    """A form compared with its source."""

    greedy_equal: int  # prompts whose greedy tokens are the source's
    ties: int  # prompts that differ first where the source itself was undecided
    prompts: int
    tokens: int  # whose logprobs were compared
    largest_difference_nats: float
    mean_difference_nats: float
    tolerance: float  # nats, for the largest difference; for the mean where it is quantised
    quantised: bool
    template_equal: bool | None  # None: the form's tool renders no chat
    passed: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the object that export.json and --json show."""
        return asdict(self)

    def sentence(self) -> str:
        """Return what was found, as one sentence."""
        have = share(self.greedy_equal, self.prompts, "prompt", ("has", "have"))
        alike = f"{have} the same greedy tokens"
        if self.ties:
            alike += f" ({self.ties} more differ where the source was undecided)"
        which = "mean" if self.quantised else "largest"
        return (
            f"{alike}; the largest difference of a logprob is {self.largest_difference_nats:.2g}"
            f" nats, the mean {self.mean_difference_nats:.2g} (tolerance for the {which}:"
            f" {self.tolerance:g})."
        )


def require_as_trained(backend: Backend, source: ExportSource) -> None:
    """Raise ExportError where the loaded source differs from what its training recorded.

    Without a record, or with one of a base in other bits, nothing is known.
    """
    record = read_probe(source.answering.recorded)
    if record is None or not holds_for(record, backend.name, source.answering.quantize):
        return
    difference, allowed = largest_difference(backend, record), tolerance(record, "float32")
    if not difference <= allowed:
        raise ExportError(
            f"the run does not compute what its training recorded ({record.by}): the largest"
            f" difference is {difference:.2g} nats, at most {allowed:g} is allowed.",
            where=str(source.answering.recorded),
            next_step="Take the folder from its run again, or train again.",
        )


def ask_source(backend: Backend, source: ExportSource) -> SourceAnswers:
    """Return what the loaded source computes for the fixed prompts and random sequences."""
    prompts = fixed_prompts(source.chat, source.task)
    sampling = Sampling(ANSWER_TOKENS, source.chat.stop_ids, signals=True)
    groups = sorted(backend.rollout(prompts, 1, sampling), key=lambda group: group.prompt)
    answers = [group.completions[0] for group in groups]
    asked = [prompt + each.tokens for prompt, each in zip(prompts, answers, strict=True)]
    sequences = [*asked, *parity_sequences(int(source.config["vocab_size"]))]
    margins = [each.margins or () for each in answers]
    return SourceAnswers(
        tuple(prompts),
        tuple(each.tokens for each in answers),
        tuple(margins),
        tuple(sequences),
        score_sequences(backend, sequences),
        source.chat.stop_ids,
    )


def score_sequences(backend: Backend, sequences: Sequence[Tokens]) -> tuple[Floats, ...]:
    """Return the logprobs (nats) of each sequence's tokens but the first."""
    return tuple(backend.score(list(map(_episode, sequences))))


def load_source(source: ExportSource, backend_name: str) -> Backend:
    """Load the source, in float32, with a backend. Raise what loading raises."""
    return backends.load(backend_name, source.spec)


def compare(
    source: SourceAnswers,
    form: FormAnswers,
    *,
    dtype: str,
    bits: int | None = None,
    rounds: bool = False,
    rendered: Sequence[Tokens] | None = None,
) -> FormCheck:
    """Compare a form whose weights are in `dtype`, or quantised to `bits` (None: not quantised).

    `rendered` are the tokens of the fixed chats as the source renders them.
    """
    differences = _differences(source, form)
    largest, mean = float(np.max(differences)), float(np.mean(differences))
    allowed = TOLERANCE[dtype] if bits is None else _mean_tolerance(bits)
    if rounds and bits is None:
        allowed *= ROUNDED_TOO
    equal = [ours == theirs for ours, theirs in zip(source.greedy, form.greedy, strict=True)]
    ties = 0
    for at, same in enumerate(equal):
        ties += not same and _is_tie(source, form, at, allowed)
    alike = None
    if form.rendered is not None and rendered is not None:
        alike = tuple(rendered) == form.rendered
    within = mean <= allowed if bits is not None else largest <= allowed
    greedy = bits is not None or sum(equal) + ties == len(equal)
    return FormCheck(
        greedy_equal=sum(equal),
        ties=ties,
        prompts=len(equal),
        tokens=len(differences),
        largest_difference_nats=largest,
        mean_difference_nats=mean,
        tolerance=allowed,
        quantised=bits is not None,
        template_equal=alike,
        passed=within and greedy and alike is not False,  # NaN is not within
    )


def require_passed(check: FormCheck, what: str) -> None:
    """Raise ExportError, with the measured difference, for a form that differs too much."""
    if check.passed:
        return
    if check.template_equal is False:
        found = "its chat template makes other tokens of a chat than the base model's."
    else:
        found = check.sentence()
    raise ExportError(
        f"the {what} does not compute what the run computes: {found}",
        next_step=(
            "Nothing was written. Report it with the base model's config.json and the output of"
            " `offapi doctor --json`."
        ),
    )


def _differences(source: SourceAnswers, form: FormAnswers) -> Floats:
    pairs = list(zip(source.logprobs, form.logprobs, strict=True))
    for ours, theirs in pairs:
        if not min(len(ours), TAIL) <= len(theirs) <= len(ours):
            counts = f"{len(theirs)} of {plural(len(ours), 'logprob')}"
            step = "Nothing was written. Report it with the versions that `offapi doctor` names."
            raise ExportError(f"the tool that opened it gave {counts}.", next_step=step)
    rows = [
        np.abs(np.asarray(ours, np.float64)[len(ours) - len(theirs) :] - theirs)
        for ours, theirs in pairs
    ]
    return np.concatenate(rows).astype(np.float32)


def _is_tie(source: SourceAnswers, form: FormAnswers, at: int, tolerance: float) -> bool:
    """Whether the tokens differ first where the source's margin is below the tolerance."""
    ours, theirs, margins = source.greedy[at], form.greedy[at], source.margins[at]
    first = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b),
        min(len(ours), len(theirs)),
    )
    return first < len(margins) and margins[first] < tolerance


def _mean_tolerance(bits: int) -> float:
    return MEAN_TOLERANCE[8] if bits >= FEWEST_BITS else MEAN_TOLERANCE[4]


def _episode(tokens: Tokens) -> Episode:
    return Episode("row", (Segment(tokens[:1], sampled=False), Segment(tokens[1:], sampled=True)))
