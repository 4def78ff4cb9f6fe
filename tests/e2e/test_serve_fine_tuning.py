"""Files and fine-tuning jobs, as the `openai` client asks a real server for them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import tiny_llama
from recipe_folder import until
from serving import Served, serving

from offapi.files.hashing import sha256_file

Row = dict[str, Any]
DONE = ("succeeded", "failed", "cancelled")
PRIVATE = "Zanzibar"  # stands in uploaded files, and in no error


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_chat(tmp_path_factory.mktemp("base") / "tiny")


def chat(number: int) -> Row:
    shop = ("Ash", "Birch", "Cedar", "Elm")[number % 4]
    answer = json.dumps({"shop": shop})
    turns = [("system", "Name the shop."), ("user", f"from {shop}, no {number}")]
    turns.append(("assistant", answer))
    return {"messages": [{"role": role, "content": text} for role, text in turns]}


def chats(count: int, first: int = 0) -> bytes:
    rows = (json.dumps(chat(number)) for number in range(first, first + count))
    return "\n".join(rows).encode()


def serve(base: Path, jobs: Path, backend: str) -> Any:
    return serving(f"gpt-4o-mini={base}", f"--backend={backend}", f"--jobs={jobs}")


def client_of(server: Served) -> Any:
    return server.client()


def upload(client: openai.OpenAI, data: bytes, name: str = "chats.jsonl") -> str:
    return client.files.create(file=(name, data), purpose="fine-tune").id


def wait_for(client: openai.OpenAI, job: str, *statuses: str) -> Any:
    until(lambda: client.fine_tuning.jobs.retrieve(job).status in (*statuses, *DONE))
    found = client.fine_tuning.jobs.retrieve(job)
    assert found.status in (statuses or DONE), found
    return found


def ask(client: openai.OpenAI, model: str) -> Any:
    messages: Any = [
        {"role": "system", "content": "Name the shop."},
        {"role": "user", "content": "from Ash, no 1"},
    ]
    return client.chat.completions.create(model=model, messages=messages, max_tokens=8)


@pytest.fixture
def started(base: Path, tmp_path: Path, backend_name: str) -> Iterator[Served]:
    with serve(base, tmp_path / "jobs", backend_name) as server:
        yield server


def test_an_app_changes_its_base_url_alone(started: Served, tmp_path: Path) -> None:
    client = client_of(started)
    training, validation = upload(client, chats(12)), upload(client, chats(4, first=20))
    assert [each.id for each in client.files.list()] == [validation, training]
    assert client.files.retrieve(training).filename == "chats.jsonl"
    assert client.files.content(training).read() == chats(12)
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini",
        training_file=training,
        validation_file=validation,
        suffix="shops",
        seed=7,
        method={
            "type": "supervised",
            "supervised": {"hyperparameters": {"n_epochs": 2, "batch_size": 3}},
        },
    )
    assert [job.status, job.seed, job.fine_tuned_model] == ["queued", 7, None]
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    name = done.fine_tuned_model
    assert name.startswith("ft:gpt-4o-mini:shops::")
    answer, before = ask(client, name), ask(client, "gpt-4o-mini")
    assert answer.model == name
    assert answer.offapi["adapter"]["name"] == name
    assert before.offapi["adapter"] is None
    adapter = tmp_path / "jobs/jobs" / job.id / "run/adapter/adapter_model.safetensors"
    assert answer.offapi["adapter"]["sha256"] == sha256_file(adapter)
    assert done.trained_tokens > 100
    assert done.hyperparameters.n_epochs == 2
    check_what_was_told(client, job.id)
    client.files.delete(training)
    assert [each.id for each in client.files.list(purpose="fine-tune")] == [validation]
    assert client.models.delete(name).deleted
    with pytest.raises(openai.NotFoundError):
        ask(client, name)
    assert not adapter.exists()


def check_what_was_told(client: openai.OpenAI, job: str) -> None:
    """Check events, checkpoint and result file of a job of 8 steps."""
    events = list(client.fine_tuning.jobs.list_events(job, limit=3))
    metrics: list[Any] = [each.data for each in events if each.type == "metrics"]
    steps = [each["step"] for each in metrics]
    assert steps == list(range(8, 0, -1))
    assert events[0].message == "The job has successfully completed"
    assert len({each.id for each in events}) == len(events)
    checkpoints = client.fine_tuning.jobs.checkpoints.list(job).data
    assert [each.step_number for each in checkpoints] == [8]
    [result] = client.fine_tuning.jobs.retrieve(job).result_files
    lines = client.files.content(result).text.splitlines()
    assert lines[0] == "step,train_loss,train_tokens,learning_rate"
    assert len(lines) == 9


def test_filtered_sft_infers_a_task_and_the_model_answers_it(started: Served) -> None:
    client = client_of(started)
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini",
        training_file=upload(client, chats(24)),
        metadata={"recipe": "filtered_sft"},
        hyperparameters={"n_epochs": 1},
    )
    done = wait_for(client, job.id)
    assert done.status == "succeeded", done.error
    assert ask(client, done.fine_tuned_model).offapi["adapter"] is not None
    assert [each.id for each in client.fine_tuning.jobs.list(metadata={"recipe": "sft"})] == []
    assert [each.id for each in client.fine_tuning.jobs.list()] == [job.id]
