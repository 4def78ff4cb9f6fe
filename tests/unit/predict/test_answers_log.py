"""Answers are kept as they come, in the documents' order at the end, and never asked twice."""

from __future__ import annotations

from pathlib import Path

import orjson
import pytest

from offapi.data.documents import Document
from offapi.errors import ConfigError, DataError, RunError
from offapi.predict.answers_log import AnswersLog
from offapi.predict.prediction import DocumentAnswer, FieldAnswer

KEY = {"constrain": "schema", "sha256": {"model": "a", "task": "b"}}
DOCUMENTS = [Document(f"d{i}", f"text {i}") for i in range(6)]


def answer(document: Document) -> DocumentAnswer:
    return DocumentAnswer(document.id, {"n": 1}, {"n": FieldAnswer(1, evidence=(0, 1))})


def ids(path: Path) -> list[str]:
    return [orjson.loads(line)["id"] for line in path.read_bytes().splitlines()]


def test_the_finished_file_has_the_documents_order(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY) as log:
        for document in (DOCUMENTS[2], DOCUMENTS[0], DOCUMENTS[1]):
            assert document not in log
            log.append(answer(document), document)
            assert document in log
        assert ids(log.part) == ["d2", "d0", "d1"]
        assert log.finish(DOCUMENTS) == 0
        assert list(log.answers(DOCUMENTS)) == [answer(each) for each in DOCUMENTS[:3]]
    assert ids(out) == ["d0", "d1", "d2"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [out.name, f"{out.name}.key.json"]


def test_what_was_answered_is_known_again(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY) as log:
        log.append(answer(DOCUMENTS[3]), DOCUMENTS[3])
    assert not out.exists()  # not finished
    with AnswersLog(out, KEY) as log:
        assert DOCUMENTS[3] in log
        assert Document("d3", "another text") not in log
        log.finish(DOCUMENTS)
    before = out.stat()
    with AnswersLog(out, KEY) as log:
        assert DOCUMENTS[3] in log
        log.finish(DOCUMENTS)
    assert out.stat() == before  # a whole file is not written again
    with AnswersLog(out, KEY) as log:
        log.append(answer(DOCUMENTS[1]), DOCUMENTS[1])
        log.append(answer(DOCUMENTS[3]), DOCUMENTS[3])  # its text had changed
        log.finish(DOCUMENTS)
    assert ids(out) == ["d1", "d3"]


def test_answers_to_documents_not_named_now_stay(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY) as log:
        for document in DOCUMENTS:
            log.append(answer(document), document)
        log.finish(DOCUMENTS)
    with AnswersLog(out, KEY) as log:
        assert log.finish(DOCUMENTS[4:]) == 4
    assert ids(out) == ["d4", "d5", "d0", "d1", "d2", "d3"]


def test_a_torn_last_line_is_asked_again(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY) as log:
        for document in DOCUMENTS[:2]:
            log.append(answer(document), document)
    part = out.with_name("answers.jsonl.part")
    part.write_bytes(part.read_bytes()[:-5])
    with AnswersLog(out, KEY) as log:
        assert DOCUMENTS[0] in log
        assert DOCUMENTS[1] not in log
        log.append(answer(DOCUMENTS[1]), DOCUMENTS[1])
        log.finish(DOCUMENTS)
    assert ids(out) == ["d0", "d1"]


def test_other_settings_are_refused_with_the_reason(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY) as log:
        log.append(answer(DOCUMENTS[0]), DOCUMENTS[0])
    changed = {**KEY, "sha256": {"model": "a", "task": "c"}}
    with pytest.raises(ConfigError, match=r'1 answer .* sha256\.task = "b", and it is "c" now'):
        AnswersLog(out, changed)
    with AnswersLog(out, KEY) as log:
        assert DOCUMENTS[0] in log
        log.finish(DOCUMENTS)
    with pytest.raises(ConfigError, match="constrain"):
        AnswersLog(out, {**KEY, "constrain": "off"})


def test_no_other_file_is_written_over(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    out.write_text('{"id": "mine"}\n')
    with pytest.raises(DataError, match="line 1: the line is not an answer"):
        AnswersLog(out, KEY)
    out.write_text("")
    with pytest.raises(ConfigError, match="did not write it"):
        AnswersLog(out, KEY)
    assert [path.name for path in tmp_path.iterdir()] == [out.name]


def test_one_process_at_a_time(tmp_path: Path) -> None:
    out = tmp_path / "answers.jsonl"
    with AnswersLog(out, KEY), pytest.raises(RunError, match="another process"):
        AnswersLog(out, KEY)


def test_nothing_is_left_where_nothing_was_answered(tmp_path: Path) -> None:
    with AnswersLog(tmp_path / "answers.jsonl", KEY):
        pass
    assert list(tmp_path.iterdir()) == []
