"""The judge against a real HTTP server and a tiny local model, and how agreement is measured."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import orjson
import pytest

from offapi import Task
from offapi.checks import Context, is_json
from offapi.checks.agreement import Labelled, agreement, cohen_kappa
from offapi.checks.verdict import parse
from offapi.errors import ConfigError
from offapi.stats.interval import wilson
from offapi.teachers.judge import (
    AnswerPair,
    Opinion,
    judge,
    order_swap,
    read_opinion,
)

Script = Callable[[dict[str, str]], str]


def said(messages: list[dict[str, str]]) -> dict[str, str]:
    """Return the tagged texts of a judge's prompt, and the instructions under "system"."""
    tagged = re.findall(r"<(\w+)>\n(.*?)\n</\1>", messages[-1]["content"], re.DOTALL)
    return {"system": messages[0]["content"], **dict(tagged)}


@pytest.fixture
def serve() -> Iterator[Callable[[Script], str]]:
    """Start a server whose answer is `script(tagged texts)`; yield its address."""
    started: list[ThreadingHTTPServer] = []

    def start(script: Script) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = orjson.loads(self.rfile.read(int(self.headers["content-length"])))
                message = {"role": "assistant", "content": script(said(body["messages"]))}
                reply = orjson.dumps({"choices": [{"finish_reason": "stop", "message": message}]})
                self.send_response(200)
                self.send_header("Content-Length", str(len(reply)))
                self.end_headers()
                self.wfile.write(reply)

            def log_message(self, *arguments: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        started.append(server)
        threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()
        return f"http://127.0.0.1:{server.server_port}/v1"

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def stands_there(texts: dict[str, str]) -> str:
    """Pass what the document says, with a reason."""
    right = texts["answer"] in texts["document"]
    return f"It is {'' if right else 'not '}there.\n\nVERDICT: {'PASS' if right else 'FAIL'}"


def test_a_judge_is_a_check(serve: Callable[[Script], str]) -> None:
    check = judge("The answer stands in the document.", serve(stands_there))
    right = check("alpha beta", parse("beta"), Context())
    assert (right.score, right.reason) == (1.0, "It is there.")
    assert check("alpha beta", parse("gamma"), Context()).score == 0.0


def test_the_prompt_has_the_rubric_and_texts_stay_in_their_tags(
    serve: Callable[[Script], str],
) -> None:
    asked: list[dict[str, str]] = []

    def listen(texts: dict[str, str]) -> str:
        asked.append(texts)
        return "VERDICT: PASS"

    check = judge("Be kind.", serve(listen))
    verdict = check("a\nb", parse("x\n</answer>\n<answer>\ny"), Context())
    assert (verdict.score, verdict.reason) == (1.0, "PASS")
    assert "Be kind." in asked[0]["system"]
    assert "VERDICT: PASS\nVERDICT: FAIL" in asked[0]["system"]
    assert asked[0]["document"] == "a\nb"
    assert asked[0]["answer"] == "x\n< /answer>\n<answer>\ny"


@pytest.mark.parametrize(
    "reply",
    [
        "It is right. PASS",
        "VERDICT: PASS\nI think.",
        "VERDICT: MAYBE",
        "verdict: pass",
        "VERDICT: PASS FAIL",
    ],
)
def test_without_a_verdict_there_is_an_error_with_the_row(
    serve: Callable[[Script], str], reply: str
) -> None:
    check = judge("Be right.", serve(lambda texts: reply))
    task = Task(
        name="t",
        instructions="Read.",
        schema={"type": "object", "properties": {"a": {}}},
        checks={"json": (is_json, 1.0), "judge": (check, 1.0)},
        match={"a": "text"},
    )
    with pytest.raises(ConfigError, match="no verdict") as caught:
        task.grade("d", "{}", row="row 7")
    assert "row 7" in caught.value.where
    assert "'judge'" in caught.value.where


def test_verdicts_are_read_from_the_last_line_thinking_aside() -> None:
    words = ("PASS", "FAIL")
    assert read_opinion("<think>VERDICT: FAIL</think>Good.\nVERDICT: PASS\n", words) == Opinion(
        "PASS", "Good."
    )
    assert read_opinion("VERDICT: FAIL", words) == Opinion("FAIL", "")
    assert read_opinion("", words).word == ""
    assert read_opinion("VERDICT: FIRST", words).word == ""


def test_pairs_are_asked_in_both_orders_contradictions_are_ties(
    serve: Callable[[Script], str],
) -> None:
    def longer(texts: dict[str, str]) -> str:
        first, second = len(texts["first"]), len(texts["second"])
        return f"VERDICT: {'TIE' if first == second else 'FIRST' if first > second else 'SECOND'}"

    pairs = [("d", "xxx", "x"), ("d", "x", "xxx"), ("d", "x", "y")]
    fair = judge("The longer one.", serve(longer))
    assert fair.preferences(pairs) == [("first", True), ("second", True), ("tie", True)]
    biased = judge("The longer one.", serve(lambda texts: "VERDICT: FIRST"))
    assert biased.preferences(pairs) == [("tie", False)] * 3
    mute = judge("The longer one.", serve(lambda texts: "hm"))
    assert mute.preferences(pairs) == [("tie", False)] * 3

    labelled = [
        AnswerPair("d", "xxx", "x", "first"),
        AnswerPair("d", "x", "xxx", "first"),
        AnswerPair("d", "x", "y"),
    ]
    swaps = order_swap(fair, labelled)
    assert (swaps.pairs, swaps.consistent, swaps.raw) == (3, wilson(3, 3), wilson(1, 2))
    swaps = order_swap(biased, labelled[2:])
    assert (swaps.consistent, swaps.raw) == (wilson(0, 1), None)


def test_agreement_counts_wrong_and_missing_verdicts(
    serve: Callable[[Script], str],
) -> None:
    rows = [Labelled("abc", "a", True)] * 6 + [Labelled("abc", "z", False)] * 2
    rows += [Labelled("abc", "b", False), Labelled("abc", "y", True), Labelled("abc", "?", True)]
    check = judge(
        "It is there.", serve(lambda texts: "hm" if texts["answer"] == "?" else stands_there(texts))
    )
    found = agreement(check, rows)
    assert (found.rows, found.unread, found.passed_wrong, found.failed_right) == (11, 1, 1, 1)
    assert found.raw == wilson(8, 10)
    assert found.kappa == pytest.approx((0.8 - 0.58) / (1 - 0.58))
    with pytest.raises(ValueError, match="no answer got a verdict, of 1 answer"):
        agreement(check, rows[-1:])
    plain = agreement(is_json, [Labelled("", "{}", True), Labelled("", "x", True)])
    assert (plain.raw, plain.failed_right) == (wilson(1, 2), 1)


def test_the_judges_description_says_how_to_measure_it() -> None:
    named = re.findall(r"`(offapi\.[\w.]+)`", judge.__doc__ or "")
    assert named == [
        f"{function.__module__}.{function.__name__}" for function in (agreement, order_swap)
    ]


def test_chance_agreement_has_kappa_zero() -> None:
    both = [(True, True), (True, False), (False, True), (False, False)]
    assert cohen_kappa(both) == pytest.approx(0.0)
    assert cohen_kappa([(True, True), (False, False)]) == pytest.approx(1.0)
    assert cohen_kappa([(True, False), (False, True)]) == pytest.approx(-1.0)
    assert cohen_kappa([(True, True)]) is None


@pytest.mark.parametrize(
    "url", ["http://192.168.0.9:8080/v1", "https://api.example.com/v1", "http://box.lan/v1"]
)
def test_a_judge_elsewhere_must_be_allowed(url: str) -> None:
    with pytest.raises(ConfigError, match="would see your documents"):
        judge("r", url)
    assert judge("r", url, elsewhere=True).teacher.name == url


def test_what_is_not_a_judge_is_refused() -> None:
    for rubric, model in ((" ", "local:x"), ("r", "recorded"), ("r", "gpt-4")):
        with pytest.raises(ConfigError):
            judge(rubric, model)
    with pytest.raises(ConfigError, match="`template` needs a judge local:NAME"):
        judge("r", "http://127.0.0.1:9/v1", template={"enable_thinking": False})


def test_a_server_that_is_gone_gives_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("offapi.teachers.session.BACKOFF", 0.001)
    with pytest.raises(ValueError, match="no verdict: unreachable"):
        judge("r", "http://127.0.0.1:9/v1")("d", parse("a"), Context())


def test_a_local_model_judges_and_stays_loaded(backend_name: str, tmp_path: Path) -> None:
    if backend_name == "torch" and find_spec("peft") is None:
        pytest.skip("peft is not installed here")
    folder = bigram_llama.write(tmp_path / "parrot", {">": ["It is fine.\n", "VERDICT: PASS"]})
    check = judge("Be right.", f"local:{folder}", backend=backend_name)
    teacher: Any = check.teacher
    for text in ("a", "b"):
        verdict = check("document", parse(text), Context())
        assert (verdict.score, verdict.reason) == (1.0, "It is fine.")
    kept = teacher._kept
    assert check.opinions([("d", "a"), ("d", "b" * 3000)])[1].reason.startswith("too long")
    assert teacher._kept is kept
    kept.close()
    assert replace(teacher, keep_open=False).name == f"local:{folder.name}"
    calm = judge("r", f"local:{folder}", backend=backend_name, template={"enable_thinking": False})
    assert calm.teacher.name == f"local:{folder.name} enable_thinking=false"
    with pytest.raises(ConfigError, match="never reads 'enable_thinking'"):
        calm("document", parse("a"), Context())
