"""`offapi serve` as an application uses it: OpenAI's own client, a changed base URL."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx2
import openai
import pytest
from recipe_folder import apart, lay_out, offapi
from serving import Served, serving

import offapi as package
from offapi.chat.chat import Chat

QUESTION = [
    {"role": "system", "content": "Say what you see, at length."},
    {"role": "user", "content": "Zoë, 5 €, 日本語: which of them?"},
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with two trained runs over one base."""
    folder = tmp_path_factory.mktemp("trained") / "work"
    recipe = lay_out(folder, count=6, epochs=1.0)
    for name, seed in (("student", 0), ("other", 1)):
        done = offapi("train", str(recipe), "--set", f"name={name}", "--set", f"seed={seed}")
        assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def server(folder: Path, backend_name: str) -> Iterator[Served]:
    words = ("runs/student", "gpt-4o=runs/other", "base=model")
    with serving(*words, f"--backend={backend_name}", cwd=folder) as served:
        yield served


def ask(server: Served, **options: Any) -> Any:
    settings = {"model": "student", "messages": QUESTION, "max_tokens": 24, **options}
    return server.client().chat.completions.create(**settings)


def streamed(server: Served, **options: Any) -> tuple[list[str], list[Any]]:
    """Return each choice's text, and all chunks."""
    chunks = list(ask(server, stream=True, **options))
    texts = [""] * options.get("n", 1)
    for chunk in chunks:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    return texts, chunks


def test_what_is_served_is_what_was_trained(
    server: Served, folder: Path, backend_name: str
) -> None:
    for name, run in (("student", "student"), ("gpt-4o", "other")):
        with package.open(folder / "runs" / run, backend=backend_name) as student:
            alone = student.chat(QUESTION, max_tokens=24)
        answer = ask(server, model=name)
        assert answer.choices[0].message.content.strip() == alone
        assert answer.offapi["adapter"]["sha256"] != answer.offapi["base"]["sha256"]
        assert answer.model == name
    assert ask(server, model="base").offapi["adapter"] is None


def test_streamed_and_whole_text_are_equal(server: Served) -> None:
    for options in (
        {},
        {"temperature": 1.3, "seed": 3, "n": 3, "max_tokens": 40},
        {"temperature": 1.3, "seed": 5, "n": 2, "stop": ["e", "  ", "日"], "max_tokens": 40},
        {"temperature": 2.0, "seed": 8, "top_p": 0.9, "max_tokens": 40},
    ):
        whole = ask(server, **options)
        texts, chunks = streamed(server, **options)
        assert texts == [choice.message.content for choice in whole.choices]
        reasons = [c.finish_reason for chunk in chunks for c in chunk.choices if c.finish_reason]
        assert reasons == [choice.finish_reason for choice in whole.choices]


def test_the_stream_ends_with_usage_and_done(server: Served) -> None:
    body = {"model": "student", "messages": QUESTION, "max_tokens": 5, "stream": True}
    options = {"include_usage": True}
    for more, ending in ({}, "choices"), ({"stream_options": options}, "usage"):
        text = httpx2.post(f"{server.url}/v1/chat/completions", json={**body, **more}).text
        events = text.removesuffix("\n\n").split("\n\n")
        assert events[-1] == "data: [DONE]"
        assert ('"usage"' in text) == (ending == "usage")
        assert text.count('"finish_reason":"') == 1
        assert text.count('"offapi":') == 1


def test_a_stop_string_ends_the_text_before_it(server: Served) -> None:
    whole = ask(server, temperature=1.0, seed=1, max_tokens=40).choices[0].message.content
    stop = whole[len(whole) // 2 :][:3]
    cut = ask(server, temperature=1.0, seed=1, max_tokens=40, stop=stop)
    assert cut.choices[0].message.content == whole[: whole.index(stop)]
    assert cut.choices[0].finish_reason == "stop"


def test_a_seed_repeats_and_neighbours_change_nothing(server: Served) -> None:
    def texts(seed: int) -> list[str]:
        answer = ask(server, temperature=2.0, seed=seed, n=2)
        return [choice.message.content for choice in answer.choices]

    alone = [texts(seed) for seed in range(6)]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(texts, range(6)))
    assert together == alone
    assert len({text for pair in alone for text in pair}) > 3


def test_logprobs_are_those_of_the_tokens(server: Served, folder: Path) -> None:
    answer = ask(server, logprobs=True, temperature=0.7, seed=2).choices[0]
    tokens = answer.logprobs.content
    assert (
        b"".join(bytes(each.bytes) for each in tokens).decode("utf-8", "replace")
        == answer.message.content
    )
    assert all(each.logprob <= 0 for each in tokens)
    top = ask(server, logprobs=True, top_logprobs=3).choices[0].logprobs.content
    for each in top:
        listed = [other.logprob for other in each.top_logprobs]
        assert listed == sorted(listed, reverse=True)
        assert (each.token, each.logprob) == (each.top_logprobs[0].token, pytest.approx(listed[0]))
    chunks = list(ask(server, logprobs=True, temperature=0.7, seed=2, stream=True))
    sent = [c.logprobs.content for chunk in chunks for c in chunk.choices if c.logprobs]
    flat = [token for part in sent for token in part]
    assert [each.logprob for each in flat] == [each.logprob for each in tokens]


def test_usage_counts_tokens(server: Served, folder: Path) -> None:
    chat = Chat.load(folder / "model")
    usage = ask(server, n=2, temperature=1.0, seed=1, max_tokens=7).usage
    assert usage.prompt_tokens == len(chat.prompt(QUESTION))
    assert 2 <= usage.completion_tokens <= 14
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens


def test_models_are_listed(server: Served) -> None:
    client = server.client()
    assert [model.id for model in client.models.list()] == ["student", "gpt-4o", "base"]
    assert client.models.retrieve("gpt-4o").offapi["base"]["name"] == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-5")


@pytest.mark.parametrize(
    ("options", "kind", "param"),
    [
        ({"model": "unknown"}, openai.NotFoundError, "model"),
        ({"n": 0}, openai.BadRequestError, "n"),
        ({"temperature": 2.5}, openai.BadRequestError, "temperature"),
        ({"top_p": 0}, openai.BadRequestError, "top_p"),
        ({"stop": ["a"] * 5}, openai.BadRequestError, "stop"),
        ({"stop": [""]}, openai.BadRequestError, "stop"),
        ({"max_tokens": "7 SECRET"}, openai.BadRequestError, "max_tokens"),
        ({"max_tokens": 10**9}, openai.BadRequestError, "max_tokens"),
        ({"messages": []}, openai.BadRequestError, "messages"),
        ({"messages": [{"role": "SECRET"}]}, openai.BadRequestError, "messages[0].role"),
        ({"frequency_penalty": 0.5}, openai.BadRequestError, "frequency_penalty"),
        ({"tools": [{"type": "function"}]}, openai.BadRequestError, "tools[0]"),
        ({"extra_body": {"SECRET": 1}}, openai.BadRequestError, None),
        ({"top_logprobs": 3}, openai.BadRequestError, "top_logprobs"),
    ],
)
def test_a_wrong_request_is_refused_by_name(
    server: Served, options: dict[str, Any], kind: type[openai.APIStatusError], param: str | None
) -> None:
    with pytest.raises(kind) as refused:
        ask(server, **options)
    body: Any = refused.value.body
    assert set(body) == {"message", "type", "param", "code"}
    assert body["param"] == param
    assert "SECRET" not in str(body)


def test_a_prompt_beyond_the_context_is_refused(server: Served) -> None:
    long = [{"role": "user", "content": "word " * 3000}]
    with pytest.raises(openai.BadRequestError) as refused:
        ask(server, messages=long)
    assert refused.value.code == "context_length_exceeded"


def test_two_bases_are_refused(folder: Path, tmp_path: Path) -> None:
    lay_out(tmp_path / "second")
    done = offapi("serve", str(folder / "runs/student"), str(tmp_path / "second/model"))
    assert done.returncode == 2
    assert re.search("another base model", done.stderr)


def test_answers_are_counted_by_path_and_status(server: Served) -> None:
    def counted(path: str, status: str) -> float:
        return server.metric("offapi_requests", path=path, status=status)

    before = counted("/v1/models", "404"), counted("other", "404")
    for path in ("/v1/models/a", "/v1/models/b", "/v1/nothing", "/v1/chat/completionsX"):
        assert httpx2.get(f"{server.url}{path}").status_code == 404
    assert (counted("/v1/models", "404"), counted("other", "404")) == (before[0] + 2, before[1] + 2)
    tokens = server.metric("offapi_tokens", kind="completion")
    written = ask(server, max_tokens=5).usage.completion_tokens
    assert server.metric("offapi_tokens", kind="completion") == tokens + written


def test_another_adapter_than_was_trained_is_refused(
    folder: Path, tmp_path: Path, backend_name: str
) -> None:
    run = tmp_path / "swapped"
    shutil.copytree(folder / "runs/student", run)
    weights = "adapter/adapter_model.safetensors"
    shutil.copy(folder / "runs/other" / weights, run / weights)
    done = apart("serve", run, "--port=0", f"--backend={backend_name}", cwd=folder)
    assert done.returncode == 1
    assert "does not compute what it was trained to" in done.stderr
    assert "Serving" not in done.stderr
