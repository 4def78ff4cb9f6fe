"""Comparing two systems: figures checked by hand, the sentences, and mismatched answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from offapi.errors import DataError
from offapi.evaluation.accuracy import Prediction
from offapi.evaluation.compare import ALL, MEAN, compare_answers
from offapi.stats.interval import wilson

Change = Callable[[Prediction], Prediction]


def answers(
    vendor: Sequence[bool], total: Sequence[bool], group: str | None = None
) -> list[Prediction]:
    """One prediction a document, right as said in two fields."""
    gold = {"vendor": "Acme", "total": 1.0}
    return [
        Prediction(f"d{i}", "{}", {}, {"vendor": a, "total": b}, gold, group)
        for i, (a, b) in enumerate(zip(vendor, total, strict=True))
    ]


N = 100
B = answers([False] * 20 + [True] * 80, [True] * N)
A = answers([True] * 14 + [False] * 6 + [True] * 78 + [False] * 2, [True] * 97 + [False] * 3)


def test_figures_of_a_field_by_hand() -> None:
    """A alone has the vendor right in 14 documents, B alone in 2."""
    found = compare_answers(A, B).fields["vendor"]
    assert (found.only_a, found.only_b) == (14, 2)
    assert (found.a, found.b) == (wilson(92, N), wilson(80, N))
    assert found.difference.mean == pytest.approx(0.12)
    assert found.p == pytest.approx(2 * (1 + 16 + 120) / 2**16)
    assert found.p_holm == pytest.approx(2 * found.p), "the smaller of two"
    assert found.detectable == pytest.approx((2.8 * (0.16 * N) ** 0.5 + 1) / N)


def test_all_fields_and_their_mean() -> None:
    found = compare_answers(A, B)
    assert (found.all_fields.only_a, found.all_fields.only_b) == (14, 3)
    assert found.all_fields.p_holm == found.all_fields.p, "the headline stands alone"
    assert found.mean.difference.mean == pytest.approx((14 - 2 - 3) / (2 * N))
    assert found.mean.difference.low < 0.045 < found.mean.difference.high
    assert (found.n, found.units, found.left_out) == (N, N, (0, 0))


def test_verdicts_never_say_equal() -> None:
    found = compare_answers(A, B)
    assert found.verdict("vendor") == "A is better"
    assert compare_answers(B, A).verdict("vendor") == "B is better"
    assert (
        found.verdict("total")
        == "cannot tell (a difference below 8.0 points would not show in 100 documents)"
    )
    assert (
        compare_answers(A[:1], B[:1]).verdict("total")
        == "cannot tell (no difference would show in 1 document)"
    )
    same = compare_answers(A, A)
    assert all(
        same.verdict(name).startswith("cannot tell") for name in ("vendor", "total", ALL, MEAN)
    )
    assert "equal" not in " ".join([*same.lines(), *map(" ".join, same.table())])
    with pytest.raises(KeyError):
        found.verdict("vendors")


def test_the_correction_can_take_a_verdict_back() -> None:
    """Six of six is p = 0.031: enough alone, not as one of two fields."""
    b = answers([False] * 6 + [True] * 94, [True] * N)
    found = compare_answers(answers([True] * N, [True] * N), b)
    assert found.fields["vendor"].p == pytest.approx(2 / 2**6)
    assert found.verdict("vendor").startswith("cannot tell")
    assert found.verdict(ALL) == "A is better"


def test_may_a_replace_b() -> None:
    found = compare_answers(A, B, margin=0.1)
    assert found.fields["vendor"].non_inferior
    assert found.fields["total"].non_inferior
    assert not compare_answers(A, B, margin=0.05).fields["total"].non_inferior
    assert not compare_answers(A[-20:], B[-20:], margin=0.1).fields["total"].non_inferior
    lines = found.lines()
    at = lines.index("Can A replace B, if a loss of up to 10.0 points is acceptable?")
    assert lines[at + 1] == "  vendor: yes, it is not worse."
    assert lines[at + 2].startswith("  total: yes, it may be up to ")


def test_sentences_name_the_sides_and_the_evidence() -> None:
    lines = compare_answers(A, B, names=("kept", "random")).lines()
    assert lines[0].startswith(
        "vendor: kept is better. kept alone is right in 14 (b), random in 2 (c): exact McNemar "
    )
    assert lines[0].endswith("p = 0.004, p = 0.008 with Holm's correction over 2 fields.")
    assert "sign-flip test" in lines[3]
    assert "10000 resamples" in lines[-1]


def test_what_is_printed_as_json() -> None:
    found = compare_answers(A, B).as_dict()
    assert json.loads(json.dumps(found))["fields"]["vendor"]["verdict"] == "A is better"
    assert list(found) == [
        *("names", "n", "units", "margin", "left_out", "resamples", "seed", "correction"),
        *("fields", "all_fields", "mean"),
    ]
    assert list(found["fields"]) == ["vendor", "total"]
    assert list(found["mean"]) == [
        *(
            "a",
            "b",
            "difference",
            "only_a",
            "only_b",
            "p",
            "p_holm",
            "detectable",
            "non_inferior",
            "verdict",
        )
    ]


def test_documents_of_one_group_count_together() -> None:
    """Fourteen documents of one conversation are one observation."""
    talk = [replace(row, group="talk") for row in A[:20]]
    found = compare_answers([*talk, *A[20:]], B)
    assert (found.n, found.units) == (N, 81)
    assert found.fields["vendor"].p > 0.5
    assert found.verdict("vendor").startswith("cannot tell")
    assert (
        "100 documents in 81 groups. 95% intervals: for rates Wilson's with the groups' spread"
        in found.lines()[-1]
    )
    assert found.fields["vendor"].a.low < compare_answers(A, B).fields["vendor"].a.low


def test_the_order_of_rows_does_not_matter() -> None:
    assert compare_answers(A, B[::-1]) == compare_answers(A, B)


def test_documents_that_one_side_lacks() -> None:
    with pytest.raises(
        DataError, match=r"only in A: 'd96', 'd97', 'd98' and 1 more; only in B: 'd0'"
    ) as caught:
        compare_answers(A[1:], B[:96])
    assert "--common" in caught.value.next_step
    found = compare_answers(A[1:], B[:96], common=True)
    assert (found.n, found.left_out) == (95, (4, 1))
    assert (
        found.lines()[-1] == "Left out: 4 documents that only A answered, 1 that only B answered."
    )
    for a, b in ((A[:3], B[3:]), ([], []), (A, [])):
        with pytest.raises(DataError, match="not the same documents"):
            compare_answers(a, b, common=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda row: replace(row, gold={**row.gold, "total": 2.0}),
            "the gold 'total' is not the same: 1.0 and 2.0",
        ),
        (
            lambda row: replace(row, correct={"vendor": True}),
            "B was scored on vendor, not on vendor, total",
        ),
        (lambda row: replace(row, sample=0), "B holds sampled answers"),
        (lambda row: replace(row, id="d0"), "B answers document 'd0' twice"),
    ],
)
def test_answers_that_do_not_belong_together(change: Change, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        compare_answers(A, [*B[:5], change(B[5]), *B[6:]])
    assert caught.value.next_step
