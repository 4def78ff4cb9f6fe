"""What a constraint lets a model say, level by level, with a model whose tokens are bytes."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from bound_answers import RECEIPT, SCHEMA, allowed, byte_chat, draw, reaches, task_of

import offapi
from offapi.chat.chat import Chat
from offapi.checks.schema import schema_validator
from offapi.constrain import Constraints
from offapi.constrain.vocabulary import Vocabulary
from offapi.errors import BackendError, ConfigError

ANSWER = '{"vendor":"TIMES BOOKSTORES","date":"2017-04-23","total":12.37}'
NULLABLE: dict[str, Any] = {
    "type": "object",
    "properties": {
        "vendor": {"type": ["string", "null"]},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, "price": {"type": "number"}},
                "required": ["name"],
            },
            "maxItems": 3,
        },
        "paid": {"type": "boolean"},
        "kind": {"enum": ["cash", "card", None]},
        "note": {"anyOf": [{"type": "string", "maxLength": 4}, {"type": "null"}]},
    },
    "required": ["vendor", "items", "kind"],
}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return byte_chat(tmp_path_factory.mktemp("bytes"))


def says(chat: Chat, level: Any, text: str, document: str = RECEIPT, **parts: Any) -> bool:
    task = task_of(max_answer_tokens=200, **parts)
    matcher = Constraints.of(task, chat, level).start(document)(0)
    assert matcher is not None
    return reaches(matcher, chat, text)


@pytest.mark.parametrize("limit", [66, 80, 200])
@pytest.mark.parametrize("level", ["schema", "source"])
def test_every_answer_parses_and_fits_whatever_is_drawn(chat: Chat, level: Any, limit: int) -> None:
    task = task_of(max_answer_tokens=limit, bind=offapi.quote("vendor"))
    start = Constraints.of(task, chat, level).start(RECEIPT)
    for seed in range(8):
        matcher = start(0)
        assert matcher is not None
        answer = orjson.loads(draw(matcher, chat, seed, limit))
        schema_validator(SCHEMA).validate(answer)


@pytest.mark.parametrize("limit", [40, 60, 150])
def test_lists_choices_and_optional_fields_end_in_time(chat: Chat, limit: int) -> None:
    start = Constraints.of(task_of(NULLABLE, max_answer_tokens=limit), chat, "schema").start("")
    for seed in range(12):
        matcher = start(0)
        assert matcher is not None
        schema_validator(NULLABLE).validate(orjson.loads(draw(matcher, chat, seed, limit)))


def test_schema_allows_what_the_task_writes_and_no_spaces(chat: Chat) -> None:
    assert says(chat, "schema", ANSWER)
    assert says(chat, "schema", ANSWER.replace("TIMES", "No such"))
    assert not says(chat, "schema", ANSWER.replace(",", ", "))
    assert not says(chat, "schema", ANSWER.replace("04-23", "02-30"))
    assert not says(chat, "schema", ANSWER.replace("12.37", "-1"))


def test_source_allows_only_what_the_document_prints(chat: Chat) -> None:
    bind = offapi.quote("vendor")
    assert says(chat, "source", ANSWER, bind=bind)
    assert says(chat, "source", ANSWER.replace("TIMES ", ""), bind=bind)
    assert says(chat, "source", ANSWER.replace("TIMES BOOKSTORES", "BOOKSTORES LOT"), bind=bind)
    for wrong in ("TIMES  BOOKSTORES", "Times Bookstores", "TIMES BOOK", "TIMES LOT", "", " LOT"):
        assert not says(chat, "source", ANSWER.replace("TIMES BOOKSTORES", wrong), bind=bind)
    assert not says(chat, "source", ANSWER.replace("12.37", "12.38"), bind=bind)
    assert not says(chat, "source", ANSWER.replace("2017", "2018"), bind=bind)


def test_a_field_that_the_document_has_no_reading_of_is_bound_by_the_schema(chat: Chat) -> None:
    task = task_of(bind=offapi.quote("vendor"))
    constraints = Constraints.of(task, chat, "source")
    assert constraints.bounded("no numbers here").unread == ("date", "total")
    assert constraints.bounded(RECEIPT).unread == ()
    invented = '{"vendor":"no","date":"2017-04-23","total":12.37}'
    assert says(chat, "source", invented, "no numbers here", bind=offapi.quote("vendor"))


@pytest.mark.parametrize(
    ("keyword", "part"),
    [
        ("uniqueItems", {"type": "array", "items": {"type": "string"}, "uniqueItems": True}),
        ("not", {"type": "string", "not": {"const": "a"}}),
        ("foo", {"type": "string", "format": "foo"}),
        ("look-around", {"type": "string", "pattern": "(?=a)b"}),
    ],
)
def test_a_schema_that_cannot_be_enforced_is_refused_with_field_and_keyword(
    chat: Chat, keyword: str, part: dict[str, Any]
) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}, "odd": part}}
    with pytest.raises(ConfigError) as caught:
        Constraints.of(task_of(schema), chat, "schema")
    assert "'odd'" in str(caught.value)
    assert keyword in str(caught.value)


def test_an_answer_that_never_fits_its_limit_is_refused(chat: Chat) -> None:
    with pytest.raises(ConfigError, match="max_answer_tokens = 30 has no room"):
        Constraints.of(task_of(max_answer_tokens=30), chat, "schema")


def test_a_task_of_free_text_is_refused(chat: Chat) -> None:
    from offapi.checks import length

    task = offapi.Task("notes", "Sum up.", None, {"length": (length(1, 9), 1.0)})
    with pytest.raises(ConfigError, match="answers with text"):
        Constraints.of(task, chat, "schema")


def test_stop_tokens_only_where_the_answer_is_whole(chat: Chat) -> None:
    matcher = Constraints.of(task_of(max_answer_tokens=200), chat, "schema").start("")(0)
    assert matcher is not None
    stop, vocabulary = chat.stop_ids[0], Vocabulary.of(chat)
    for token in chat.encode(ANSWER):
        assert stop not in allowed(matcher, vocabulary)
        matcher.accept(token)
    assert allowed(matcher, vocabulary) == [stop]


def test_a_token_that_was_not_allowed_raises(chat: Chat) -> None:
    matcher = Constraints.of(task_of(max_answer_tokens=200), chat, "schema").start("")(0)
    assert matcher is not None
    with pytest.raises(BackendError, match="failed"):
        matcher.accept(chat.encode("x")[0])


def test_samples_are_bound_free_and_runner_ups(chat: Chat) -> None:
    task = task_of(max_answer_tokens=200, bind=offapi.quote("vendor"))
    start = Constraints.of(task, chat, "source").start(RECEIPT, second=True, candidates=3)
    assert start(1) is None
    matchers = [matcher for sample in (0, 2, 3) if (matcher := start(sample)) is not None]
    assert len(matchers) == 3
    seen = []
    for token in chat.encode('{"vendor":"TIMES"'):
        ranks = []
        for matcher in matchers:
            allowed(matcher, Vocabulary.of(chat))
            ranks.append(matcher.rank)
            matcher.accept(token)
        seen.append(ranks)
    assert seen[10:13] == [[0, 0, 0], [0, 1, 2], [0, 0, 0]]


def test_without_a_reading_a_field_that_may_be_null_is_null(chat: Chat) -> None:
    number = {"type": ["number", "null"]}
    either = {"anyOf": [{"type": "number"}, {"type": "null"}]}
    for part in (number, either):
        schema = {"type": "object", "properties": {"total": part}, "required": ["total"]}
        constraints = Constraints.of(task_of(schema, match={"total": "number"}), chat, "source")
        assert constraints.bounded("no numbers").unread == ()
        for document, said, fits in (
            ("no numbers", "null", True),
            ("no numbers", "1.00", False),
            ("total 1.00", "1.00", True),
            ("total 1.00", "null", True),
        ):
            matcher = constraints.start(document)(0)
            assert matcher is not None
            assert reaches(matcher, chat, f'{{"total":{said}}}') is fits


def test_lists_of_objects_are_bound_by_the_same_rules(chat: Chat) -> None:
    item = {
        "type": "object",
        "properties": {"name": {"type": "string", "x-quote": True}, "price": {"type": "number"}},
        "required": ["name", "price"],
    }
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": item, "minItems": 1}},
        "required": ["items"],
    }
    task = task_of(schema, match={"items": "list"}, max_answer_tokens=120)
    constraints = Constraints.of(task, chat, "source")
    for said, fits in (
        ('{"name":"Rye loaf","price":2.50}', True),
        ('{"name":"Rye loaf","price":2.50},{"name":"Tea","price":1.00}', True),
        ('{"name":"Rye bread","price":2.50}', False),
        ('{"name":"Tea","price":9.00}', False),
        ("", False),
    ):
        matcher = constraints.start("Tea 1.00\nRye loaf 2.50")(0)
        assert matcher is not None
        assert reaches(matcher, chat, f'{{"items":[{said}]}}') is fits


@pytest.mark.parametrize(
    ("limits", "said", "fits"),
    [
        ({"minLength": 6}, "LOT F21", True),
        ({"minLength": 6}, "LOT", False),
        ({"maxLength": 3}, "LOT", True),
        ({"maxLength": 3}, "LOT F21", False),
        ({"pattern": "^[A-Z][0-9]+$"}, "F21", True),
        ({"pattern": "^[A-Z][0-9]+$"}, "LOT F21", False),
    ],
)
def test_a_quoted_field_keeps_the_schemas_limits(
    chat: Chat, limits: dict[str, Any], said: str, fits: bool
) -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", **limits}},
        "required": ["a"],
    }
    task = task_of(schema, bind=offapi.quote("a"))
    matcher = Constraints.of(task, chat, "source").start(RECEIPT)(0)
    assert matcher is not None
    assert reaches(matcher, chat, f'{{"a":"{said}"}}') is fits


def test_quotes_and_backslashes_of_a_document_are_escaped(chat: Chat) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
    task = task_of(schema, bind=offapi.quote("a"))
    page = 'Size 4" \\ caf\u00e9 \u7d05\u8336'
    for said in ('Size 4"', '4" \\ caf\u00e9', "\u8336"):
        matcher = Constraints.of(task, chat, "source").start(page)(0)
        assert matcher is not None
        assert reaches(matcher, chat, orjson.dumps({"a": said}).decode())


@pytest.mark.parametrize(
    ("part", "keyword"),
    [
        ({"type": "string", "format": "email"}, "format"),
        ({"type": "string", "pattern": "^a|b$"}, "pattern"),
    ],
)
def test_limits_that_a_quoted_field_cannot_keep_are_refused(
    chat: Chat, part: dict[str, Any], keyword: str
) -> None:
    schema = {"type": "object", "properties": {"a": part}, "required": ["a"]}
    with pytest.raises(ConfigError, match=keyword):
        Constraints.of(task_of(schema, bind=offapi.quote("a")), chat, "source")


def test_a_number_that_match_does_not_name_is_bound_by_the_schema_alone(chat: Chat) -> None:
    number = {"type": "number"}
    schema = {"type": "object", "properties": {"a": number, "b": number}, "required": ["a", "b"]}
    constraints = Constraints.of(task_of(schema, match={"a": "number"}), chat, "source")
    for said, fits in (('{"a":12.37,"b":99.99}', True), ('{"a":99.99,"b":12.37}', False)):
        matcher = constraints.start(RECEIPT)(0)
        assert matcher is not None
        assert reaches(matcher, chat, said) is fits
