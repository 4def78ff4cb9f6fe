"""Reports of comparisons: the arms' answers to the test documents, the best against the reference."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import comparison_folder
import orjson
import pytest
import recipe_folder

from offapi.errors import DataError
from offapi.report import samples
from offapi.report.render import html, markdown
from offapi.report.story import make_story

EVIL = "</script><script>window.pwned=1</script>\n```\n# Pwned"


def documents(count: int = 6) -> list[dict[str, Any]]:
    return [
        {
            "id": f"t{i}",
            "document": f"from Ash{i}, {i} boxes",
            "gold": {"shop": f"Ash{i}", "boxes": i},
        }
        for i in range(count)
    ]


def lay_out(folder: Path, rows: list[dict[str, Any]], **wrong: tuple[int, ...]) -> Path:
    """Write a comparison in which each row's answers name a wrong shop in the documents `wrong`."""
    answers = {
        name: [
            comparison_folder.answer(row, **({"shop": "Elm"} if i in which else {}))
            for i, row in enumerate(rows)
        ]
        for name, which in wrong.items()
    }
    return comparison_folder.write(folder, rows, answers)


@pytest.fixture
def comparison(tmp_path: Path) -> Path:
    """Write a comparison in which distillation is best, and differs from recorded in t1 and t2."""
    return lay_out(
        tmp_path,
        documents(),
        recorded=(0, 2, 5),
        base=(0, 1, 2, 3, 4, 5),
        sft=(0, 1, 3, 5),
        distill=(0, 1),
    )


def test_the_best_arm_comes_first_then_the_reference(comparison: Path) -> None:
    story = make_story([comparison])
    assert story.samples
    assert story.samples.systems == ("distill", "recorded", "base", "sft")
    assert (story.samples.documents, story.samples.total) == (6, 6)
    assert [row.id for row in story.samples.rows if row.fails] == ["t0", "t1"]
    assert [row.id for row in story.samples.rows if row.flips] == ["t1", "t2", "t5"]
    found = story.samples.as_dict()
    assert found["rivals"] == 1
    assert found["rows"][2]["document"] == "from Ash2, 2 boxes"
    assert "one of distill and recorded is right" in html.render(story)
    assert story.accuracy
    assert [row[0] for row in story.accuracy.table.rows][:3] == ["shop", "boxes", "all fields"]
    assert story.accuracy.table.head[1:] == story.samples.systems
    assert [one.name for one in story.figures[1:]] == [
        "all fields right, distill",
        "all fields right, recorded",
    ]


def test_the_top_describes_the_comparison(comparison: Path) -> None:
    story = make_story([comparison])
    assert story.title == "compare"
    assert story.lede == "Recipes compared: sft and distill; tiny on torch, 6 test documents."
    assert story.figures[1].value == "66.7%"
    assert [name for name, _ in story.details] == ["sft", "distill"]
    assert story.commands[-1].text == f"offapi report {comparison}"


def test_without_recorded_answers_the_reference_is_the_base(tmp_path: Path) -> None:
    path = lay_out(tmp_path, documents(), base=(0, 1), sft=(0, 2), grpo=(0, 3))
    comparison_folder.change(path, best="grpo")
    found = make_story([path]).samples
    assert found
    assert found.systems[:2] == ("grpo", "base")


def test_the_markdown_has_its_samples_flipped_ones_first(comparison: Path) -> None:
    text = markdown.render(make_story([comparison]))
    assert "5 of 6 documents are shown, 2 of them failing, 3 flipped." in text
    assert re.findall(r"^### (t\d)$", text, re.MULTILINE) == ["t1", "t0", "t2", "t5", "t3"]
    assert "| shop | Ash1 | ✗ Elm | ✓ Ash1 | ✗ Elm | ✗ Elm |" in text
    assert "from Ash1, 1 boxes" in text


def test_changed_and_unwanted_documents_are_left_out(comparison: Path) -> None:
    assert "from Ash1" not in html.render(make_story([comparison], with_documents=False))
    test = comparison.parents[1] / "test.jsonl"
    test.write_bytes(test.read_bytes().replace(b"from Ash1", b"from Bsh1"))
    found = make_story([comparison]).samples
    assert found
    assert (found.documents, found.total) == (0, 6)
    assert "test.jsonl has changed since" in found.notes[0]
    test.unlink()
    unread = make_story([comparison]).samples
    assert unread
    assert "cannot be read" in unread.notes[0]
    comparison_folder.change(comparison, test={"documents": 6})
    unknown = make_story([comparison]).samples
    assert unknown
    assert unknown.notes == ("The run does not record where the documents are.",)


def test_a_large_test_set_is_capped_with_a_note(tmp_path: Path) -> None:
    n = samples.MANY + 20
    story = make_story([lay_out(tmp_path, documents(n), recorded=(n - 1,), sft=(n - 2,))])
    assert story.samples
    assert (len(story.samples.rows), story.samples.total) == (samples.MANY, n)
    assert [row.id for row in story.samples.rows[-2:]] == [f"t{n - 2}", f"t{n - 1}"]
    assert f"{n} documents, of which {samples.MANY} are shown" in html.render(story)
    assert f"5 of {n} documents are shown" in markdown.render(story)


def test_hostile_documents_and_answers_stay_text(tmp_path: Path) -> None:
    rows = [{"id": f"{EVIL}{i}", "document": EVIL * 2, "gold": {"shop": EVIL}} for i in range(3)]
    path = comparison_folder.write(
        tmp_path,
        rows,
        {
            "recorded": [comparison_folder.answer(row) for row in rows],
            "sft": [comparison_folder.answer(row, shop="x" + EVIL) for row in rows],
        },
    )
    comparison_folder.change(path, take=EVIL, model=EVIL)
    page = html.render(make_story([path]))
    assert "<script>window" not in page
    assert len(re.findall("<script", page)) == 2
    block = re.search(r'id="data">(.*?)</script>', page)
    assert block
    assert json.loads(block[1])["rows"][0]["document"] == EVIL * 2
    outside = re.sub(r"(`{3,}).*?\n\1", "", markdown.render(make_story([path])), flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<`]|^# Pwned", outside, re.MULTILINE)


def test_shared_notes_appear_once_others_with_the_arms_name(comparison: Path) -> None:
    arms = comparison.parent / "arms"
    for arm in arms.iterdir():
        manifest = orjson.loads((arm / "manifest.json").read_bytes())
        (arm / "manifest.json").write_bytes(
            orjson.dumps({**manifest, "attempts": [comparison_folder.FACTS]})
        )
    gamed = {"step": 4, "since": 0, "samples": [{"id": "t1", "before": "a", "after": "b"}]}
    (arms / "sft-0123456789ab" / "hacking.json").write_bytes(orjson.dumps(gamed))
    comparison_folder.change(comparison, take="distill")
    story = make_story([comparison])
    assert [(one.kind, one.text.split(" at ")[0]) for one in story.notes] == [
        ("bad", "sft: The reward was being gamed"),
        ("good", "It made no network attempt while it ran."),
    ]
    assert story.gamed
    assert story.gamed.rows[0][0] == "t1"


def test_an_audit_that_fell_without_a_rise_is_reported(comparison: Path) -> None:
    lost = {
        "step": 20,
        "since": 0,
        "rose": False,
        "samples": [{"id": "t1", "before": "a", "after": "b"}],
    }
    (comparison.parent / "arms" / "sft-0123456789ab" / "hacking.json").write_bytes(
        orjson.dumps(lost)
    )
    story = make_story([comparison])
    (note,) = (one.text for one in story.notes if one.kind == "bad")
    assert "The reward misled training at step 20" in note
    assert story.gamed
    assert story.gamed.title == "The audit fell"


def test_a_cost_file_in_its_folder_is_read(comparison: Path) -> None:
    (comparison / "cost.json").write_bytes(
        orjson.dumps({"verdict": "stay", "cases": {"owned": {"monthly": 3}}})
    )
    story = make_story([comparison])
    assert story.cost
    assert story.cost.verdict == "Stay."


def test_other_answers_are_compared_with_the_best_arm(comparison: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.jsonl"
    other.write_bytes(
        (comparison.parent / "arms/base-0123456789ab/test-0123456789ab.jsonl").read_bytes()
    )
    story = make_story([comparison, other])
    assert [one.table.title for one in story.differences] == ["distill against other"]
    assert story.samples
    assert story.samples.systems[-1] == "other"
    assert story.title == "compare"
    assert not make_story([comparison]).differences


def test_missing_answers_are_skipped_damaged_ones_reported(comparison: Path) -> None:
    (base,) = comparison.parent.glob("arms/base-*/test-*.jsonl")
    base.unlink()
    found = make_story([comparison]).samples
    assert found
    assert found.systems == ("distill", "recorded", "sft")
    base.write_bytes(b"{")
    with pytest.raises(DataError, match="base-"):
        make_story([comparison])


def test_the_command_counts_the_documents(comparison: Path) -> None:
    done = recipe_folder.offapi("report", str(comparison), "--json")
    assert recipe_folder.told(done)["documents"] == 6
    assert (
        "with the text of 5 documents)"
        in recipe_folder.offapi("report", str(comparison), "--md").stderr
    )
