"""Fit the confidence model: a logistic regression on a few signals, with an L2 penalty.

`cross_fit` gives each document a probability from a model that never saw it, on which thresholds
may be tested; the model that is kept is fitted on all documents. Left out: choosing features or the
penalty from data, which would need documents of its own.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from offapi.confidence.promise import ConfidenceModel
from offapi.confidence.signals import FEATURES, FieldSignals, features
from offapi.files.hashing import hash64

FOLDS = 5
PENALTY = 0.1  # scikit-learn's C: the smaller, the closer to the share of right answers
PRIOR = 3.0  # documents that each of the two added ones counts as
LOG_ODDS = FEATURES.index("log_odds")
NEITHER = ("place", "is_null")  # they say nothing of how sure an answer is
SURE = np.array([float(name not in NEITHER) for name in FEATURES])  # in standard deviations


def fit(signals: Sequence[FieldSignals], right: Sequence[bool]) -> ConfidenceModel:
    """Return the model of a field from answers of which it is known whether they are right."""
    return _fit(_table(signals), np.asarray(right, bool))


def cross_fit(
    ids: Sequence[str], signals: Sequence[FieldSignals], right: Sequence[bool]
) -> NDArray[np.float64]:
    """Return each document's probability by a model fitted on the other folds, (N,).

    The ids alone say which fold a document is in.
    """
    values, flags, chances = _table(signals), np.asarray(right, bool), np.empty(len(ids))
    for held in folds(ids):
        chances[held] = _fit(values[~held], flags[~held]).probabilities(values[held])
    return chances


def folds(ids: Sequence[str]) -> list[NDArray[np.bool_]]:
    """Return which documents each fold holds out; folds differ by one document at most."""
    place = np.argsort(np.argsort([hash64(id) for id in ids], kind="stable"))
    return [place % FOLDS == k for k in range(min(FOLDS, len(ids)))]


def by_logprob() -> ConfidenceModel:
    """Return the control: the probability that the model itself gave the field's tokens."""
    count = len(FEATURES)
    weights = tuple(float(i == LOG_ODDS) for i in range(count))
    return ConfidenceModel(FEATURES, (0.0,) * count, (1.0,) * count, weights, 0.0)


def _table(signals: Sequence[FieldSignals]) -> NDArray[np.float64]:
    return np.array([features(each) for each in signals]).reshape(-1, len(FEATURES))


def _fit(values: NDArray[np.float64], right: NDArray[np.bool_]) -> ConfidenceModel:
    """Fit on features (N, F) and two documents more: a sure one, right, and a doubtful one, wrong.

    So few documents, and a fold without any wrong answer, rank by sureness.
    """
    from sklearn.linear_model import LogisticRegression

    centre, scale = values.mean(axis=0), values.std(axis=0)
    scale = np.where(scale > 1e-9, scale, 1.0)
    known = np.vstack([(values - centre) / scale, SURE, -SURE])
    weights = np.append(np.ones(len(values)), (PRIOR, PRIOR))
    regression = LogisticRegression(C=PENALTY, solver="newton-cholesky")
    fitted = regression.fit(known, [*right, True, False], sample_weight=weights)
    return ConfidenceModel(
        FEATURES,
        tuple(map(float, centre)),
        tuple(map(float, scale)),
        tuple(map(float, fitted.coef_[0])),
        float(fitted.intercept_[0]),
    )
