"""What a teacher is called, and which ones need their terms checked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from offapi.errors import ConfigError
from offapi.teachers import terms
from offapi.teachers.address import api_key_from
from offapi.teachers.endpoint import Endpoint
from offapi.teachers.failures import failure_step
from offapi.teachers.teacher import Price, Request, TeacherSpec, Usage, parse_teacher


def test_specs() -> None:
    assert parse_teacher("local:a/b:c") == TeacherSpec("local", "a/b:c")
    assert parse_teacher("http://127.0.0.1:8080/v1") == TeacherSpec(
        "endpoint", "http://127.0.0.1:8080/v1"
    )
    assert parse_teacher("https://api.example.com/v1").kind == "endpoint"
    assert parse_teacher("recorded") == TeacherSpec("recorded")
    for wrong in ("", "local:", "gpt-4", "ftp://x/v1", "Recorded", "localhost:8080/v1"):
        with pytest.raises(ConfigError, match="unknown teacher") as caught:
            parse_teacher(wrong)
        assert "local:NAME" in caught.value.next_step


@pytest.mark.parametrize(
    ("spec", "written"),
    [
        ("ollama:qwen3", "http://127.0.0.1:11434/v1 --model qwen3"),
        ("Ollama:qwen3:8b", "http://127.0.0.1:11434/v1 --model qwen3:8b"),
        ("ollama", "http://127.0.0.1:11434/v1"),
        ("lmstudio:gemma", "http://127.0.0.1:1234/v1 --model gemma"),
        ("llama-server", "http://127.0.0.1:8080/v1"),
        ("vllm:m", "http://127.0.0.1:8000/v1 --model m"),
        ("localhost:8080", "http://localhost:8080/v1"),
        ("localhost:8080/v1", "http://localhost:8080/v1"),
    ],
)
def test_a_servers_name_leads_to_its_address(spec: str, written: str) -> None:
    with pytest.raises(ConfigError, match="unknown teacher") as caught:
        parse_teacher(spec)
    assert f"write {written}. Teachers are" in caught.value.next_step


@pytest.mark.parametrize(
    ("reason", "words"),
    [
        ("truncated", "max_answer_tokens = 12. Raise it"),
        ("unreachable: no route (6 attempts)", "Nothing answers at http://127.0.0.1:1/v1. Start"),
        ("timed out: no answer in 5 s", "Raise --timeout"),
        ("refused: I cannot", "choose another one"),
        ("empty answer", "may have used up max_answer_tokens = 12"),
        ("HTTP 500", "Fix the cause."),
    ],
)
def test_each_failure_has_its_next_step(reason: str, words: str) -> None:
    assert words in failure_step(reason, "http://127.0.0.1:1/v1#m", 12)


def test_a_teacher_elsewhere_needs_its_terms_checked() -> None:
    terms.require("192.168.1.20", checked=False)
    terms.require("api.example.com", checked=True)
    with pytest.raises(ConfigError, match="forbid training other models") as caught:
        terms.require("api.example.com", checked=False)
    assert "--teacher-terms-checked" in caught.value.next_step


def test_the_host_judged_is_the_host_reached() -> None:
    """Addresses that only look local need their terms checked."""
    for url in (
        "http://127.0.0.1@api.example.com/v1",
        "http://localhost\\@api.example.com/v1",
        "http://127.1:80/v1",
    ):
        with pytest.raises(ConfigError):
            Endpoint(url, 8)


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://user:secret@127.0.0.1/v1", "password"),
        ("http:///v1", "has no host"),
        ("http://127.0.0.1:99999/v1", "impossible port"),
        ("http://127.0.0.1:0/v1", "impossible port"),
        ("http://127.0.0.1:x/v1", "not a URL"),
        ("http://127.0.0.1/v1?api-version=1", "part"),
    ],
)
def test_addresses_that_cannot_be_asked(url: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as caught:
        Endpoint(url, 8, terms_checked=True)
    assert "secret" not in str(caught.value)


def test_no_name_is_looked_up_before_the_terms_are_checked() -> None:
    """Run in its own process, whose audit hook sees every lookup."""
    script = """
import sys
from offapi.errors import ConfigError
seen = []
sys.addaudithook(lambda event, arguments: seen.append(event) if event.startswith("socket.") else None)
from offapi.teachers.endpoint import Endpoint
try:
    Endpoint("https://api.example.com/v1", 8)
except ConfigError:
    print("refused", [event for event in seen if event not in ("socket.__new__", "socket.bind")])
"""
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert ran.stdout == "refused []\n"


def test_a_key_comes_from_the_environment_and_shows_nowhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TEACHER_KEY", "sk-secret\n")
    endpoint = Endpoint("http://127.0.0.1:1/v1", 8, model="m", key=api_key_from("TEACHER_KEY"))
    assert endpoint.key == "sk-secret"
    assert "sk-secret" not in repr(endpoint) + endpoint.name
    assert api_key_from(None) is None
    for value in ("", "two words", "tab\there", "ключ"):
        monkeypatch.setenv("TEACHER_KEY", value)
        with pytest.raises(ConfigError, match="TEACHER_KEY") as caught:
            api_key_from("TEACHER_KEY")
        assert not value or value not in str(caught.value)


def test_a_key_pasted_in_place_of_its_name_is_not_repeated() -> None:
    with pytest.raises(ConfigError, match="not the name of a variable") as caught:
        api_key_from("sk-secret")
    assert "sk-secret" not in str(caught.value)


def test_a_key_is_not_sent_over_the_internet_in_clear() -> None:
    with pytest.raises(ConfigError, match="unencrypted"):
        Endpoint("http://api.example.com/v1", 8, key="k", terms_checked=True)
    Endpoint("https://api.example.com/v1", 8, key="k", terms_checked=True)
    Endpoint("http://192.168.1.2/v1", 8, key="k")


def test_a_cap_needs_prices_in_dollars_per_million_tokens() -> None:
    with pytest.raises(ConfigError, match="--max-cost"):
        Endpoint("http://127.0.0.1/v1", 8, max_cost=1.0)
    with pytest.raises(ConfigError, match="--max-cost"):
        Endpoint("http://127.0.0.1/v1", 8, price=Price(1, 2), max_cost=float("nan"))
    with pytest.raises(ConfigError, match="price"):
        Price(-1.0, 0.0)
    assert Price(3.0, 15.0).of(Usage(1000, 100)) == pytest.approx(0.0045)


def test_another_prompt_is_another_question() -> None:
    ask = Request("a", ({"role": "user", "content": "x"},))
    assert ask.prompt_sha256 == Request("b", ({"content": "x", "role": "user"},)).prompt_sha256
    assert ask.prompt_sha256 != Request("a", ({"role": "user", "content": "y"},)).prompt_sha256


def test_teachers_load_neither_a_client_nor_a_backend(tmp_path: Path) -> None:
    heavy = "torch mlx transformers httpx2 asyncio"
    script = (
        f"import sys, offapi.teachers.labelling as _; print([n for n in {heavy.split()!r} if n in"
        " sys.modules])"
    )
    ran = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert ran.stdout == "[]\n"
