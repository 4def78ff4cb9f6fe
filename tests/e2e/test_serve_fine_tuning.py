"""Files and fine-tuning jobs, as the `openai` client asks a real server for them."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import openai
import pytest
import tiny_llama
from recipe_folder import until
from serving import Served, serving

from offapi.files.hashing import sha256_file
from offapi.files.lock import open_locked

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


def test_filtered_sft_infers_a_task_and_the_model_answers_it(base: Path, tmp_path: Path) -> None:
    with serve(base, tmp_path / "jobs", one_backend()) as server:
        filtered_sft(client_of(server))


def filtered_sft(client: Any) -> None:
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


def one_backend() -> str:
    """Return a backend that is installed; what is tested is the same on every one."""
    return "mlx" if find_spec("mlx") else "torch"


def long_job(client: Any, training: str) -> str:
    """Begin a training of 144 steps, with a checkpoint every 20."""
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini",
        training_file=training,
        seed=3,
        hyperparameters={"n_epochs": 12, "batch_size": 1},
    )
    return str(job.id)


def wait_for_step(client: Any, job: str, step: int) -> None:
    """Wait until a job has come so far, and is still running."""
    until(lambda: steps_of(client, job) >= step)
    assert client.fine_tuning.jobs.retrieve(job).status == "running"


def steps_of(client: Any, job: str) -> int:
    events = client.fine_tuning.jobs.list_events(job, limit=1).data
    data: Any = events[0].data if events else {}
    return int(data.get("step", 0))


def test_a_job_survives_kills_and_signals_and_can_be_cancelled(base: Path, tmp_path: Path) -> None:
    jobs, backend = tmp_path / "jobs", one_backend()
    with serve(base, jobs, backend) as server:
        client = client_of(server)
        training = upload(client, chats(12))
        straight = long_job(client, training)
        name = wait_for(client, straight, "succeeded").fine_tuned_model
        broken = long_job(client, training)
        wait_for_step(client, broken, 30)
        server.end(signal.SIGKILL)
        os.killpg(int((jobs / "jobs" / broken / "process.lock").read_text()), signal.SIGKILL)
    with serve(base, jobs, backend) as server:
        client = client_of(server)
        assert ask(client, name).offapi["adapter"] is not None
        wait_for_step(client, broken, 70)
        assert server.end(signal.SIGTERM) == 0
    assert no_process_holds(jobs / "jobs" / broken)
    with serve(base, jobs, backend) as server:
        client = client_of(server)
        waiting = long_job(client, training)
        wait_for(client, broken, "succeeded")
        adapters = [adapter_of(jobs, job) for job in (straight, broken)]
        assert adapters[0].read_bytes() == adapters[1].read_bytes()
        attempts = json.loads((adapters[1].parents[1] / "manifest.json").read_bytes())["attempts"]
        assert len(attempts) == 3
        assert [each["step"] >= 20 for each in attempts] == [False, True, True]
        cancel_while_running(client, waiting, jobs)


def fail(client: Any, jobs: Path) -> None:
    """Train on a chat that no context of the model holds, and read why that failed."""
    long = chat(0)
    long["messages"][1]["content"] = PRIVATE * 500
    job = client.fine_tuning.jobs.create(
        model="gpt-4o-mini", training_file=upload(client, json.dumps(long).encode())
    )
    failed = wait_for(client, job.id, "failed")
    assert failed.error.param == "training_file"
    assert "max_tokens" in failed.error.message
    assert PRIVATE not in failed.error.message
    events = client.fine_tuning.jobs.list_events(job.id).data
    assert [events[0].level, events[0].message] == ["error", failed.error.message]
    assert not (jobs / "jobs" / job.id / "train.jsonl").exists()


def cancel_while_running(client: Any, job: str, jobs: Path) -> None:
    """Cancel a job, and find nothing of what it was doing."""
    wait_for_step(client, job, 1)
    other = long_job(client, client.files.list().data[-1].id)
    assert client.fine_tuning.jobs.cancel(other).status == "cancelled"
    assert client.fine_tuning.jobs.cancel(job).status == "cancelled"
    assert no_process_holds(jobs / "jobs" / job)
    left = {path.name for path in (jobs / "jobs" / job).iterdir()}
    assert left == {"job.json", "events.jsonl", "process.lock", "stdout.json", "stderr.txt"}
    with pytest.raises(openai.BadRequestError, match="has ended"):
        client.fine_tuning.jobs.cancel(job)
    assert [each.id for each in client.fine_tuning.jobs.list(limit=2)][:2] == [other, job]


def adapter_of(jobs: Path, job: str) -> Path:
    return jobs / "jobs" / job / "run/adapter/adapter_model.safetensors"


def no_process_holds(folder: Path) -> bool:
    os.close(open_locked(folder / "process.lock"))
    return True


WRONG: dict[str, tuple[bytes, str]] = {
    "not JSON": (chats(2) + b"\n{" + PRIVATE.encode(), "Line 3: the line is not JSON"),
    "no list": (b'{"messages": "Zanzibar"}', "Line 1: 'messages' must be a list"),
    "role": (b'{"messages": [{"role": "Zanzibar"}]}', "Line 1: messages[0].role must be"),
    "content": (
        b'{"messages": [{"role": "user", "content": {"Zanzibar": 1}}]}',
        "Line 1: messages[0].content must be text",
    ),
    "no answer": (
        b'{"messages": [{"role": "user", "content": "Zanzibar"}]}',
        "Line 1: messages[0] must be the assistant's answer",
    ),
    "pairs": (b'{"input": {}, "preferred_output": ["Zanzibar"]}', "Line 1: pairs of answers"),
    "empty": (b"\n", "no examples"),
}


def test_what_is_refused_says_why_and_repeats_nothing(base: Path, tmp_path: Path) -> None:
    jobs = tmp_path / "jobs"
    limits = {"file_bytes": 20_000}
    words = (f"gpt-4o-mini={base}", f"--backend={one_backend()}", f"--jobs={jobs}")
    with serving(*words, limits=limits) as server:
        client = client_of(server)
        for data, said in WRONG.values():
            with pytest.raises(openai.BadRequestError) as refused:
                upload(client, data)
            assert said in refused.value.message
            assert PRIVATE not in refused.value.response.text
        with pytest.raises(openai.APIStatusError) as large:
            upload(client, b" " * 30_000)
        assert large.value.status_code == 413
        with pytest.raises(openai.BadRequestError, match="purpose"):
            client.files.create(file=b"x", purpose="batch")
        assert client.files.list().data == []
        assert list((jobs / "files").iterdir()) == []
        refuse_jobs(client, upload(client, chats(12)))
        fail(client, jobs)
        assert PRIVATE not in server.log


def refuse_jobs(client: Any, training: str) -> None:
    """Ask for jobs that cannot be done as asked."""
    asked: dict[str, Any] = {"model": "gpt-4o-mini", "training_file": training}
    for changes, param in (
        ({"training_file": "file-Zanzibar"}, "training_file"),
        ({"model": "Zanzibar"}, "model"),
        ({"method": {"type": "dpo"}}, "method.type"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": PRIVATE}}]}, "integrations"),
        ({"suffix": "Zanzibar/.."}, "suffix"),
        ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs"),
        ({"hyperparameters": {"batch_size": PRIVATE}}, "hyperparameters.batch_size"),
        ({"metadata": {"recipe": PRIVATE}}, "metadata"),
        ({"seed": -1}, "seed"),
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            client.fine_tuning.jobs.create(**{**asked, **changes})
        assert refused.value.status_code in (400, 404), changes
        assert refused.value.param == param
        assert PRIVATE not in refused.value.response.text
    assert client.fine_tuning.jobs.list().data == []
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve("ftjob-Zanzibar")
