"""Files and jobs on disk: whole after any kill, and held by one server."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import Any

import pytest

from offapi.errors import RunError
from offapi.serve.errors import ApiError
from offapi.serve.fine_tuning.job_store import EVENTS, JobStore

ASKED: dict[str, Any] = {"model": "tiny", "base": "tiny", "recipe": "sft"}


def add_file(store: JobStore, text: bytes = b"{}\n") -> str:
    with store.new_file() as content:
        content.write_bytes(text)
        return store.add_file(content, "chats.jsonl", "fine-tune").id


def test_what_was_added_is_there_again(tmp_path: Path) -> None:
    with JobStore.open(tmp_path) as store:
        files = [add_file(store), add_file(store)]
        job = store.add_job({**ASKED, "training_file": files[0]}, {"training.jsonl": files[0]})
        store.update(job.id, status="running", steps=3)
        store.add_event(job.id, "one", data={"step": 1})
    with JobStore.open(tmp_path) as store:
        assert [each.id for each in store.files()] == files
        assert [store.job(job.id).status, store.job(job.id).steps] == ["running", 3]
        assert [each["message"] for each in store.events(job.id)][1:] == ["one"]
        third = add_file(store)
        assert store.file(third).number > store.job(job.id).number


def test_a_deleted_file_stays_with_the_job_that_learns_from_it(tmp_path: Path) -> None:
    with JobStore.open(tmp_path) as store:
        file = add_file(store, b"kept")
        job = store.add_job({**ASKED, "training_file": file}, {"training.jsonl": file})
        store.delete_file(file)
        assert (store.job_folder(job.id) / "training.jsonl").read_bytes() == b"kept"
        with pytest.raises(ApiError):
            store.file(file)


def test_what_a_kill_left_half_written_is_gone(tmp_path: Path) -> None:
    with JobStore.open(tmp_path) as store:
        file = add_file(store)
        job = store.add_job({**ASKED, "training_file": file}, {})
        upload = store.new_file()
        upload.__enter__().write_bytes(b"half")
        with (store.job_folder(job.id) / EVENTS).open("ab") as events:
            events.write(b'{"message": "to')
        assert len(list((tmp_path / "files").iterdir())) == 2
    with JobStore.open(tmp_path) as store:
        assert len(list((tmp_path / "files").iterdir())) == 1
        assert len(store.events(job.id)) == 1
        store.add_event(job.id, "next")
        assert [each["message"] for each in store.events(job.id)][1:] == ["next"]


def test_a_job_that_has_ended_changes_no_more(tmp_path: Path) -> None:
    with JobStore.open(tmp_path) as store:
        job = store.add_job({**ASKED, "training_file": "f"}, {})
        assert store.update(job.id, status="cancelled")
        assert not store.update(job.id, status="succeeded")
        assert store.job(job.id).status == "cancelled"


def test_one_server_holds_a_folder_and_others_cannot_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    with JobStore.open(folder) as store:
        add_file(store)
        store.add_job({**ASKED, "training_file": "f"}, {})
        with pytest.raises(RunError, match="is being written by process"):
            JobStore.open(folder).__enter__()
        modes = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
        assert {modes[path] for path in modes if path.is_dir()} == {0o700}
        written = [path for path in modes if path.is_file() and path.name != "content"]
        assert {modes[path] for path in written} == {0o600}
