"""Statistics against other computations: enumeration, closed forms, SciPy's own, and simulation."""

from __future__ import annotations

from itertools import combinations, product
from math import comb, log, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.optimize import minimize_scalar

from offapi.stats import bootstrap, paired, sample_size
from offapi.stats.contrast import Contrast, contrast
from offapi.stats.interval import wilson
from offapi.stats.pass_at_k import pass_all, pass_any, sizes

pytestmark = pytest.mark.filterwarnings("error")
SMALL = settings(max_examples=50, deadline=None)

MARGIN = 0.05


# pass@k and pass^k


@given(
    st.integers(1, 7).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(1, n)))
)
@SMALL
def test_passes_are_what_enumeration_counts(case: tuple[int, int, int]) -> None:
    n, c, k = case
    draws = list(combinations([True] * c + [False] * (n - c), k))
    assert pass_any(n, c, k) == pytest.approx(sum(map(any, draws)) / len(draws))
    assert pass_all(n, c, k) == pytest.approx(sum(map(all, draws)) / len(draws))


def test_passes_stay_exact_where_binomials_are_huge() -> None:
    assert pass_any(10_000, 3, 5_000) == pytest.approx(
        1 - comb(9_997, 5_000) / comb(10_000, 5_000), rel=1e-12
    )
    assert pass_any(1_000, 0, 1_000) == 0.0
    assert pass_all(1_000, 1_000, 1_000) == 1.0
    assert [sizes(n) for n in (1, 2, 6, 8)] == [[1], [1, 2], [1, 2, 4, 6], [1, 2, 4, 8]]


# exact tests


@given(st.integers(0, 9), st.integers(0, 9))
@SMALL
def test_mcnemar_is_what_enumeration_of_coins_counts(b: int, c: int) -> None:
    coins = [sum(signs) for signs in product((-1, 1), repeat=b + c)]
    as_far = sum(abs(coin) >= abs(b - c) for coin in coins) / len(coins)
    assert paired.mcnemar(b, c) == pytest.approx(as_far)
    each = np.array([1] * b + [-1] * c + [0] * 3)
    assert paired.sign_flip(each) == pytest.approx(as_far)


@given(st.lists(st.integers(-5, 5), max_size=10))
@SMALL
def test_sign_flips_are_what_enumeration_counts(sums: list[int]) -> None:
    flipped = [
        sum(s * abs(x) for s, x in zip(signs, sums, strict=True))
        for signs in product((-1, 1), repeat=len(sums))
    ]
    expected = sum(abs(total) >= abs(sum(sums)) for total in flipped) / len(flipped)
    assert paired.sign_flip(np.array(sums, dtype=np.int64)) == pytest.approx(expected, abs=1e-12)


def test_sign_flips_of_many_documents_agree_with_the_binomial() -> None:
    each = np.array([1] * 60_200 + [-1] * 59_500 + [0] * 400_000)
    assert paired.sign_flip(each) == pytest.approx(paired.mcnemar(60_200, 59_500), abs=1e-9)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
@SMALL
def test_holm_is_the_stepwise_rule(ps: list[float]) -> None:
    """Reject the smallest p below level/m, then the next below level/(m-1), until one is not."""
    adjusted = paired.holm(ps)
    for level in (0.01, 0.05, 0.3):
        rejected, left = set(), len(ps)
        for i in sorted(range(len(ps)), key=ps.__getitem__):
            if ps[i] * left > level:
                break
            rejected.add(i)
            left -= 1
        assert {i for i, p in enumerate(adjusted) if p <= level} == rejected
    assert adjusted[int(np.argmin(ps))] == pytest.approx(min(1.0, min(ps) * len(ps)))


# intervals of a difference


def slow_score_limit(b: int, c: int, n: int, upper: bool) -> float:
    """Return Tango's limit by brute force.

    The nuisance share maximises the likelihood, and the limit comes from a grid.
    """

    def standardised(delta: float) -> float:
        def loss(shared: float) -> float:
            cells = ((b, shared + delta), (c, shared), (n - b - c, 1 - 2 * shared - delta))
            return -sum(count * log(max(share, 1e-300)) for count, share in cells if count)

        at = minimize_scalar(
            loss,
            bounds=(max(0, -delta), (1 - delta) / 2),
            method="bounded",
            options={"xatol": 1e-10},
        )
        return float((b - c - n * delta) / sqrt(n * (2 * at.x + delta * (1 - delta))))

    mean = (b - c) / n
    grid = np.arange(mean + 1e-9, 0.999, 1e-3) if upper else np.arange(mean - 1e-9, -0.999, -1e-3)
    return float(next(delta for delta in grid if abs(standardised(delta)) > 1.959964))


@pytest.mark.parametrize(
    ("b", "c", "n"), [(9, 2, 60), (2, 9, 60), (3, 0, 30), (40, 20, 160), (1, 1, 10)]
)
def test_the_score_interval_agrees_with_brute_force(b: int, c: int, n: int) -> None:
    interval = paired.score_interval(b, c, n)
    assert interval.low == pytest.approx(slow_score_limit(b, c, n, upper=False), abs=2e-3)
    assert interval.high == pytest.approx(slow_score_limit(b, c, n, upper=True), abs=2e-3)


def test_the_score_interval_without_difference_has_a_closed_form() -> None:
    for n in (1, 10, 1_000_000):
        interval = paired.score_interval(0, 0, n)
        assert interval.high == pytest.approx(1.96**2 / (n + 1.96**2), rel=1e-3)
        assert interval.low == pytest.approx(-interval.high)
    assert paired.score_interval(5, 0, 5).high == 1.0
    assert paired.score_interval(0, 5, 5).low == -1.0


def over_test_sets(n: int, better: float, worse: float, sets: int) -> list[tuple[Contrast, int]]:
    """Return contrasts of simulated test sets, and how often each came.

    In them A alone or B alone is right at these rates.
    """
    draws = np.random.default_rng(7).multinomial(n, [better, worse, 1 - better - worse], size=sets)
    kinds, times = np.unique(draws, axis=0, return_counts=True)
    test_sets = [np.repeat([1, -1, 0], kind) for kind in kinds]
    contrasts = [contrast(each > 0, each < 0, 1, [None] * n, MARGIN) for each in test_sets]
    return list(zip(contrasts, times.tolist(), strict=True))


@pytest.mark.parametrize(
    ("n", "better", "worse"), [(60, 0.15, 0.05), (120, 0.04, 0.02), (400, 0.05, 0.05)]
)
def test_the_interval_of_a_difference_covers_the_truth(n: int, better: float, worse: float) -> None:
    """95% of intervals hold the true difference, also when few documents differ."""
    hits = 0
    for result, times in over_test_sets(n, better, worse, sets=2_000):
        hits += times * (result.difference.low <= better - worse <= result.difference.high)
    assert 0.94 <= hits / 2_000 <= 0.98


def test_the_paired_bootstrap_alone_covers_the_truth() -> None:
    """Percentile intervals of means of three fields that are correlated within a document."""
    draw, n = np.random.default_rng(3), 150
    hits = 0
    for _ in range(300):
        hard = draw.normal(size=n)
        each = [(draw.normal(size=(n, 3)) + hard[:, None] < cut).mean(axis=1) for cut in (0.9, 0.6)]
        interval = bootstrap.intervals((each[0] - each[1])[:, None])[0]
        truth = stats.norm.cdf(0.9 / sqrt(2)) - stats.norm.cdf(0.6 / sqrt(2))
        hits += bool(interval.low <= truth <= interval.high)
    assert 0.925 <= hits / 300 <= 0.975


def test_the_bootstrap_agrees_with_scipys() -> None:
    values = np.random.default_rng(0).integers(-1, 2, 80).astype(float)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=10_000, method="percentile", rng=0
    ).confidence_interval
    ours = bootstrap.intervals(values[:, None])[0]
    assert [ours.low, ours.high] == pytest.approx([theirs.low, theirs.high], abs=0.015)
    assert bootstrap.intervals(values[:, None])[0] == ours, "the seed is fixed"


def test_groups_are_drawn_whole() -> None:
    """Ten groups of ten alike documents show as much as ten documents.

    Groups of unequal size weigh by their size.
    """
    few = np.array([1.0, 0, 1, 1, 0, 1, 0, 1, 1, 0])
    names = [f"g{i // 10}" for i in range(100)]
    assert (
        bootstrap.means(np.repeat(few, 10)[:, None], names).tolist()
        == bootstrap.means(few[:, None]).tolist()
    )
    uneven = bootstrap.means([[1.0], [0.0], [0.0], [0.0]], ["a", "b", "b", "b"], resamples=4_000)
    assert set(np.unique(uneven)) == {0.0, 0.25, 1.0}
    assert bootstrap.count(["a", None, None, "a"]) == 3


def test_rates_of_groups_are_as_uncertain_as_the_groups() -> None:
    """Two groups, one all right and one all wrong, show nothing.

    All right in both shows as little as two documents do.
    """
    pair = ["a"] * 50 + ["b"] * 50
    half, perfect, almost = [True] * 50 + [False] * 50, [True] * 100, [True] * 99 + [False]
    shares = bootstrap.shares([half, perfect, [False] * 100, almost], pair)
    assert shares[0].mean == 0.5
    assert shares[0].low < 0.01 < 0.99 < shares[0].high
    assert (shares[1], shares[2]) == (wilson(2, 2), wilson(0, 2))
    assert shares[3].low < 0.5 < wilson(99, 100).low, "two groups show next to nothing"
    assert bootstrap.rates(np.ones((100, 1)), pair) == [wilson(2, 2)]
    alone = [f"g{i}" for i in range(100)]
    assert (
        bootstrap.shares([half], alone)
        == bootstrap.shares([half], [None] * 100)
        == [wilson(50, 100)]
    )
    grouped = contrast(np.array(half), np.array(perfect), 1, pair, MARGIN)
    assert (grouped.a, grouped.b) == (shares[0], shares[1])


def alike_groups(
    draw: np.random.Generator, sizes: list[int], rate: float, likeness: float
) -> tuple[list[bool], list[str]]:
    """Return documents right or wrong in groups, whose intraclass correlation is `likeness`."""
    shape = (1 - likeness) / likeness
    chances = draw.beta(rate * shape, (1 - rate) * shape, size=len(sizes))
    right = np.concatenate([draw.random(n) < p for n, p in zip(sizes, chances, strict=True)])
    return right.tolist(), [f"g{i}" for i, n in enumerate(sizes) for _ in range(n)]


@pytest.mark.parametrize(
    ("sizes", "rate", "likeness"),
    [
        ([10] * 8, 0.7, 0.3),
        ([10] * 8, 0.5, 0.3),
        ([10] * 5, 0.7, 0.3),
        ([20] * 3, 0.6, 0.3),
        ([5] * 20, 0.8, 0.3),
        ([4, 4, 6, 8, 10, 12, 16, 20], 0.7, 0.2),
    ],
)
def test_a_rate_from_few_groups_is_covered(sizes: list[int], rate: float, likeness: float) -> None:
    """A percentile bootstrap of groups covers in 78 to 93% of these."""
    draw, hits, sets = np.random.default_rng(1), 0, 1_000
    for _ in range(sets):
        right, groups = alike_groups(draw, sizes, rate, likeness)
        interval = bootstrap.shares([right], groups)[0]
        hits += interval.low <= rate <= interval.high
    assert 0.935 <= hits / sets <= 0.985


def test_a_difference_from_few_groups_is_covered() -> None:
    """Means of fields of eight conversations of ten; A is better in some of them only."""
    draw, hits, sets = np.random.default_rng(2), 0, 400
    groups = [f"g{i // 10}" for i in range(80)]
    for _ in range(sets):
        effect = np.repeat(draw.normal(1.0, 1.0, 8), 10)
        each = effect + draw.normal(0.0, 1.0, 80)
        interval = bootstrap.intervals(each[:, None], groups)[0]
        hits += interval.low <= 1.0 <= interval.high
    assert 0.925 <= hits / sets <= 0.98


def test_chunks_change_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).random((500, 2))
    whole = bootstrap.means(values, resamples=200)
    monkeypatch.setattr(bootstrap, "CELLS", 1_500)
    chunked = bootstrap.means(values, resamples=200)
    np.testing.assert_allclose(chunked, whole, rtol=1e-12)  # BLAS rounds by shape


def test_the_best_of_several_needs_more_evidence() -> None:
    differences = np.array([1, 1, 1, -1, 1, 1, 0, 1, 1, 1])
    alone = paired.best_of(differences[:, None].astype(float), 0)
    assert alone == pytest.approx(paired.sign_flip(differences) / 2, abs=0.005)
    others = np.random.default_rng(0).integers(-1, 2, (10, 9))
    many = paired.best_of(np.column_stack([differences, others]).astype(float), 0)
    assert 1.5 * alone < many <= 10 * alone
    assert paired.best_of(np.column_stack([differences] * 9).astype(float), 3) == alone


# what a test set can show


def exact_power(n: int, discordance: float, difference: float) -> float:
    """Return how often the exact test finds that A is better, in sets of `n` documents."""
    chance, power = (1 + difference / discordance) / 2, 0.0
    for differing in range(sample_size.FEWEST, n + 1):
        weight = float(stats.binom.pmf(differing, n, discordance))
        if weight < 1e-9:
            continue
        better = np.arange(differing // 2 + 1, differing + 1)
        significant = better[2 * stats.binom.sf(better - 1, differing, 0.5) < 0.05]
        power += weight * float(stats.binom.pmf(significant, differing, chance).sum())
    return power


@pytest.mark.parametrize(
    ("n", "discordance"),
    [(100, 0.1), (100, 0.2), (120, 0.2), (200, 0.1), (400, 0.2), (400, 0.08), (1500, 0.3)],
)
def test_the_detectable_difference_is_found_four_times_in_five(n: int, discordance: float) -> None:
    """By enumeration; without the exact test's own loss it would be found in 76 to 79%."""
    each = np.zeros(n)
    each[: round(n * discordance)] = 1
    size = paired.detectable(each, n)
    assert size == pytest.approx((2.8 * sqrt(n * discordance) + 1) / n)
    assert 0.8 <= exact_power(n, discordance, size) <= 0.93
    assert exact_power(n, discordance, 0.85 * size) < 0.8, "nothing much smaller would do"


def test_a_difference_all_one_way_is_found_four_times_in_five() -> None:
    """Seven of sixty differ: the least that shows is eight, all one way."""
    each = np.repeat([1.0, 0.0], [2, 58])
    size = paired.detectable(each, 60)
    assert size == pytest.approx(8 / 60)
    assert 0.8 <= exact_power(60, size, size) <= 0.83


def test_too_few_documents_show_nothing() -> None:
    assert paired.mcnemar(sample_size.FEWEST, 0) < 0.05 <= paired.mcnemar(sample_size.FEWEST - 1, 0)
    assert paired.detectable(np.zeros(5), 5) == 1.0
    assert paired.detectable(np.zeros(100), 100) == 0.08, "eight documents of a hundred, one way"


def test_the_needed_documents_show_the_difference() -> None:
    n = sample_size.documents(20, 100, 0.05)
    assert n == 667  # of n, 20% differ: 2.8 x sqrt(133.4) + 1 = 33.3 = 5% of n
    assert paired.detectable(np.repeat([1.0, 0.0], [n // 5, n - n // 5]), n) == pytest.approx(
        0.05, rel=0.01
    )
    assert sample_size.documents(0, 1000, 0.05) == sample_size.documents(50, 1000, 0.05), (
        "5 points take 5% that differ"
    )
    assert sample_size.documents(1, 1, 0.5) == 36


def test_a_mean_shows_smaller_differences_than_a_field() -> None:
    """Eight of a hundred documents differ by one field of four: two points, and significant."""
    a = np.array([4] * 8 + [3] * 92)
    result = contrast(a, np.full(100, 3), 4, [None] * 100, MARGIN)
    assert result.difference.mean == pytest.approx(0.02)
    assert result.p == pytest.approx(2 / 2**8)
    assert result.detectable == pytest.approx((2.8 * sqrt(8 / 16) + 1 / 4) / 100)
    alike = contrast(a, a, 4, [None] * 100, MARGIN)
    assert alike.detectable == pytest.approx(8 / 4 / 100), (
        "eight documents that differ by one field, all one way"
    )


# the contrast, at its edges


@given(
    st.integers(1, 20).flatmap(
        lambda n: st.tuples(
            *(st.lists(st.integers(0, 1), min_size=n, max_size=n) for _ in range(2))
        )
    )
)
@SMALL
def test_a_contrast_is_its_own_mirror(sides: tuple[list[int], list[int]]) -> None:
    a, b = (np.array(side) for side in sides)
    groups = [None] * len(a)
    one, other = contrast(a, b, 1, groups, 0.05), contrast(b, a, 1, groups, 0.05)
    assert (one.a, one.b, one.only_a, one.only_b) == (other.b, other.a, other.only_b, other.only_a)
    assert (one.p, one.detectable) == (other.p, other.detectable)
    assert one.difference.mean == -other.difference.mean
    # resampled rates are multiples of 1 / n, and a quantile may fall on either of two
    assert one.difference.low == pytest.approx(-other.difference.high, abs=1.01 / len(a))
    assert -1 <= one.difference.low <= one.difference.mean <= one.difference.high <= 1
    assert one.non_inferior == (one.difference.low > -0.05)


@pytest.mark.parametrize("n", [1, 2, 5, 50, 100_000])
@pytest.mark.parametrize("right", [0, 1])
def test_no_discordance_still_leaves_uncertainty(n: int, right: int) -> None:
    side = np.full(n, right)
    for steps, groups in ((1, [None] * n), (1, ["one"] * n), (3, [None] * n)):
        result = contrast(side * steps, side * steps, steps, groups, 0.05)
        assert result.difference.low < 0 < result.difference.high
        assert result.p == 1.0
        assert result.non_inferior == (n == 100_000 and groups[0] is None)
        assert 0 < result.detectable <= 1
        assert result.a.low < result.a.high


def test_non_inferiority_is_claimed_rarely_where_it_is_false() -> None:
    """If A lies exactly the margin below B, the claim may be made in 2.5% of test sets.

    If A is as good as B, it is made.
    """
    false = over_test_sets(200, better=0.02, worse=0.07, sets=3_000)
    claimed = sum(times for result, times in false if result.non_inferior)
    assert claimed / 3_000 <= 0.03
    true = over_test_sets(600, better=0.03, worse=0.03, sets=300)
    claimed = sum(times for result, times in true if result.non_inferior)
    assert claimed / 300 >= 0.95


def test_alike_documents_of_a_group_count_once() -> None:
    """A is better in each of 12 documents of one conversation only: that is one observation."""
    a, b = np.array([1] * 12 + [0] * 12), np.array([0] * 24)
    alone = contrast(a, b, 1, [None] * 24, 0.05)
    grouped = contrast(a, b, 1, ["talk"] * 12 + [f"d{i}" for i in range(12)], 0.05)
    assert alone.p < 0.001 < 0.9 < grouped.p
    assert (
        grouped.difference.high - grouped.difference.low
        > alone.difference.high - alone.difference.low
    )
    assert grouped.detectable > alone.detectable
