"""Documents are split the same way everywhere, and the parts are the whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from offapi.data.documents import Document
from offapi.errors import ConfigError
from offapi.predict.shard import Shard

FIRST = ["d89", "d199", "d206", "d229"]  # of 100 parts
DOCUMENTS = [Document(f"d{i}", "x") for i in range(1000)]


def test_parts_are_disjoint_and_together_the_whole() -> None:
    parts = [Shard(number, 4).take(DOCUMENTS) for number in range(1, 5)]
    assert sorted(each.id for part in parts for each in part) == sorted(d.id for d in DOCUMENTS)
    assert all(200 < len(part) < 300 for part in parts)
    assert all(part == [each for each in DOCUMENTS if each in part] for part in parts)


def test_the_split_never_changes() -> None:
    assert [each.id for each in Shard(1, 100).take(DOCUMENTS)][:4] == FIRST


def test_a_part_depends_on_the_id_alone() -> None:
    part = Shard(2, 4).take(DOCUMENTS)
    assert Shard(2, 4).take([Document(each.id, "other") for each in reversed(part)]) == [
        Document(each.id, "other") for each in reversed(part)
    ]


def test_each_part_has_a_file_in_order() -> None:
    out = Path("a/answers.jsonl")
    assert Shard().out(out) == out
    names = [Shard(number, 10).out(out).name for number in (1, 2, 10)]
    assert names == [f"answers-{each}-of-10.jsonl" for each in ("01", "02", "10")]


@pytest.mark.parametrize("text", ["0/4", "5/4", "1", "a/b", "1/0", "-1/2", "1/4 "])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="must be I/N"):
        Shard.parse(text)
