"""Reports of real runs of the tiny model: figures, safety of the page, unreadable files."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tomllib
import xml.etree.ElementTree as ElementTree
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
import recipe_folder
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from offapi.config import load as configs
from offapi.data.documents import fields_of
from offapi.evaluation import accuracy
from offapi.report import commands, comparison, cost, run_files, samples
from offapi.report.render import axes, charts, html, markdown
from offapi.report.story import Story, make_story
from offapi.training.manifest import describe_run

HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "javascript:window.pwned=1",
    "{{7*7}}{% for x in y %}${7*7}",
    "<!--<script>",
    "]]>\u2028\u2029\u202e&lt;b&gt;'\\",
)


class Page(HTMLParser):
    """A parsed page: elements with their attributes, and the text of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self.open = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.open = tag
        if tag in self.inside:
            self.inside[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self.open = ""

    def handle_data(self, data: str) -> None:
        if self.open in self.inside:
            self.inside[self.open][-1] += data
        else:
            self.words.append(data)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train runs of three recipes; recipes and data are in the parent folder."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    home = tmp_path_factory.mktemp("report")
    train(recipe_folder.lay_out(home, epochs=1.0))
    traced = recipe_folder.lay_out(home, "filtered_sft", count=16, wrong=4, epochs=1.0)
    traced.write_text(traced.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    train(traced)
    grpo: dict[str, Any] = {
        "num_generations": 2,
        "eval_every": 2,
        "workers": 1,
        "device": "cpu",
        "allow": ["cut", "learned"],
    }
    train(recipe_folder.lay_out(home, "grpo", count=8, epochs=1.0, **grpo))
    return home / "runs"


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a run, for a test to change."""
    return lambda name: Path(shutil.copytree(folder / name, tmp_path / name))


def train(recipe: Path) -> None:
    done = recipe_folder.offapi("train", str(recipe), "--backend", "torch")
    assert done.returncode == 0, done.stderr


def html_of(*runs: Path, **keys: Any) -> str:
    return html.render(make_story(runs, **keys))


def change(path: Path, **facts: Any) -> None:
    path.write_bytes(orjson.dumps({**orjson.loads(path.read_bytes()), **facts}))


def test_page_and_markdown_hold_the_runs_figures(folder: Path) -> None:
    told = orjson.loads((folder / "sft" / "report.json").read_bytes())
    story = make_story([folder / "sft"])
    page, text = html.render(story), markdown.render(story)
    assert told["n"] == 4
    for interval in (told["all_fields"], told["fields"]["shop"]):
        shown = (
            f"{100 * interval['mean']:.1f}"
            f" [{100 * interval['low']:.1f}–{100 * interval['high']:.1f}]"
        )
        assert shown in page
        assert markdown.escape(shown) in text
    manifest = orjson.loads((folder / "sft" / "manifest.json").read_bytes())
    for value in (*manifest["sha256"].values(), "finished", "torch", manifest["scored"][0]["data"]):
        assert value in page
        assert value in text
    losses = [row["loss"] for row in recipe_folder.metrics(folder / "sft")]
    first, last = (f"{loss:.3g}" for loss in (losses[0], losses[-1]))
    assert f"sft: {first} at 1 to {last} at {len(losses)}" in page
    assert f"{first} at 1 to {last} at {len(losses)}" in text


def test_the_page_loads_nothing_and_allows_its_own_code_only(folder: Path) -> None:
    page = Page(html_of(folder / "grpo", folder / "sft"))
    policy = next(attrs["content"] for tag, attrs in page.elements if attrs.get("http-equiv"))
    assert policy
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for tag, attrs in page.elements:
        assert not attrs.keys() & {
            "src",
            "srcset",
            "action",
            "style",
            "formaction",
            "xlink:href",
        }, (tag, attrs)
        assert not [name for name in attrs if name.startswith("on")], (tag, attrs)
        assert attrs.get("href", "#").startswith(("#", "data:,")), attrs  # type: ignore[union-attr]
    code = [text for text in page.inside["script"] if not text.startswith("{")]
    assert len(code) == len(page.inside["style"]) == 1
    for kind, text in (("script", code[0]), ("style", page.inside["style"][0])):
        assert (
            f"{kind}-src 'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
            in policy
        )
    assert "url(" not in page.inside["style"][0]
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|Function\(", code[0]
    )


def test_documents_are_included_unless_left_out(folder: Path) -> None:
    story = make_story([folder / "sft"])
    assert story.samples
    assert (story.samples.documents, story.samples.total) == (4, 4)
    assert "from Ashu, no 20" in html.render(story)
    page = html_of(folder / "sft", with_documents=False)
    assert "from Ashu" not in page
    assert "Ashu" in page  # the gold stays
    assert len(html_of(folder / "grpo", folder / "filtered-sft", with_documents=False)) < 200_000


def test_documents_that_changed_since_are_left_out(
    folder: Path, run: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = run("sft")
    val = tmp_path / "val.jsonl"
    val.write_bytes((folder.parent / "val.jsonl").read_bytes().replace(b"from Ashu", b"from Bshu"))
    config = orjson.loads((copy / "manifest.json").read_bytes())["config"]
    change(copy / "manifest.json", config={**config, "val": str(val), "data": "/nowhere.jsonl"})
    found = make_story([copy]).samples
    assert found
    assert found.documents == 0
    assert "has changed since the run" in found.notes[0]
    assert "/nowhere.jsonl cannot be read" in found.notes[1]


def test_a_control_is_compared_and_overlaid(folder: Path) -> None:
    story = make_story([folder / "filtered-sft"])
    told = orjson.loads((folder / "filtered-sft" / "comparison.json").read_bytes())
    (one,) = story.differences
    assert one.table.head[1:3] == ("graded", "ungraded")
    assert [row[0] for row in one.table.rows] == ["shop", "all fields", "mean of the fields"]
    assert one.verdicts[0] == f"shop: {told['fields']['shop']['verdict']}."
    assert [name for name, _ in story.learning[0].legend] == [
        "filtered-sft",
        "filtered-sft, control",
    ]
    assert story.samples
    assert story.samples.systems == ("filtered-sft", "control")
    kept = next(table for table in story.details[0][1] if table.title.startswith("Graded answers"))
    assert ("kept", "12") in kept.rows


def test_grpos_health_is_drawn_and_described(folder: Path) -> None:
    story = make_story([folder / "grpo"])
    titles = [chart.title for chart in story.health]
    assert titles[:2] == ["Reward in training", "On held-out documents"]
    assert {"KL to the reference", "Entropy of the sampling", "Cut off, and without signal"} <= set(
        titles
    )
    held = story.health[1]
    assert [name for name, _ in held.legend] == ["reward", "audit"]
    logged = [
        row["heldout/audit"]
        for row in recipe_folder.metrics(folder / "grpo")
        if "heldout/audit" in row
    ]
    assert [y for _, y in held.series[1].points] == logged
    assert any(
        note.text.startswith("No significant improvement on 4 held-out") for note in story.notes
    )
    assert any(table.title == "Where the time went" for table in story.details[0][1])
    assert story.samples
    assert [answer["grade"] for row in story.samples.rows if (answer := row.answers[0])] == [
        0.0
    ] * 4


def test_a_gamed_reward_comes_first(run: Callable[[str], Path]) -> None:
    copy = run("grpo")
    shown = {
        "id": HOSTILE[0],
        "before": "a",
        "after": HOSTILE[2],
        "reward": [0.1, 0.9],
        "audit": [0.5, 0.2],
    }
    (copy / "hacking.json").write_bytes(orjson.dumps({"step": 4, "since": 0, "samples": [shown]}))
    story = make_story([copy])
    assert (story.notes[0].kind, "gamed at step 4" in story.notes[0].text) == ("bad", True)
    assert story.gamed
    assert story.gamed.rows == ((HOSTILE[0], "a", HOSTILE[2], "0.10 → 0.90", "0.50 → 0.20"),)
    assert "<img" not in html.render(story)


def test_flipped_against_another_runs_answers(folder: Path, tmp_path: Path) -> None:
    rows = accuracy.read_predictions(folder / "sft" / "predictions.jsonl")
    value = dict(fields_of(rows[1].gold))
    better = replace(
        rows[1], output=orjson.dumps(value).decode(), value=value, correct={"shop": True}
    )
    other = tmp_path / "other.jsonl"
    other.write_bytes(accuracy.predictions_jsonl([rows[0], better, *rows[2:]]))
    story = make_story([folder / "sft", other])
    assert story.samples
    assert [row.flips for row in story.samples.rows] == [False, True, False, False]
    assert all(row.fails for row in story.samples.rows)
    assert story.differences[0].table.rows[0][4:6] == ("0", "1")
    assert make_story([folder / "sft", folder / "filtered-sft"]).differing is not None


def test_answers_to_other_documents_are_shown_and_not_compared(
    folder: Path, tmp_path: Path
) -> None:
    rows = accuracy.read_predictions(folder / "sft" / "predictions.jsonl")
    other = tmp_path / "other.jsonl"
    other.write_bytes(accuracy.predictions_jsonl([replace(row, id=f"x{row.id}") for row in rows]))
    story = make_story([folder / "sft", other])
    assert not story.differences
    assert any("are not compared" in note.text for note in story.notes)


def test_the_recipe_given_is_the_recipe_that_was_run(folder: Path, tmp_path: Path) -> None:
    for name, recipe in (("sft", "sft"), ("filtered-sft", "filtered_sft"), ("grpo", "grpo")):
        config = orjson.loads((folder / name / "manifest.json").read_bytes())["config"]
        commands = make_story([folder / name]).commands
        path = tmp_path / "recipe.toml"
        path.write_text(commands[0].text)
        loaded = configs.load(path, import_module(f"offapi.recipes.{recipe}").Config)
        resolved = describe_run(loaded)["config"]
        assert orjson.loads(orjson.dumps(resolved)) == config
        assert commands[1].text == "offapi train recipe.toml --backend torch"
        assert f"--adapter {folder / name / 'adapter'}" in commands[2].text


@settings(suppress_health_check=[HealthCheck.too_slow])  # a busy machine draws slowly
@given(
    st.dictionaries(
        st.text(), st.text() | st.integers(-(2**62), 2**62) | st.booleans() | st.lists(st.text())
    )
)
def test_any_keys_are_toml(values: dict[str, Any]) -> None:
    assert tomllib.loads(commands.toml({**values, "a table": values})) == {
        **values,
        "a table": values,
    }


@given(st.text() | st.sampled_from(HOSTILE))
def test_no_text_ends_the_data_block_or_an_svg_text(text: str) -> None:
    shown = html.data({"id": text})
    assert json.loads(shown) == {"id": text}
    assert not set(shown) & set("<>&\u2028\u2029")
    clean = "".join(
        c for c in text if c.isprintable()
    )  # XML, unlike HTML, knows no control characters
    chart = charts.Chart(clean, (charts.Series(clean, ((0, 1.0), (1, 2.0))),))
    drawn = ElementTree.fromstring(chart.svg)
    assert drawn.findtext("title") == clean
    assert not [one for one in drawn.iter() if one.tag in ("script", "img", "b")]


def test_hostile_names_documents_and_answers_are_text(
    folder: Path, run: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = run("sft")
    evil = tmp_path / HOSTILE[2]
    copy.rename(evil)
    rows = accuracy.read_predictions(evil / "predictions.jsonl")
    fields = dict.fromkeys(HOSTILE, False)
    bad = [
        replace(
            row,
            id=f"{text}{i}",
            output=text,
            value=dict.fromkeys(HOSTILE, text),
            correct=fields,
            gold=fields,
        )
        for i, (row, text) in enumerate(zip(rows, HOSTILE[1:], strict=False))
    ]
    (evil / "predictions.jsonl").write_bytes(accuracy.predictions_jsonl(bad))
    change(
        evil / "manifest.json",
        backend=HOSTILE[1],
        config={"recipe": HOSTILE[0], HOSTILE[0]: list(HOSTILE)},
    )
    with (evil / "metrics.jsonl").open("ab") as file:
        file.write(
            orjson.dumps(
                {"step": 99, f"rewards/{HOSTILE[1]}/mean": 1.0, "rewards/b/mean": 1, "reward": 1}
            )
            + b"\n"
        )
    plain, shown = Page(html_of(folder / "sft")), Page(html_of(evil))
    assert {tag for tag, _ in shown.elements} <= {tag for tag, _ in plain.elements} | {
        "polygon",
        "circle",
    }
    assert len(shown.inside["script"]) == 2
    assert all(attrs.keys().isdisjoint({"onerror", "src"}) for _, attrs in shown.elements)
    assert "{{7*7}}" in "".join(shown.words)
    found = json.loads(next(text for text in shown.inside["script"] if text.startswith("{")))
    assert [row["answers"][0]["output"] for row in found["rows"]] == [row.output for row in bad]
    assert not re.search(
        r"(?<!\\)[<`]",
        re.sub(r"```.*?```", "", markdown.render(make_story([evil])), flags=re.DOTALL),
    )


ESCAPES = (
    "```\n# Pwned\n<script>window.pwned=1</script>\n[a](javascript:window.pwned=1)",
    "~~~\n````\n`````\n| a | b |\n| --- | --- |\n| <b>c</b> | d |",
    "</code></pre><img src=x onerror=pwned>\r```\r\r# Pwned\r\n\r\n- [ ] item",
    "    \n> ```\n\n\n<!--\n\x0c```\x0b\u2028```\u2029``` `` ` |",
)


@pytest.mark.parametrize("as_json", [True, False])
def test_no_document_and_no_answer_leaves_its_fence(
    run: Callable[[str], Path], tmp_path: Path, as_json: bool
) -> None:
    """A CommonMark parser sees no other headings and tables, and the texts whole in their fences."""
    copy, val = run("sft"), tmp_path / "evil.jsonl"
    rows = accuracy.read_predictions(copy / "predictions.jsonl")
    assert len(rows) == len(ESCAPES)
    bad = [
        replace(
            row,
            id=text,
            output=text,
            value={"shop": text} if as_json else None,
            correct={"shop": False},
        )
        for row, text in zip(rows, ESCAPES, strict=True)
    ]
    (copy / "predictions.jsonl").write_bytes(accuracy.predictions_jsonl(bad))
    documents = [{"id": row.id, "document": row.id, "gold": row.gold} for row in bad]
    recipe_folder.write_jsonl(val, documents)
    change(copy / "manifest.json", config={"recipe": "sft", "val": str(val)}, scored=[], sha256={})
    story = make_story([copy])
    text = markdown.render(story)
    found = MarkdownIt("commonmark").enable("table").parse(text)
    fenced = [token.content.rstrip("\n") for token in found if token.type == "fence"]
    whole = [re.sub("\r\n?", "\n", one).rstrip("\n") for one in ESCAPES]
    assert fenced[: 4 if as_json else 8] == [
        one for one in whole for _ in range(1 if as_json else 2)
    ]
    assert not [
        token for token in found if token.type in ("html_block", "code_block", "blockquote_open")
    ]
    inside = [child for token in found for child in token.children or ()]
    assert not {child.type for child in inside} & {
        "html_inline",
        "link_open",
        "image",
        "code_inline",
    }
    headings = [
        found[i + 1].content for i, token in enumerate(found) if token.type == "heading_open"
    ]
    assert [one for one in headings if "Pwned" in one] == [
        markdown.escape(one) for one in ESCAPES if "Pwned" in one
    ]
    assert headings[: headings.index("Samples")] == ["sft", "Accuracy", "Learning"]
    without = (
        MarkdownIt("commonmark")
        .enable("table")
        .parse(markdown.render(make_story([copy], with_documents=False)))
    )
    opened = [[token.type for token in one].count("table_open") for one in (found, without)]
    assert opened[0] == opened[1] > len(ESCAPES)


def test_the_markdown_shows_the_first_samples_that_fail(
    folder: Path, run: Callable[[str], Path]
) -> None:
    copy = run("sft")
    rows = accuracy.read_predictions(copy / "predictions.jsonl")
    right = [replace(row, value=row.gold, correct={"shop": i != 2}) for i, row in enumerate(rows)]
    (copy / "predictions.jsonl").write_bytes(accuracy.predictions_jsonl(right))
    story = make_story([copy])
    assert story.samples
    assert [row.id for row in story.samples.first] == ["d22", "d20", "d21", "d23"]
    text = markdown.render(story)
    assert "4 of 4 documents are shown, 1 of them failing." in text
    assert "### d22\n\n```\nfrom Cedarw, no 22\n```\n\n| field | expected | sft |" in text
    assert "| shop | Cedarw | ✗ Cedarw |" in text
    assert "| shop | Ashu | ✓ Ashu |" in text
    without = markdown.render(make_story([copy], with_documents=False))
    assert "from Cedarw" not in without
    assert "| shop | Cedarw | ✗ Cedarw |" in without
    many = replace(story.samples, rows=story.samples.rows * 3)
    assert len(many.first) == samples.FEW
    looked = markdown.render(make_story([folder / "grpo"]))
    assert re.search(r"\n(grpo|before training), grade \d\.\d\d:\n\n```", looked)


def test_a_run_in_progress_is_read_as_far_as_it_got(run: Callable[[str], Path]) -> None:
    copy = run("sft")
    for name in ("predictions.jsonl", "report.json"):
        (copy / name).unlink()
    with (copy / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step":6,"loss":null}\n{"step":7,"lo')
    manifest = orjson.loads((copy / "manifest.json").read_bytes())
    manifest["attempts"][-1].pop("outcome")
    manifest["attempts"][-1].pop("ended")
    change(copy / "manifest.json", attempts=manifest["attempts"])
    story = make_story([copy])
    assert story.notes[0].text.startswith("The run has not ended")
    assert story.learning[0].series[0].points[-1] == (6.0, None)
    assert story.samples is None
    assert "offapi train recipe.toml --backend torch --resume" in [
        one.text for one in story.commands
    ]
    assert html.render(story)


def test_the_command_reports_path_and_size(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    done = recipe_folder.offapi("report", str(folder / "sft"), "--out", str(out), "--json")
    told = orjson.loads(done.stdout)
    assert told == {"report": str(out), "bytes": out.stat().st_size, "documents": 4}
    assert (
        f"Report: {out} ("
        in recipe_folder.offapi("report", str(folder / "sft"), "--out", str(out)).stderr
    )
    done = recipe_folder.offapi("report", str(folder / "sft"), "--md")
    assert (folder / "sft" / "report.md").read_text().startswith("# sft\n")
    assert "report.md" in done.stderr
    assert "from Ashu, no 20" in (folder / "sft" / "report.md").read_text()
    assert "with the text of 4 documents)" in done.stderr
    done = recipe_folder.offapi("report", str(folder / "sft"), "--md", "--no-documents", "--json")
    assert orjson.loads(done.stdout)["documents"] == 0
    assert "from Ashu" not in (folder / "sft" / "report.md").read_text()


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["{runs}/stf"], 1, "Did you mean 'sft'?"),
        (["{runs}/sft", "--out", "{runs}/none/page.html"], 2, "the folder does not exist"),
        (["{runs}/sft", "--cost", "{runs}/none.json"], 1, "unreadable"),
        (["{runs}/sft", "{runs}/sft/metrics.jsonl"], 1, "'correct' is missing"),
        ([], 2, "Missing argument"),
    ],
)
def test_mistakes_are_reported(folder: Path, words: list[str], code: int, told: str) -> None:
    done = recipe_folder.offapi("report", *(word.format(runs=folder) for word in words))
    assert done.returncode == code
    assert told in done.stderr


def test_a_report_is_replaced_as_a_whole_or_not_at_all(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    out.mkdir()
    (out / "kept").touch()
    done = recipe_folder.offapi("report", str(folder / "sft"), "--out", str(out))
    assert done.returncode == 1
    assert "could not be written" in done.stderr
    assert [one.name for one in tmp_path.iterdir()] == ["page.html"]


def test_costs_are_shown_if_they_are_understood(folder: Path, tmp_path: Path) -> None:
    assert cost.read_cost({}) is None
    assert cost.read_cost({"cases": {"owned": {"monthly": 3}}, "sensitivity": [1]}) is not None
    assert cost.read_cost({"cases": {"owned": 1}}) is None
    spread = {"likely": 100.0, "low": 80.0, "high": None}
    case = {
        "parts": {"energy": 5},
        "monthly": spread,
        "break_even_requests": {"likely": 2000.0},
        "verdict": "pays",
    }
    told = {
        "verdict": "pays",
        "currency": "$",
        "api": {"per_request": {"likely": 0.06}},
        "cases": {"owned": case},
        "inputs": {"requests": {"likely": 1000}},
    }
    file = tmp_path / "cost.json"
    file.write_bytes(orjson.dumps(told))
    story = make_story([folder / "sft"], cost_file=file)
    assert story.cost
    assert story.cost.charts[0].series[1].points == ((1000.0, 100.0), (2000.0, 120.0))
    assert ("the first month", "$100 [$80 to never]", "—") in story.cost.tables[0].rows
    assert "Where a month breaks even" in html.render(story)
    assert make_story([folder / "sft"]).cost is None


def test_the_report_of_a_comparison_is_about_its_arms(folder: Path, tmp_path: Path) -> None:
    report = orjson.loads((folder / "sft" / "report.json").read_bytes())
    rows = {
        "base": {"source": "not trained", "report": report, "verdict": None},
        "sft": {
            "report": report,
            "verdict": "not worth its hours",
            "arm": {"path": str(folder / "sft"), "rows": 8, "of": 8},
        },
    }
    (tmp_path / comparison.FILE).write_bytes(
        orjson.dumps({"rows": rows, "take": "sft", "left_out": {"grpo": HOSTILE[0]}})
    )
    story = make_story([tmp_path])
    assert (story.title, story.details[0][0]) == (tmp_path.name, "sft")
    assert story.comparison
    assert story.comparison.table.head == ("", "base", "sft")
    assert story.comparison.verdicts[0] == "sft: not worth its hours."
    assert "<h2>Comparison</h2>" in html.render(story)
    assert comparison.read_table({"rows": {"sft": {"report": 3, "to_best": {"no": 1}}}}) is None


@given(
    st.lists(st.floats(-1e12, 1e12, allow_nan=False).map(lambda x: float(f"{x:.6g}")), min_size=1),
    st.booleans(),
)
@example(values=[5e-324], zero=False)
def test_an_axis_holds_every_value_between_round_ticks(values: list[float], zero: bool) -> None:
    found = axes.scale(values, 0, 100, zero=zero)
    assert 2 <= len(found.ticks) <= 8
    assert list(found.ticks) == sorted(set(found.ticks))
    slack = 1e-9 * max(map(abs, found.ticks))
    assert found.low - slack <= min(values)
    assert max(values) <= found.high + slack
    assert all(-0.1 <= found.at(value) <= 100.1 for value in values)


def test_one_step_has_no_axis_below_zero() -> None:
    one = axes.steps([0.0], 0, 100)
    assert one.ticks == (0.0,)
    assert one.at(0.0) == 50
    drawn = charts.Chart("Reward", (charts.Series("a", ((0.0, 0.5),), marks=True),)).svg
    assert ">-1<" not in drawn


def test_what_matters_is_drawn_larger(folder: Path) -> None:
    drawn = {chart.title: chart.height for chart in make_story([folder / "sft"]).learning}
    assert drawn["Learning rate"] == drawn["Gradient norm"] < drawn["Loss"] / 1.5


def test_numbers_are_written_as_people_do() -> None:
    shown = [axes.brief(x) for x in (0, -0.0, 0.00025, 3.2e-13, 12.5, 1250, 2_500_000, -7, 1e10)]
    assert shown == ["0", "0", "0.00025", "3.2e-13", "12.5", "1,250", "2,500,000", "-7", "1e10"]


def test_many_steps_are_averaged_and_many_rows_cut(
    run: Callable[[str], Path],
) -> None:
    points = [(float(i), float(i % 2)) for i in range(5000)]
    thinned = charts.thin(points)
    assert len(thinned) <= charts.MANY
    assert thinned[-1][0] == 4999.0
    assert all(y is not None and 0.4 < y < 0.6 for _, y in charts.smooth(charts.thin(points)))
    copy = run("sft")
    one = accuracy.read_predictions(copy / "predictions.jsonl")[0]
    right = replace(one, correct={"shop": True})
    rows = [replace(right, id=f"r{i}") for i in range(samples.MANY)] + [replace(one, id="wrong")]
    (copy / "predictions.jsonl").write_bytes(accuracy.predictions_jsonl(rows))
    found = make_story([copy]).samples
    assert found
    assert (len(found.rows), found.total, found.rows[-1].id) == (
        samples.MANY,
        samples.MANY + 1,
        "wrong",
    )


def test_reading_runs_nothing_of_the_run(
    folder: Path, run: Callable[[str], Path], tmp_path: Path
) -> None:
    copy = run("sft")
    task = tmp_path / "task.py"
    task.write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    config = orjson.loads((copy / "manifest.json").read_bytes())["config"]
    change(copy / "manifest.json", config={**config, "task": str(task)})
    story: Story = make_story([copy])
    assert html.render(story)
    assert not (tmp_path / "ran").exists()
    assert run_files.read_record(copy).recipe == "sft"
