"""Comparing recipes: their keys, the rule of the verdicts, their costs and their data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest
import recipe_folder

from offapi.compare import effort, table, timed_run, train_arm
from offapi.compare.arm import Arm
from offapi.compare.config import RECIPES, load_keys
from offapi.compare.data import read_material, select_recipes, set_aside, write_rows
from offapi.compare.effort import Effort
from offapi.compare.ranking import Entry, rank_entries
from offapi.compare.timed_run import Timed
from offapi.compare.train_arm import ArmOutcome
from offapi.data.hold_out import hold_out
from offapi.errors import ConfigError, DataError
from offapi.evaluation.accuracy import Prediction, Report
from offapi.teachers.teacher import Price, Usage
from offapi.training.job import Job

FILE = """
recipe = "compare"
task = "task.py"
documents = "train.jsonl"
test = "test.jsonl"
lora = { rank = 4 }

[sft]
lr = 0.25
[distill]
keep = { threshold = 0.5 }
[grpo]
start = "distill"
loss = { rule = "rloo" }
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "task.py").write_text(recipe_folder.TASK)
    (tmp_path / "compare.toml").write_text(FILE)
    documents(tmp_path / "train.jsonl", range(20))
    documents(tmp_path / "test.jsonl", range(50, 54))
    return tmp_path


def documents(path: Path, numbers: range, **more: Any) -> None:
    """Write documents with gold, unless `more` says otherwise."""
    rows = [
        {
            "id": f"d{i}",
            "document": f"shop number {i} sells {i}{i} apples",
            "gold": {"shop": f"s{i}"},
            **more,
        }
        for i in numbers
    ]
    rows = [{name: value for name, value in row.items() if value is not None} for row in rows]
    recipe_folder.write_jsonl(path, rows)


def report(right: int, of: int, offset: int = 0) -> Report:
    """Make a report with `right` of `of` documents right, from number `offset` on."""
    correct = {(offset + i) % of for i in range(right)}
    rows = [Prediction(f"d{i}", "", None, {"shop": i in correct}, {"shop": "x"}) for i in range(of)]
    return Report.of(rows)


def entries(**recipes: tuple[int, float]) -> list[Entry]:
    """Make entries of 200 documents from how many are right and the hours."""
    return [Entry(name, report(right, 200), hours) for name, (right, hours) in recipes.items()]


def test_tables_hold_the_keys_of_the_recipes(folder: Path) -> None:
    found = load_keys(folder / "compare.toml", ["grpo.lr=0.5"])
    assert found.table("sft") == {"lr": 0.25}
    assert found.start == "distill"
    config = found.recipe_config("grpo", data=folder / "train.jsonl")
    assert (config.lr, config.loss.rule, config.lora.rank) == (0.5, "rloo", 4)
    assert found.recipe_config("distill", data=folder / "train.jsonl").keep.threshold == 0.5
    assert found.recipe_config("filtered_sft", traces=folder / "train.jsonl").control is False
    assert found.task == folder / "task.py"


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ("sft.lerning_rate=1", "--set sft.lerning_rate=1"),
        ("sft.data=x", "--set sft.data=x"),  # a comparison sets it itself
        ("sft.model=x", "--set sft.model=x"),  # one student
        ("grpo.start=sftt", "--set grpo.start=sftt"),
        ("sft.lr=fast", "--set sft.lr=fast"),
        ("margin=2", "--set margin=2"),
        ("name=arms", "--set name=arms"),
        ("name=a/b", "--set name=a/b"),
        ("recipes=['sft','sft']", "--set recipes=['sft','sft']"),
        ("roads=['sft','sft']", "--set roads=['sft','sft']"),
    ],
)
def test_mistakes_in_keys_are_named(folder: Path, change: str, where: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_keys(folder / "compare.toml", [change])
    assert caught.value.where == where


def test_the_older_name_of_recipes_is_read(folder: Path) -> None:
    found = load_keys(folder / "compare.toml", ["roads=['grpo','sft']"])
    assert found == load_keys(folder / "compare.toml", ["recipes=['grpo','sft']"])
    assert found.recipes == ("grpo", "sft")
    assert found.as_dict()["roads"] == ("grpo", "sft")
    assert "recipes" not in found.as_dict()
    with pytest.raises(ConfigError, match="older name of `recipes`"):
        load_keys(folder / "compare.toml", ["roads=['sft']", "recipes=['sft']"])


def test_tables_hold_every_key_and_none_where_it_is_not_given(folder: Path) -> None:
    found = load_keys(folder / "compare.toml")
    assert found.sft["lr"] == 0.25
    assert found.sft["epochs"] is None
    assert found.filtered_sft.keys() >= {"keep", "control", "lr"}
    assert not found.filtered_sft.keys() & {"task", "traces", "seed", "start"}


def test_a_mistake_in_a_table_names_its_line(folder: Path) -> None:
    (folder / "compare.toml").write_text(FILE.replace("threshold = 0.5", "treshold = 0.5"))
    with pytest.raises(ConfigError) as caught:
        load_keys(folder / "compare.toml")
    assert caught.value.where.endswith("compare.toml, line 11, field 'distill.keep.treshold'")
    assert caught.value.next_step == "Did you mean 'threshold'?"


def test_a_value_the_recipe_refuses_names_the_recipe(folder: Path) -> None:
    found = load_keys(folder / "compare.toml", ["sft.epochs=-1.0"])
    with pytest.raises(ConfigError, match=r"\[sft\].*epochs must be above 0"):
        found.recipe_config("sft", data=folder / "train.jsonl")


def test_another_recipe_is_not_a_comparison(folder: Path) -> None:
    (folder / "sft.toml").write_text('recipe = "sft"\n')
    with pytest.raises(ConfigError, match="recipe must be \"compare\", got 'sft'"):
        load_keys(folder / "sft.toml")


def test_the_file_to_copy_fits_every_recipe(folder: Path) -> None:
    written = Path(__file__).parents[3] / "recipes/configs/compare.toml"
    (folder / "copy.toml").write_bytes(written.read_bytes())
    found = load_keys(folder / "copy.toml")
    for recipe in RECIPES:
        data = {"traces" if recipe == "filtered_sft" else "data": folder / "train.jsonl"}
        assert found.recipe_config(recipe, **data).lora.rank == 16


def test_better_than_what_takes_fewer_hours() -> None:
    found = rank_entries(entries(base=(60, 0.0), sft=(120, 1.0)), 0.05)
    assert found.rows["sft"].verdict.startswith("better by 2")
    assert found.rows["sft"].verdict.endswith("points than base")
    assert (found.best, found.take) == ("sft", "sft")
    assert found.rows["base"].verdict == "the starting point"


def test_the_rival_is_the_best_of_those_with_fewer_hours() -> None:
    found = rank_entries(
        entries(base=(20, 0.0), distill=(150, 1.0), grpo=(60, 2.0), sft=(190, 3.0)), 0.05
    )
    assert [found.rows[name].rival for name in ("distill", "grpo", "sft")] == [
        "base",
        "distill",
        "distill",
    ]
    assert found.rows["grpo"].verdict.startswith("not worth its hours: worse by")
    assert (found.best, found.take) == ("sft", "sft")


def test_as_good_for_more_hours_is_not_worth_them() -> None:
    found = rank_entries(entries(base=(20, 0.0), distill=(190, 1.0), sft=(191, 9.0)), 0.05)
    assert (
        found.rows["sft"].verdict == "not worth its hours: at most 2.8 points better than distill"
    )
    assert (found.best, found.take) == ("sft", "distill")


def test_few_documents_cannot_tell() -> None:
    some = [Entry("base", report(4, 10), 0.0), Entry("sft", report(6, 10, offset=2), 1.0)]
    verdict = rank_entries(some, 0.05).rows["sft"].verdict
    assert verdict.startswith("cannot tell apart from base (a difference below ")
    assert rank_entries(some, 0.05).take == "base"
    few = [Entry("base", report(1, 4), 0.0), Entry("sft", report(3, 4), 1.0)]
    assert "no difference would show in 4 documents)" in rank_entries(few, 0.05).rows["sft"].verdict
    single = [Entry("base", report(0, 1), 0.0), Entry("sft", report(1, 1), 1.0)]
    assert (
        "no difference would show in 1 document)" in rank_entries(single, 0.05).rows["sft"].verdict
    )


def test_one_of_many_arms_needs_a_smaller_p() -> None:
    """Seven documents better in 200, p = 0.016: enough alone, not among ten pairs."""
    alone = rank_entries(entries(base=(100, 0.0), sft=(107, 1.0)), 0.05)
    assert alone.rows["sft"].verdict.startswith("better by")
    many = rank_entries(
        entries(
            base=(100, 0.0), sft=(107, 1.0), distill=(100, 2.0), grpo=(100, 3.0), more=(100, 4.0)
        ),
        0.05,
    )
    assert many.pairs == 10
    one = many.rows["sft"].to_rival
    assert one is not None
    assert one.p < 0.05 < one.p_holm
    assert not many.rows["sft"].verdict.startswith("better")


def test_references_are_compared_with_and_never_taken() -> None:
    some = [*entries(base=(100, 0.0), sft=(180, 1.0)), Entry("recorded", report(181, 200), None)]
    found = rank_entries(some, 0.05, "recorded")
    assert found.best == "sft"
    assert found.rows["recorded"].verdict == "reference"
    assert found.rows["sft"].replaces is True
    assert found.rows["base"].replaces is False
    old = found.rows["sft"].to_recorded
    assert old is not None
    assert old.difference.mean == pytest.approx(-1 / 200)


def test_one_document_is_singular(folder: Path) -> None:
    asked = load_keys(folder / "compare.toml")
    found: Any = SimpleNamespace(
        plan=SimpleNamespace(keys=asked, material=SimpleNamespace(test=[1], near=1, held=())),
        verdicts=rank_entries([Entry("base", report(0, 1), 0.0)], 0.05),
        **{key: {} for key in ("costs", "outcomes", "left_out", "reports")},
    )
    said = " ".join(table.lines(found))
    assert "1 test document; " in said
    assert "1 document or trace near a test document." in said
    held: Any = SimpleNamespace(near=2, held=(1,) * 8)
    assert [line.partition(",")[0] for line in table.rows_left_out(held)] == [
        "Left out of all training data: 2 documents or traces near a test document.",
        "Kept out of all training data: 8 documents",
    ]


@dataclass(frozen=True)
class OnlyTemplate:
    """The one key of an arm's recipe that the comparison itself reads."""

    template: Mapping[str, Any] = field(default_factory=dict)


class Killed(BaseException):
    """As if the process had been."""


def test_work_that_was_lost_counts_once(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Loading takes ten seconds, a step one, scoring two: 22 in all, although killed twice."""
    now, kills = [0.0], [2, 7, 99]

    def run(job: Job[Any, Any]) -> None:
        now[0] += 10
        checkpoint = job.folder.latest() if job.resume else None
        for step in range(checkpoint.step if checkpoint else 0, 10):
            if step == kills[0]:
                raise Killed
            now[0] += 1
            if (step + 1) % 4 == 0 or step == 9:
                job.folder.checkpoint(step + 1, {"weights": bytes([step])}, {})
        now[0] += 2

    module = SimpleNamespace(prepare=lambda config, out: SimpleNamespace(episodes=(1, 2)), run=run)
    monkeypatch.setattr(train_arm, "load_recipe", lambda name: module)
    monkeypatch.setattr(timed_run, "perf_counter", lambda: now[0])
    arm = Arm("sft", OnlyTemplate(), {}, folder / "arms/sft-0")
    out: Any = SimpleNamespace(say=lambda line: None)
    while kills[0] != 99:
        with pytest.raises(Killed):
            train_arm.reach_outcome(arm, SimpleNamespace(), "torch", out)  # type: ignore[arg-type]
        now[0] += 1000
        del kills[0]
    assert train_arm.reach_outcome(arm, SimpleNamespace(), "torch", out).seconds == 22.0  # type: ignore[arg-type]


def test_labels_that_were_kept_count(tmp_path: Path) -> None:
    run = Timed.create(tmp_path, "distill-0", {})
    label = {"output": "{}", "status": "ok", "prompt_sha256": "", "teacher": "local:x", "usage": {}}
    recipe_folder.write_jsonl(
        run.path / "labels.jsonl", [{"id": f"d{i}", "seconds": 1.5, **label} for i in range(4)]
    )
    run.begin()
    assert 6.0 <= run.work.seconds < 7.0


def test_costs_add_up_along_the_start(folder: Path) -> None:
    asked = replace(
        load_keys(folder / "compare.toml"),
        label_minutes=2.0,
        watts=50.0,
        price=Price(1.0, 10.0),
    )
    sft = Arm("sft", SimpleNamespace(), {}, folder)
    grpo = Arm("grpo", SimpleNamespace(), {}, folder, sft)
    distill = Arm("distill", SimpleNamespace(), {}, folder)
    outcomes: dict[Any, ArmOutcome] = {
        "sft": ArmOutcome(30, 30, 600.0, "adapter"),
        "grpo": ArmOutcome(20, 20, 3600.0, "adapter"),
        "distill": ArmOutcome(18, 20, 60.0, "adapter", usage=Usage(1_000_000, 200_000)),
    }
    own = effort.arm_effort(asked, sft, outcomes)
    assert own == Effort(60.0, 10.0, own.kwh)
    assert own.kwh == pytest.approx(600 / 3600 * 0.05)
    both = effort.arm_effort(asked, grpo, outcomes)
    assert (both.human_minutes, both.machine_minutes) == (60.0, 70.0)
    assert both.hours == pytest.approx(130 / 60)
    taught = effort.arm_effort(asked, distill, outcomes)
    assert (taught.human_minutes, taught.dollars, taught.usage) == (
        0.0,
        3.0,
        Usage(1_000_000, 200_000),
    )
    unpriced = effort.arm_effort(replace(asked, price=None, labels=folder), distill, outcomes)
    assert unpriced.dollars is None
    local = effort.arm_effort(replace(asked, price=None, teacher="local:demo"), distill, outcomes)
    assert local.dollars == 0.0


def test_recipes_are_those_the_data_allow(folder: Path) -> None:
    found = load_keys(folder / "compare.toml")
    assert select_recipes(found, read_material(found))[0] == ["sft", "grpo"]
    documents(folder / "train.jsonl", range(20), gold=None, recorded_label={"shop": "x"})
    recipes, why = select_recipes(found, read_material(found))
    assert recipes == ["filtered_sft", "grpo"]
    assert why["sft"] == 'no document has "gold"'
    assert "no teacher is named" in why["distill"]
    with pytest.raises(ConfigError, match='sft cannot run: no document has "gold"'):
        select_recipes(replace(found, recipes=("sft",)), read_material(found))
    assert "offapi label" in str(
        read_material(replace(found, teacher="https://api.example.com/v1")).refusal("distill")
    )


def test_a_start_is_taken_along(folder: Path) -> None:
    found = replace(load_keys(folder / "compare.toml", ["grpo.start=sft"]), recipes=("grpo",))
    assert select_recipes(found, read_material(found))[0] == ["sft", "grpo"]
    assert set(RECIPES) >= {"sft", "grpo"}


def test_only_documents_with_gold_are_hand_labels(folder: Path) -> None:
    lines = (folder / "train.jsonl").read_bytes().splitlines()
    rows = [orjson.loads(line) for line in lines]
    del rows[3]["gold"]
    (folder / "train.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    found = read_material(load_keys(folder / "compare.toml"))
    assert (len(found.rows("sft")), len(found.rows("grpo"))) == (19, 20)


def test_documents_near_the_test_set_are_left_out(folder: Path) -> None:
    documents(folder / "test.jsonl", range(18, 24))
    found = read_material(load_keys(folder / "compare.toml"))
    assert found.near == 2
    assert not {row["id"] for recipe in RECIPES for row in found.rows(recipe)} & {"d18", "d19"}
    assert len(found.rows("sft")) == 18
    documents(folder / "test.jsonl", range(0, 30))
    with pytest.raises(DataError, match="every document is near"):
        read_material(load_keys(folder / "compare.toml"))


def test_grpos_evaluation_documents_are_set_aside_everywhere(folder: Path) -> None:
    """The student it starts from would otherwise know them: the audit would start near 1."""
    documents(folder / "train.jsonl", range(100, 140), recorded_label={"shop": "s"})
    found = read_material(load_keys(folder / "compare.toml"))
    rest = set_aside(found, seed=3)
    held = {row.id for row in rest.held}
    assert len(held) == 8
    assert [row.id for row in rest.held] == [row.id for row in hold_out(found.documents, 3)[1]]
    for recipe in RECIPES:
        ids = {row["id"] for row in rest.rows(recipe)}
        assert ids
        assert not ids & held
    assert len(rest.rows("filtered_sft")) == len(rest.asked)


def test_val_and_test_may_not_share_documents(folder: Path) -> None:
    documents(folder / "val.jsonl", range(52, 60))
    with pytest.raises(DataError, match="2 documents also in the test set; first: 'd52'"):
        read_material(replace(load_keys(folder / "compare.toml"), val=folder / "val.jsonl"))


def test_the_same_rows_are_the_same_file(tmp_path: Path) -> None:
    one, same, other = (write_rows(tmp_path, [{"id": name}]) for name in ("a", "a", "b"))
    assert one == same != other
    assert sorted(tmp_path.iterdir()) == sorted([one, other])
