"""Accuracy of several sampled answers per document: one sample, pass@k and pass^k.

pass@k: at least one of k is right (Chen et al., arXiv 2107.03374); pass^k: all k are. All intervals
come from a bootstrap over documents (or groups of them), never over samples, which are alike. A
sample is right when all its fields are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from offapi.agent.episode import AgentEpisode
from offapi.checks.answer_forms import AnswerForms
from offapi.data.rows import Row
from offapi.errors import DataError
from offapi.evaluation import accuracy
from offapi.evaluation.accuracy import Prediction
from offapi.evaluation.episode_facts import EpisodesReport
from offapi.stats import bootstrap
from offapi.stats.interval import Interval
from offapi.stats.pass_at_k import pass_all, pass_any, sizes
from offapi.task import Task
from offapi.text.display import plural


@dataclass(frozen=True)
class SampledReport:
    """Accuracy of one sample, pass@k and pass^k, over `n` documents of `samples` answers each."""

    n: int
    samples: int
    temperature: float
    mean: float
    all_fields: Interval
    fields: Mapping[str, Interval]
    pass_any: Mapping[int, Interval]  # pass@k, by k: at least one of k is right
    pass_all: Mapping[int, Interval]  # pass^k, by k: all of k are right
    predictions: tuple[Prediction, ...]

    @property
    def forms(self) -> AnswerForms:
        """How many answers had something set aside, or cannot be read."""
        return accuracy.count_prediction_forms(self.predictions)

    @cached_property
    def episodes(self) -> EpisodesReport | None:
        """What an agent's episodes took; None for answers of another kind."""
        return accuracy.report_episodes(self.predictions)

    @classmethod
    def of(
        cls, predictions: Sequence[Prediction], samples: int, temperature: float
    ) -> SampledReport:
        """Compute the figures; the `samples` predictions of a document follow one another."""
        if not predictions:
            raise DataError(
                "there are no documents to evaluate.", next_step="Name a file with documents."
            )
        documents = [predictions[at : at + samples] for at in range(0, len(predictions), samples)]
        names, ks = list(predictions[0].correct), sizes(samples)
        figures = [_document_figures(document, samples, names, ks) for document in documents]
        groups = [document[0].group for document in documents]
        rates = bootstrap.rates(np.array(figures, np.float64), groups)
        fields = dict(zip(names, rates[: len(names)], strict=True))
        any_k = dict(zip(ks, rates[len(names) : len(names) + len(ks)], strict=True))
        all_k = dict(zip(ks, rates[len(names) + len(ks) :], strict=True))
        mean = sum(field.mean for field in fields.values()) / len(fields)
        return cls(
            len(documents),
            samples,
            temperature,
            mean,
            any_k[1],
            fields,
            any_k,
            all_k,
            tuple(predictions),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the object `--json` prints: a report's keys, and those of sampling."""
        return {
            "n": self.n,
            "mean": self.mean,
            "all_fields": asdict(self.all_fields),
            "fields": _as_dicts(self.fields),
            "samples": self.samples,
            "temperature": self.temperature,
            "pass@k": _as_dicts(self.pass_any),
            "pass^k": _as_dicts(self.pass_all),
            "answers": asdict(self.forms),
            **({"episodes": self.episodes.as_dict()} if self.episodes else {}),
        }

    def jsonl(self) -> bytes:
        """Return the content of predictions.jsonl, a line a sample."""
        return accuracy.predictions_jsonl(self.predictions)

    def table(self) -> list[tuple[str, str]]:
        """Return rows for people: one sample, one of k, all of k; in percent with intervals."""
        rows = [
            (f"{name}, one sample", interval.percent()) for name, interval in self.fields.items()
        ]
        rows += [
            (f"pass@{k}: one of {k} all right", interval.percent())
            for k, interval in self.pass_any.items()
        ]
        rows += [
            (f"pass^{k}: all of {k} all right", interval.percent())
            for k, interval in self.pass_all.items()
            if k > 1
        ]
        facts = (
            f"{self.n}, {plural(self.samples, 'sample')} each at temperature {self.temperature:g}"
        )
        return [*rows, ("mean of the fields", f"{100 * self.mean:.1f}"), ("documents", facts)]


def score_samples(
    task: Task,
    rows: Sequence[Row],
    outputs: Sequence[str],
    samples: int,
    temperature: float,
    episodes: Sequence[AgentEpisode] = (),
) -> SampledReport:
    """Return the accuracy of `samples` outputs for each row, row by row.

    Raises as `accuracy.make_predictions` does.
    """
    came: Sequence[AgentEpisode | None] = episodes or [None] * len(outputs)
    predictions = [
        accuracy.make_prediction(task, rows[at // samples], output, at % samples, episode)
        for at, (output, episode) in enumerate(zip(outputs, came, strict=True))
    ]
    return SampledReport.of(predictions, samples, temperature)


def _document_figures(
    answers: Sequence[Prediction], samples: int, names: Sequence[str], ks: Sequence[int]
) -> list[float]:
    """Return the share of right answers in each field, then pass@k and pass^k for all of `ks`."""
    right = sum(all(answer.correct.values()) for answer in answers)
    shares = [sum(accuracy.list_right(answers, name)) / samples for name in names]
    at_least_one = [pass_any(samples, right, k) for k in ks]
    every_one = [pass_all(samples, right, k) for k in ks]
    return [*shares, *at_least_one, *every_one]


def _as_dicts(intervals: Mapping[Any, Interval]) -> dict[str, Any]:
    return {str(key): asdict(interval) for key, interval in intervals.items()}
