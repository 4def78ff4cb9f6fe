"""Rows near an evaluation document are found in any wrapping, and not for a shared form."""

from __future__ import annotations

import numpy as np

from offapi.grading import table
from offapi.grading.similarity.contamination import NUMBERS, RUNS, Evaluation, Near, near
from offapi.grading.similarity.shingles import common, pieces, prints

INSTRUCTIONS = (
    "Read the letter below, say who wrote it and when, and answer with one JSON object and nothing"
    " else: " * 3
)


def receipt(seed: int, words: int = 40) -> str:
    """Return words and numbers that no other seed gives."""
    draw = np.random.default_rng(seed)
    return " ".join(
        f"{draw.integers(10**6)}" if i % 9 == 0 else "".join(draw.choice(list("abcdefghij"), 6))
        for i in range(words)
    )


def misread(text: str, every: int) -> str:
    """Return `text` with every `every`-th word spoilt, unless it is a number."""
    return " ".join(
        word + "x" if i % every == 1 and not word.isdigit() else word
        for i, word in enumerate(text.split())
    )


def distinct(texts: list[str]) -> int:
    """Return how many texts are left when near-duplicates count once."""
    found = np.zeros(len(texts), table.kind(0))
    table.add_documents(found, texts, common(texts))
    return len(set(table.clusters(found, texts.__getitem__, common(texts)).tolist()))


def test_a_document_is_found_in_another_scan_or_in_a_prompt() -> None:
    evaluation = [receipt(i) for i in range(20)]
    rows = [
        receipt(100),
        misread(evaluation[3], 10),
        "Please read this.\n" + evaluation[7].upper() + "\nThank you!",
        evaluation[9],
    ]
    found = near(rows, evaluation)
    assert [(pair.row, pair.document) for pair in found] == [(1, 3), (2, 7), (3, 9)]
    assert found[2] == Near(3, 9, 1.0, 1.0)
    assert RUNS <= found[0].runs < 0.8
    assert found[0].numbers == 1.0


def test_other_numbers_make_another_document() -> None:
    words = receipt(1, 60)
    one, other = (f"{words} Date {day} 04 2026 No {day}17 Total {day}9 50" for day in (11, 23))
    assert near([one], [other]) == []
    assert len(near([one], [one])) == 1


def test_a_shared_form_is_no_evidence() -> None:
    letters = ["".join(np.random.default_rng(i).choice(list("abcdef "), 120)) for i in range(60)]
    rows = [INSTRUCTIONS + letter for letter in letters]
    assert near(rows[:30], rows[30:]) == []
    assert [(pair.row, pair.document) for pair in near(rows[:30], rows[20:])] == [
        (20 + i, i) for i in range(10)
    ]
    assert distinct(rows) == 60
    assert distinct([*rows, rows[4].upper()]) == 60
    assert len(common(rows)) > 10
    assert len(common(rows[:10])) == 0


def test_the_index_finds_what_comparing_all_pairs_finds() -> None:
    draw = np.random.default_rng(2)
    evaluation = [receipt(i % 12, 30 + i % 3) for i in range(36)] + [
        "",
        "two words",
        "no numbers in this one at all",
    ]
    rows = [
        misread(evaluation[draw.integers(len(evaluation))], int(draw.integers(2, 20)))
        for _ in range(120)
    ]
    ignored = common(evaluation)
    found, wanted = prints(rows, ignored), prints(evaluation, ignored)
    expected = []
    for i in range(len(rows)):
        for j in range(len(evaluation)):
            shares = [
                np.isin(mine, others).mean() if len(mine) else 1.0
                for mine, others in (
                    (wanted.runs_of(j), found.runs_of(i)),
                    (wanted.numbers_of(j), found.numbers_of(i)),
                )
            ]
            if shares[0] >= RUNS and shares[1] >= NUMBERS:
                expected.append((i, j))
    assert len(expected) > 100
    assert [
        (pair.row, pair.document) for pair in Evaluation(evaluation, ignored).near(found)
    ] == expected


def test_nothing_is_near_nothing() -> None:
    assert near([], ["a b c d"]) == near(["a b c d"], []) == []


def test_row_numbers_continue_across_pieces_of_texts() -> None:
    wanted = receipt(1)
    rows = [*["word " * 50_000] * 5, wanted]  # the first five fill a piece
    assert len(list(pieces(rows))) == 2
    assert [(pair.row, pair.document) for pair in near(rows, [wanted])] == [(5, 0)]
    found = np.zeros(6, table.kind(0))
    assert [pair.row for pair in table.add_documents(found, rows, evaluation=Evaluation([wanted]))]
    assert np.flatnonzero(found["near"]).tolist() == [5]
