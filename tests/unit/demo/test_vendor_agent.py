"""The example with a register: deterministic, findable, and its demonstrations succeed."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from offapi.cli import cli
from offapi.data import documents
from offapi.data.documents import fields_of
from offapi.demo.facts import Split
from offapi.demo.vendor_agent import task as task_module
from offapi.demo.vendor_agent.companies import Company, draw_companies
from offapi.demo.vendor_agent.demonstrate import take_turn
from offapi.demo.vendor_agent.documents import Receipt, generate_receipts
from offapi.demo.vendor_agent.register import write_register
from offapi.task import load_task
from offapi.text.normalise import bare

COMPANIES = draw_companies(2000)
SPLITS: tuple[Split, ...] = ("train", "val", "test")


class State:
    """The part of an episode's state that the tools use."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self.database = database

    def sqlite(self, path: Path) -> sqlite3.Connection:
        return self.database


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = tmp_path_factory.mktemp("register") / "register.db"
    write_register(path, COMPANIES)
    with closing(sqlite3.connect(path)) as database:
        yield State(database)


def found(state: Any, receipt: Receipt) -> list[int]:
    return [row["id"] for row in task_module.search_vendors(receipt.printed, state)]


def test_the_seed_decides_companies_and_receipts() -> None:
    assert draw_companies(2000) == COMPANIES
    assert draw_companies(200, seed=1) != COMPANIES[:200]
    assert generate_receipts(COMPANIES, "train", 5) == generate_receipts(COMPANIES, "train", 9)[:5]
    assert len({each.name for each in COMPANIES}) == len(COMPANIES)


def test_no_company_is_in_two_splits() -> None:
    def companies(split: Split) -> set[Company]:
        return {each.company for each in generate_receipts(COMPANIES, split, 300)}

    train, val, test = map(companies, SPLITS)
    assert not train & val
    assert not train & test
    assert not val & test


def test_the_answer_is_the_registered_name_which_is_seldom_printed() -> None:
    receipts = generate_receipts(COMPANIES, "test", 300)
    assert all(fields_of(each.document.gold)["vendor"] == each.company.name for each in receipts)
    printed = [bare(each.company.name) in bare(each.document.text) for each in receipts]
    assert sum(printed) < 0.05 * len(receipts)


def test_a_search_finds_the_printed_name(state: Any) -> None:
    receipts = generate_receipts(COMPANIES, "val", 200)
    hits = [each.company.id in found(state, each) for each in receipts]
    first = [found(state, each)[:1] == [each.company.id] for each in receipts]
    assert sum(hits) > 0.95 * len(receipts)
    assert sum(first) < sum(hits)  # for some, only a second look tells which company is meant


def test_a_query_is_data(state: Any) -> None:
    for query in ('"', "a", "", "' OR 1=1 --", "NEAR(a b)", "name:x*"):
        assert isinstance(task_module.search_vendors(query, state), list)
    with pytest.raises(ValueError, match="no company 0"):
        task_module.get_vendor(0, state)


def test_demonstrations_end_with_the_answer(state: Any) -> None:
    tools: dict[str, Callable[..., Any]] = {
        "search_vendors": task_module.search_vendors,
        "get_vendor": task_module.get_vendor,
    }
    given_up, second_looks = 0, 0
    for receipt in generate_receipts(COMPANIES, "train", 100):
        messages: list[dict[str, Any]] = []
        while (turn := take_turn(receipt.document, messages)) is not None and turn.calls:
            call = turn.calls[0]
            result = json.dumps(tools[call.name](**call.arguments, state=state))
            second_looks += call.name == "get_vendor"
            messages += [turn.message(), {"role": "tool", "content": result}]
        given_up += turn is None
        assert turn is None or json.loads(turn.text) == receipt.document.gold
    assert given_up < 5
    assert second_looks > 5


def test_the_folder_is_a_task_with_tools(tmp_path: Path) -> None:
    folder = tmp_path / "vendor-agent"
    done = CliRunner().invoke(cli, ["init", str(folder), "--json"])
    assert done.exit_code == 0, done.output
    loaded = load_task(folder / "task.py")
    assert [each["function"]["name"] for each in loaded.tool_schemas] == [
        "search_vendors",
        "get_vendor",
    ]
    assert len(documents.read(folder / "train.jsonl")) == 200
    with closing(sqlite3.connect(folder / "register.db")) as database:
        assert database.execute("SELECT count(*) FROM vendors").fetchone() == (5000,)
    assert str(folder / "demonstrate.py") in (folder / "README.md").read_text()
    for example, file in (("invoices", "distill.toml"), ("long-document", "demonstrate.py")):
        done = CliRunner().invoke(cli, ["init", str(tmp_path / example[:4]), "--example", example])
        assert (tmp_path / example[:4] / file).exists(), done.output
