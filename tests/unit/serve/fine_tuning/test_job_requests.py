"""What of an upload and of a job's request is read, and what is refused."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from offapi.serve.errors import ApiError
from offapi.serve.fine_tuning.job_service import page
from offapi.serve.fine_tuning.request import read_job_request
from offapi.serve.fine_tuning.training_file import read_examples
from offapi.serve.fine_tuning.upload import plain_name, receive_file

HEAD = b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n'
FILE = b'--b\r\nContent-Disposition: form-data; name="file"; filename="../a\x1b.jsonl"\r\n\r\n'


def receive(body: bytes, path: Path, piece: int = 7) -> object:
    async def pieces() -> AsyncIterator[bytes]:
        for at in range(0, len(body), piece):
            yield body[at : at + piece]

    return asyncio.run(receive_file("multipart/form-data; boundary=b", pieces(), path))


def test_a_file_is_written_as_it_comes(tmp_path: Path) -> None:
    data = b"one\r\n--two\r\n" * 50
    body = HEAD + FILE + data + b"\r\n--b--\r\n"
    got = receive(body, tmp_path / "content")
    assert (tmp_path / "content").read_bytes() == data
    assert stat.S_IMODE((tmp_path / "content").stat().st_mode) == 0o600
    assert vars(got) == {"filename": "a.jsonl", "fields": {"purpose": "fine-tune"}}


@pytest.mark.parametrize(
    "body",
    [
        HEAD + b"--b--\r\n",
        HEAD + FILE + b"cut off",
        b"not multipart at all",
        FILE + b"x\r\n" + FILE + b"y\r\n--b--\r\n",
        HEAD.replace(b"fine-tune", b"x" * 2000) + FILE + b"x\r\n--b--\r\n",
    ],
)
def test_a_body_without_one_whole_file_is_refused(body: bytes, tmp_path: Path) -> None:
    with pytest.raises(ApiError):
        receive(body, tmp_path / "content")


def test_a_name_is_one_line_without_folders() -> None:
    assert plain_name("C:\\x\\a\nb.jsonl") == "ab.jsonl"
    assert plain_name("..//") == "upload"


def test_chats_are_named_by_their_lines(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    line = orjson.dumps(chat)
    (tmp_path / "f").write_bytes(b"\xef\xbb\xbf" + line + b"\n\n" + line)
    assert [each.id for each in read_examples(tmp_path / "f")] == ["line-1", "line-3"]


def job(**members: object) -> bytes:
    return orjson.dumps({"model": "m", "training_file": "f", **members})


def test_hyperparameters_stand_in_either_place() -> None:
    numbers = {"n_epochs": 3, "learning_rate_multiplier": 0.5, "batch_size": "auto"}
    old = read_job_request(job(hyperparameters=numbers))[1]
    method = {"type": "supervised", "supervised": {"hyperparameters": numbers}}
    new = read_job_request(job(method=method))[1]
    assert old == new
    assert [old["epochs"], old["lr_multiplier"], old["batch_size"]] == [3, 0.5, 4]


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 5000,
        job(model=3),
        job(secret="x"),
        job(method={"type": "supervised", "supervised": {"hyperparameters": {"beta": 1}}}),
        job(metadata={"k": "v" * 600}),
        job(method={"type": "reinforcement"}),
        orjson.dumps({"model": "m"}),
    ],
)
def test_a_job_that_cannot_be_done_as_asked_is_refused(body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        read_job_request(body)
    assert refused.value.status == 400


def test_a_list_comes_in_pages() -> None:
    items = [{"id": f"i{number}"} for number in range(5)]
    first = page(items, {"limit": "2"}, 20, 100)
    assert [first["has_more"], first["last_id"]] == [True, "i1"]
    last = page(items, {"limit": "3", "after": "i1"}, 20, 100)
    assert [last["has_more"], last["first_id"], last["last_id"]] == [False, "i2", "i4"]
    for query in ({"limit": "0"}, {"limit": "101"}, {"limit": "x"}, {"after": "gone"}):
        with pytest.raises(ApiError):
            page(items, query, 20, 100)
