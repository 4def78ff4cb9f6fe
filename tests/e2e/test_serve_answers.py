"""`offapi serve` on questions of a run's task: as `offapi predict` answers them, and what follows.

Confidence, a withdrawn promise, schemas of requests, escalation and the review queue.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import bigram_llama
import httpx2
import orjson
import pytest
import tiny_llama
from openai import BadRequestError
from recipe_folder import TASK, offapi, told, write_jsonl
from serving import Served, serving

from offapi.confidence import promise
from offapi.confidence.promise import AcceptedFrom, AnswersFrom, ConfidenceModel, FieldPromise
from offapi.confidence.signals import FEATURES
from offapi.data import traces
from offapi.predict.prediction import DocumentAnswer, FieldAnswer
from offapi.serve.review_queue import ReviewQueue
from offapi.task import load_task

RECIPE = """
recipe = "sft"
task = "task.py"
data = "train.jsonl"
model = "model"
out = "runs"
epochs = 1.0
[lora]
rank = 4
"""
QUOTES = TASK.replace('match={"shop"', 'bind=offapi.quote("shop"), match={"shop"')
RUN = "runs/sft"
NEEDS = {"torch": ("torch", "peft"), "mlx": ("mlx", "mlx_lm")}
SHOPS = ("Ash", "Birch", "Cedar", "Elm", "Fir", "Oak")
SCHEMA = {"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]}


def documents(count: int, first: int = 0) -> list[dict[str, Any]]:
    return [
        {"id": f"d{i}", "document": f"letter {i * 37} from é {SHOPS[i % 6]}, no {i * 11}!"}
        for i in range(first, first + count)
    ]


def read_rows(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny trained run that is sure of what its model is sure of."""
    folder = tmp_path_factory.mktemp("trained")
    tiny_llama.write_chat(folder / "model")
    (folder / "task.py").write_text(QUOTES)
    (folder / "sft.toml").write_text(RECIPE)
    gold = [
        {**row, "gold": {"shop": row["document"].split()[4].strip(",")}}
        for row in documents(4, 900)
    ]
    write_jsonl(folder / "train.jsonl", gold)
    write_jsonl(folder / "docs.jsonl", documents(8))
    done = offapi("train", "sft.toml", cwd=folder)
    assert done.returncode == 0, done.stderr
    calibrate(folder)
    return folder


def calibrate(folder: Path) -> None:
    """Write a calibration that accepts every value, and is surer of those that come late."""
    zeros = tuple(0.0 for _ in FEATURES)
    known = {"log_odds": 0.1, "place": 2.0}
    weights = tuple(known.get(name, 0.0) for name in FEATURES)
    model = ConfidenceModel(FEATURES, zeros, tuple(1.0 for _ in FEATURES), weights, 1.0)
    accepts = AcceptedFrom(at=0.0, documents=100, accepted=80, wrong=0)
    made_for = AnswersFrom.of(
        folder / "model", folder / RUN / "adapter", folder / "task.py", "source"
    )
    given = promise.Promise(
        made_for=made_for,
        error=0.01,
        delta=0.05,
        fields={"shop": FieldPromise(model, accepts, replace(accepts, at=None))},
        whole=accepts,
        made=promise.now(),
        data={},
    )
    promise.write(folder / RUN / promise.FILE, given)


@pytest.fixture(scope="module", params=sorted(NEEDS))
def backend(request: pytest.FixtureRequest) -> str:
    missing = [library for library in NEEDS[request.param] if find_spec(library) is None]
    if missing:
        pytest.skip(f"{request.param}: {', '.join(missing)} not installed")
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def predicted(folder: Path, backend: str) -> dict[str, dict[str, Any]]:
    """Return what `offapi predict` answers, by document."""
    out = f"{backend}.jsonl"
    told(
        offapi(
            "predict", RUN, "docs.jsonl", "--out", out, "--backend", backend, "--json", cwd=folder
        )
    )
    texts = {row["id"]: row["document"] for row in documents(8)}
    return {texts[row["id"]]: row for row in read_rows(folder / out)}


@pytest.fixture(scope="module")
def server(folder: Path, backend: str) -> Iterator[Served]:
    with serving(RUN, "plain=model", "--backend", backend, cwd=folder) as served:
        yield served


def post(server: Served, body: dict[str, Any]) -> httpx2.Response:
    address = f"{server.url}/v1/chat/completions"
    return httpx2.post(address, json=body, timeout=60, trust_env=False)


def ask(server: Served, document: str, **more: Any) -> dict[str, Any]:
    body = {"model": "sft", "messages": [{"role": "user", "content": document}], **more}
    answered = post(server, body)
    assert answered.status_code == 200, answered.text
    found: dict[str, Any] = answered.json()
    return found


def assert_as_predicted(row: dict[str, Any], member: dict[str, Any]) -> None:
    """Both have the same values, places and verdicts, and confidences up to rounding."""
    known = {name: row[name] for name in ("answer", "accepted", "error")}
    assert known == {name: member[name] for name in known}
    assert list(row["fields"]) == list(member["fields"])
    for name, field in row["fields"].items():
        other = member["fields"][name]
        assert field["confidence"] == pytest.approx(other["confidence"], abs=2e-4)
        assert {**field, "confidence": 0} == {**other, "confidence": 0}


def test_a_question_of_the_task_is_answered_as_predict_answers_it(
    server: Served, predicted: dict[str, dict[str, Any]], folder: Path
) -> None:
    task = load_task(folder / "task.py")
    for document, row in predicted.items():
        plain = ask(server, document)
        assert_as_predicted(row, plain["offapi"]["answer"])
        assert "id" not in plain["offapi"]["answer"]
        assert plain["offapi"]["answer"]["fields"]["shop"]["confidence"] > 0
        text = plain["choices"][0]["message"]["content"]
        assert orjson.loads(text) == row["answer"]
    parts = [{"type": "text", "text": part} for part in (document[:3], document[3:])]
    asked = [*task.messages(document)[:-1], {"role": "user", "content": parts}]
    whole = ask(server, "", messages=asked, max_tokens=500, response_format={"type": "json_object"})
    assert whole["choices"] == plain["choices"]
    assert whole["offapi"] == plain["offapi"]
    own = {"name": "x", "schema": {**SCHEMA, "additionalProperties": False, "title": "Letter"}}
    typed = ask(server, document, response_format={"type": "json_schema", "json_schema": own})
    assert typed["offapi"] == plain["offapi"]


def test_streamed_it_is_the_same_and_the_member_comes_last(
    server: Served, predicted: dict[str, dict[str, Any]]
) -> None:
    document = next(iter(predicted))
    plain = ask(server, document)
    chunks = list(
        server.client().chat.completions.create(
            model="sft",
            messages=[{"role": "user", "content": document}],
            stream=True,
            stream_options={"include_usage": True},
        )
    )
    text = "".join(each.choices[0].delta.content or "" for each in chunks if each.choices)
    assert text == plain["choices"][0]["message"]["content"]
    members = [(each.model_extra or {}).get("offapi") for each in chunks]
    assert members[-2] == plain["offapi"]
    assert members[:-2] == [None] * (len(members) - 2)
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.model_dump(exclude_none=True) == plain["usage"]


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"temperature": 0.5}, "'temperature' is not 0"),
        ({"n": 2}, "'n' is not 1"),
        ({"stop": "x"}, "'stop' is set"),
        ({"max_tokens": 5}, "'max_tokens' is below the task's 20"),
        ({"messages": [{"role": "system", "content": "Hi"}]}, "are not those of task 'letters'"),
    ],
)
def test_other_requests_are_plain_chats_and_say_why(
    server: Served, more: dict[str, Any], why: str
) -> None:
    member = ask(server, "from Ash", **{"max_tokens": 30, **more})["offapi"]
    assert why in member["note"]
    assert "answer" not in member


def test_a_model_without_a_task_says_nothing_of_one(server: Served) -> None:
    member = ask(server, "from Ash", model="plain", max_tokens=4)["offapi"]
    assert sorted(member) == ["adapter", "base"]


def test_a_promise_is_withdrawn_and_given_again_without_a_restart(
    server: Served, predicted: dict[str, dict[str, Any]], folder: Path
) -> None:
    document = next(iter(predicted))
    before = ask(server, document)["offapi"]
    assert before["answer"]["accepted"] is True
    promise.withdraw(folder / RUN / promise.FILE, "9 of 10 were wrong.")
    try:
        after = ask(server, document)["offapi"]["answer"]
        assert after["accepted"] is after["fields"]["shop"]["accepted"] is False
        assert after["fields"]["shop"]["confidence"] is not None
        (folder / RUN / promise.FILE).write_text("{")
        broken = ask(server, document)["offapi"]
        assert broken["answer"]["accepted"] is None
        assert "cannot be read" in broken["note"]
        (folder / RUN / promise.FILE).unlink()
        assert ask(server, document)["offapi"]["answer"]["accepted"] is None
    finally:
        calibrate(folder)
    assert ask(server, document)["offapi"] == before


def test_a_document_that_is_too_long_is_refused(server: Served) -> None:
    body = {"model": "sft", "messages": [{"role": "user", "content": "word " * 500}]}
    refused = post(server, body)
    assert refused.status_code == 400
    assert refused.json()["error"]["code"] == "context_length_exceeded"


def test_a_schema_of_the_request_wins_and_is_enforced(server: Served) -> None:
    schema = {
        "type": "object",
        "properties": {
            "size": {"enum": ["small", "large"]},
            "parts": {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 3},
        },
        "required": ["size", "parts"],
    }
    asked = {"type": "json_schema", "json_schema": {"name": "x", "schema": schema}}
    for model in ("sft", "plain"):
        given = ask(server, "from Ash", model=model, response_format=asked, max_tokens=60)
        answer = orjson.loads(given["choices"][0]["message"]["content"])
        assert answer["size"] in ("small", "large")
        assert 2 <= len(answer["parts"]) <= 3
    assert (
        "'response_format' is not the task's"
        in ask(server, "from Ash", response_format=asked, max_tokens=60)["offapi"]["note"]
    )
    for n in (1, 2):
        drawn = ask(
            server, "x", model="plain", response_format=asked, max_tokens=40, temperature=1.0, n=n
        )
        assert all(orjson.loads(each["message"]["content"]) for each in drawn["choices"])


def test_any_json_object_is_enforced_within_the_limit(server: Served) -> None:
    for limit in (5, 30):
        given = ask(
            server,
            "from Ash",
            model="plain",
            response_format={"type": "json_object"},
            max_tokens=limit,
        )
        assert isinstance(orjson.loads(given["choices"][0]["message"]["content"]), dict)


@pytest.mark.parametrize(
    ("schema", "keyword"),
    [
        ({"type": "array", "items": {"type": "string"}, "uniqueItems": True}, "'uniqueItems'"),
        ({"type": "string", "format": "secret words"}, "'format'"),
        ({"type": "string", "pattern": "(?=secret)b"}, "'pattern'"),
        ({"type": "array", "items": {"type": "string"}, "minItems": 10**8}, "'minItems'"),
        ({"$ref": "http://secret.example/words"}, "'$schema'"),
        ({"type": "secret"}, "'$schema'"),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_by_its_keyword(
    server: Served, schema: dict[str, Any], keyword: str
) -> None:
    whole = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    with pytest.raises(BadRequestError) as refused:
        server.client().chat.completions.create(
            model="plain",
            messages=[{"role": "user", "content": "from Ash"}],
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": whole},
            },
        )
    assert keyword in refused.value.message
    assert "secret" not in refused.value.message
    assert refused.value.param == "response_format"


# --- what is not accepted ---


ITEMS = [f'"i{n:02}"' for n in range(23)]
LIST = {
    "type": "object",
    "properties": {"items": {"type": "array", "items": {"type": "string"}}},
    "required": ["items"],
}


@pytest.fixture(scope="module")
def strong(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Return another `offapi serve`, whose model answers every letter, and lists, in one way."""
    folder = tmp_path_factory.mktemp("strong")
    pieces = [ITEMS[0], *(f",{item}" for item in ITEMS[1:])]
    answers = {"!": ['{"shop":', '"Zoo"', "}"], "?": ['{"items":[', *pieces, "]}"]}
    bigram_llama.write(folder / "oracle", answers)
    (folder / "task.py").write_text(TASK)
    with serving("oracle", "--task", "task.py", cwd=folder) as served:
        yield served


def test_a_grammar_leaves_a_list_as_long_as_it_is_without(strong: Served) -> None:
    def items(**more: Any) -> int:
        given = ask(strong, "", model="oracle", messages=[{"role": "user", "content": "?"}], **more)
        return len(orjson.loads(given["choices"][0]["message"]["content"])["items"])

    schema = {"type": "json_schema", "json_schema": {"name": "x", "schema": LIST}}
    free = {"temperature": 0, "stop": "never", "max_tokens": 100}
    assert items(**free) == len(ITEMS)
    assert items(**free, response_format=schema) == len(ITEMS)
    assert items(**free, response_format={"type": "json_object"}) == len(ITEMS)
    cut = ask(
        strong,
        "",
        model="oracle",
        messages=[{"role": "user", "content": "?"}],
        response_format=schema,
        max_tokens=12,
    )["choices"][0]
    assert cut["finish_reason"] == "length"  # it parses, and says that it was cut
    assert 0 < len(orjson.loads(cut["message"]["content"])["items"]) < 12


@pytest.fixture(scope="module")
def middle(predicted: dict[str, dict[str, Any]]) -> float:
    """Return a confidence that some of the answers are below."""
    sure = [row["fields"]["shop"]["confidence"] for row in predicted.values()]
    assert max(sure) - min(sure) > 0.05
    return float(max(sure) + min(sure)) / 2


def test_unaccepted_documents_go_to_the_stronger_endpoint_and_to_a_person(
    folder: Path,
    backend: str,
    predicted: dict[str, dict[str, Any]],
    middle: float,
    strong: Served,
    tmp_path: Path,
) -> None:
    queue = tmp_path / "queue.jsonl"
    url = f"{strong.url}/v1"
    words = ("--escalate", url, "--escalate-model", "oracle", "--ask", queue, "--below", middle)
    kept = ("--traces", tmp_path / "kept")
    with serving(RUN, *words, *kept, "--backend", backend, cwd=folder) as served:
        doubted = [text for text in predicted if not is_sure(served, text, predicted, middle)]
        streamed = list(
            served.client().chat.completions.create(
                model="sft", messages=[{"role": "user", "content": doubted[0]}], stream=True
            )
        )
        count = served.metric("offapi_escalated", to=url.split("/")[2], result="answered")
        assert served.end() == 0
    pieces = [each.choices[0].delta.content for each in streamed]
    assert [piece for piece in pieces if piece] == ['{"shop":"Zoo"}']
    member = (streamed[-1].model_extra or {})["offapi"]
    assert "in the review queue already" in member["note"]
    assert count == len(doubted) + 1
    said = served.log
    assert 0 < len(doubted) < len(predicted)
    assert f"{len(doubted) + 1} documents went to {url.split('/')[2]}." in said
    assert f"{len(doubted)} documents went into" in said
    assert all(document not in said for document in doubted)
    assert stat.S_IMODE(queue.stat().st_mode) == 0o600
    rows = read_rows(queue)
    assert [row["document"] for row in rows] == doubted
    assert all(row["reason"].startswith("shop .") for row in rows)
    others = {row.document: row.escalated_to for row in traces.read(tmp_path / "kept")}
    assert {text for text, other in others.items() if other == "oracle"} == set(doubted)
    assert {other for text, other in others.items() if text not in doubted} == {""}
    for row in traces.read(tmp_path / "kept"):
        assert (row.answer == '{"shop":"Zoo"}') == bool(row.escalated_to)
        known = predicted[row.document]["fields"]["shop"]["confidence"]
        assert (row.source or {})["fields"]["shop"]["confidence"] == pytest.approx(known, abs=1e-4)


def is_sure(
    served: Served, document: str, predicted: dict[str, dict[str, Any]], middle: float
) -> bool:
    """Ask about a document, check what is served, and return whether it was the run's answer."""
    row = predicted[document]
    given = ask(served, document)
    choice, member = given["choices"][0], given["offapi"]
    assert_as_predicted(row, member["answer"])
    if row["fields"]["shop"]["confidence"] >= middle:
        assert orjson.loads(choice["message"]["content"]) == row["answer"]
        assert "escalated" not in member
        return True
    assert choice["message"]["content"] == '{"shop":"Zoo"}'
    assert choice["finish_reason"] == "stop"
    why = member["escalated"].pop("why")
    assert re.fullmatch(r"shop \.\d+ < \.\d+", why)
    assert member["escalated"].pop("to").startswith("127.0.0.1:")
    assert member["escalated"] == {"model": "oracle", "failed": None}
    assert "Put into the review queue." in member["note"]
    return False


def test_a_queue_that_a_person_answered_trains_and_calibrates(folder: Path, tmp_path: Path) -> None:
    queue = ReviewQueue(tmp_path / "queue.jsonl")
    for row in documents(6, 40):
        answer = DocumentAnswer("", {"shop": "x"}, {"shop": FieldAnswer("x", 0.5)}, False)
        queue.add(row["document"], answer, "shop .5 is not accepted", "sft")
    reviewed = [
        {**row, "gold": {"shop": row["document"].split()[4].strip(",")}}
        for row in read_rows(queue.path)
    ]
    write_jsonl(queue.path, reviewed)
    data = ("--set", f"data={queue.path}", "--set", "name=reviewed")
    done = offapi("train", "sft.toml", *data, cwd=folder)
    assert done.returncode == 0, done.stderr
    before = (folder / RUN / promise.FILE).read_bytes()
    words = ("--data", str(queue.path), "--error", "0.5")
    done = offapi("calibrate", RUN, *words, cwd=folder)
    (folder / RUN / promise.FILE).write_bytes(before)
    assert done.returncode == 0, done.stderr
    assert "6 documents" in done.stderr


def test_an_endpoint_that_fails_leaves_the_models_own_answer(
    folder: Path, predicted: dict[str, dict[str, Any]], backend: str, tmp_path: Path
) -> None:
    if backend == "mlx" and find_spec("torch"):
        pytest.skip("what fails is the endpoint: one backend is enough")
    words = ("--escalate", "http://127.0.0.1:9/v1", "--below", "1", "--traces", tmp_path / "kept")
    with serving(RUN, *words, "--backend", backend, cwd=folder) as served:
        document, row = next(iter(predicted.items()))
        given = ask(served, document)
        served.end()
    assert orjson.loads(given["choices"][0]["message"]["content"]) == row["answer"]
    assert given["offapi"]["escalated"]["failed"].startswith("unreachable")
    assert "1 document went to 127.0.0.1:9, 1 without an answer." in served.log
    assert [row.escalated_to for row in traces.read(tmp_path / "kept")] == [""]


@pytest.mark.parametrize("option", [("--escalate", "http://127.0.0.1:9/v1"), ("--ask", "q.jsonl")])
def test_without_a_calibration_it_is_refused_with_the_next_step(
    folder: Path, option: tuple[str, str]
) -> None:
    kept = (folder / RUN / promise.FILE).read_bytes()
    (folder / RUN / promise.FILE).unlink()
    try:
        refused = offapi("serve", RUN, *option, "--port=0", cwd=folder)
    finally:
        (folder / RUN / promise.FILE).write_bytes(kept)
    assert refused.returncode == 2
    assert "it is not calibrated" in refused.stderr
    assert "offapi calibrate" in refused.stderr
