"""The report in headless Chromium: no requests, no injected code, and working filters."""

from __future__ import annotations

import shutil
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import comparison_folder
import orjson
import pytest
import recipe_folder

from offapi.evaluation import accuracy
from offapi.report.render import html
from offapi.report.story import make_story

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
HOSTILE = (
    "<script>window.pwned=1</script>",
    "</script><script>window.pwned=1</script>",
    '"><img src=x onerror="window.pwned=1">',
    "<a href=javascript:window.pwned=1>{{7*7}}</a>",
)
PAGE, FOREIGN = (
    "file://",
    "<img src=x onerror='window.pwned=1'><script>window.pwned=1</script><style>*{}</style>",
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A headless Chromium."""
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if find_spec("playwright") is None or path is None:
        pytest.skip("no browser here: apt-get install chromium, pip install playwright")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        started = driver.chromium.launch(
            executable_path=path, args=["--no-sandbox"]
        )  # tests may run as root
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a run with a hostile name and hostile rows, against other answers."""
    if find_spec("torch") is None:
        pytest.skip("torch is not installed here")
    home = tmp_path_factory.mktemp("browser")
    done = recipe_folder.offapi(
        "train", str(recipe_folder.lay_out(home, epochs=1.0)), "--backend", "torch"
    )
    assert done.returncode == 0, done.stderr
    run = home / "runs" / HOSTILE[2]
    (home / "runs" / "sft").rename(run)
    documents = [
        {"id": f"{text}{i}", "document": text * (i + 1), "gold": {HOSTILE[1]: text, "shop": "Ash"}}
        for i, text in enumerate(HOSTILE)
    ]
    recipe_folder.write_jsonl(home / "hostile.jsonl", documents)
    old = accuracy.read_predictions(run / "predictions.jsonl")
    own = [
        _answer(row, one, i, shop="Ash" if i == 0 else "Elm")
        for i, (row, one) in enumerate(zip(old, documents, strict=True))
    ]
    (run / "predictions.jsonl").write_bytes(accuracy.predictions_jsonl(own))
    other = home / "other.jsonl"
    other.write_bytes(
        accuracy.predictions_jsonl([own[0], _answer(own[1], documents[1], 1, shop="Ash"), *own[2:]])
    )
    manifest = orjson.loads((run / "manifest.json").read_bytes())
    config = {**manifest["config"], "val": str(home / "hostile.jsonl"), HOSTILE[0]: HOSTILE[1]}
    (run / "manifest.json").write_bytes(
        orjson.dumps(
            {
                **manifest,
                "config": config,
                "scored": [],
                "sha256": {"data": "0" * 64},
                "backend": HOSTILE[1],
            }
        )
    )
    page = home / "report.html"
    page.write_text(html.render(make_story([run, other])))
    return page


@pytest.fixture(scope="module")
def comparison(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write the report of a comparison of four recipes with hostile documents.

    The best, sft, and the recorded answers differ in one.
    """
    home = tmp_path_factory.mktemp("comparison")
    rows = [
        {"id": f"{text}{i}", "document": text * (i + 1), "gold": {HOSTILE[1]: text, "shop": "Ash"}}
        for i, text in enumerate(HOSTILE)
    ]
    right = {
        "recorded": (0, 3),
        "base": (),
        "sft": (0, 1, 3),
        "distill": (0,),
        "filtered_sft": (0,),
        "grpo": (1,),
    }
    answers = {
        name: [
            comparison_folder.answer(row, shop="Ash" if i in which else "Elm")
            for i, row in enumerate(rows)
        ]
        for name, which in right.items()
    }
    page = home / "report.html"
    page.write_text(html.render(make_story([comparison_folder.write(home, rows, answers)])))
    return page


@pytest.fixture
def page(browser: Any, report: Path) -> Iterator[Any]:
    """Open the report of a run."""
    yield from silent(browser, report)


@pytest.fixture
def comparison_page(browser: Any, comparison: Path) -> Iterator[Any]:
    """Open the report of a comparison."""
    yield from silent(browser, comparison)


def silent(browser: Any, report: Path) -> Iterator[Any]:
    """Open `report`; at the end, it must not have logged, requested or run anything."""
    opened = browser.new_page()
    events: list[str] = []
    opened.on("console", lambda message: events.append(message.text))
    opened.on("pageerror", lambda error: events.append(str(error)))
    opened.on("dialog", lambda dialog: events.append(dialog.message))
    opened.on("request", lambda request: events.append(request.url))
    opened.goto(f"{PAGE}{report}")
    yield opened
    assert opened.evaluate("window.pwned") is None
    assert events == [f"{PAGE}{report}"]
    opened.close()


def _answer(
    row: accuracy.Prediction, document: dict[str, Any], i: int, shop: str
) -> accuracy.Prediction:
    gold = document["gold"]
    value = {**gold, "shop": shop}
    output = orjson.dumps(value).decode() + HOSTILE[i]
    correct = {HOSTILE[1]: True, "shop": shop == gold["shop"]}
    return replace(row, id=document["id"], output=output, value=value, correct=correct, gold=gold)


def listed(page: Any) -> list[str]:
    return [node.text_content() for node in page.query_selector_all("#list li .id")]


def test_hostile_rows_are_shown_as_text(page: Any) -> None:
    assert HOSTILE[2] in page.text_content("h1")
    assert listed(page) == [f"{text}{i}" for i, text in enumerate(HOSTILE)]
    for i, text in enumerate(HOSTILE):
        page.click(f"#item-{i}")
        assert page.text_content("#one h3") == f"{text}{i}"
        assert page.text_content("#one .text") == text * (i + 1)
        assert text in page.text_content("#one dl")
        page.click("#one summary")
        assert text in page.text_content("#one .raw")
    assert page.query_selector_all("#one img, #one script, #one a, main img") == []


def test_filters_orders_and_search(page: Any) -> None:
    page.click("text=Failing")
    assert len(listed(page)) == 3
    assert page.text_content("#count") == "3 of 4 documents"
    page.select_option("select[name=field]", label=HOSTILE[1])
    assert listed(page) == []
    page.select_option("select[name=field]", label="shop")
    assert len(listed(page)) == 3
    page.click("text=Flipped")
    assert listed(page) == [f"{HOSTILE[1]}1"]
    page.click("text=All 4")
    page.select_option("select[name=order]", "grade")
    assert listed(page)[-1] == f"{HOSTILE[0]}0"
    page.select_option("select[name=order]", "long")
    assert listed(page)[0] == f"{HOSTILE[3]}3"
    page.fill("input[type=search]", "ONERROR img")
    assert listed(page) == [f"{HOSTILE[2]}2"]
    page.fill("input[type=search]", "nowhere to be found")
    assert (listed(page), page.text_content("#one")) == ([], "")


def test_the_differing_field_is_marked(page: Any) -> None:
    page.click("#item-1")
    marks = [node.text_content() for node in page.query_selector_all("#one mark.off")]
    assert marks == ["Elm"]
    signs = [
        node.text_content()
        for node in page.query_selector_all(
            "#one .field:last-child .right, #one .field:last-child .wrong"
        )
    ]
    assert signs == ["✗", "✓"]


def test_the_keyboard_alone_is_enough(page: Any) -> None:
    for key, shown in (("j", 1), ("j", 2), ("k", 1)):
        page.keyboard.press(key)
        assert page.text_content("#one h3").endswith(str(shown))
    page.keyboard.press("f")
    assert len(listed(page)) == 3
    page.keyboard.press("/")
    page.keyboard.type("jfa")
    assert page.input_value("input[type=search]") == "jfa"
    page.fill("input[type=search]", "")
    page.keyboard.press("Escape")
    page.keyboard.press("End")
    assert page.text_content("#one h3").endswith("3")
    assert page.get_attribute("#list", "aria-activedescendant") == "item-2"


def test_a_comparison_shows_its_best_arm_against_the_reference(comparison_page: Any) -> None:
    assert listed(comparison_page) == [f"{text}{i}" for i, text in enumerate(HOSTILE)]
    comparison_page.click("text=Failing 1")
    assert listed(comparison_page) == [f"{HOSTILE[2]}2"]
    comparison_page.click("text=Flipped 1")
    assert listed(comparison_page) == [f"{HOSTILE[1]}1"]
    assert comparison_page.text_content("#one .text") == HOSTILE[1] * 2
    said = [
        node.text_content()
        for node in comparison_page.query_selector_all("#one .field:last-child dd")
    ]
    expected = [
        "expectedAsh",
        "sftAsh✓",
        "recordedElm✗",
        "base, distill, filtered_sftElm✗",
        "grpoAsh✓",
    ]
    assert said == expected
    marks = [node.text_content() for node in comparison_page.query_selector_all("#one mark.off")]
    assert marks == ["Elm", "Elm"]
    comparison_page.select_option("select[name=order]", "long")
    comparison_page.click("text=All 4")
    assert listed(comparison_page)[0] == f"{HOSTILE[3]}3"


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [340, 1100])
@pytest.mark.parametrize("of", ["page", "comparison_page"])
def test_it_fits_the_screen_in_both_schemes(
    request: pytest.FixtureRequest, of: str, scheme: str, width: int
) -> None:
    page = request.getfixturevalue(of)
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    paper = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(255, 255, 255)") == (scheme == "light")
    for drawn in page.query_selector_all("svg.chart"):
        assert drawn.get_attribute("role") == "img"
        assert drawn.bounding_box()["width"] > 250


def test_a_wide_table_keeps_its_names_in_sight(comparison_page: Any) -> None:
    comparison_page.set_viewport_size({"width": 340, "height": 800})
    table = comparison_page.query_selector("#comparison .scroll")
    table.evaluate("node => node.scrollLeft = 400")
    assert table.evaluate("node => node.scrollLeft") > 100
    for name in ("tbody th", "caption span"):
        assert table.query_selector(name).bounding_box()["x"] >= table.bounding_box()["x"]


def test_a_hash_stays_on_one_line(page: Any) -> None:
    for width in (340, 1100):
        page.set_viewport_size({"width": width, "height": 800})
        page.evaluate("document.querySelectorAll('details').forEach(node => node.open = true)")
        heights = page.evaluate(
            "[...document.querySelectorAll('.hash')].map(node => {"
            "const text = document.createRange(); text.selectNodeContents(node);"
            "return text.getClientRects().length })"
        )
        assert heights
        assert set(heights) == {1}


def test_keys_are_hinted_at_where_there_are_keys(browser: Any, report: Path) -> None:
    for touch in (False, True):
        context = browser.new_context(
            viewport={"width": 380, "height": 800}, has_touch=touch, is_mobile=touch
        )
        opened = context.new_page()
        opened.goto(f"{PAGE}{report}")
        assert opened.is_visible(".keys") != touch
        context.close()


def test_a_table_that_scrolls_shows_it(browser: Any, comparison_page: Any) -> None:
    """The last pixels of a wide table are darker on a phone until it is scrolled to its end."""
    comparison_page.set_viewport_size({"width": 340, "height": 800})
    table = comparison_page.query_selector("#comparison .scroll")
    at_start = table.screenshot()
    table.evaluate("node => node.scrollLeft = node.scrollWidth")
    comparison_page.wait_for_timeout(100)
    assert edge(browser, at_start) < 250 <= edge(browser, table.screenshot())


def edge(browser: Any, picture: bytes) -> float:
    """Return the median brightness of the picture's last columns, half-way down."""
    page = browser.new_page()
    source = f"data:image/png;base64,{b64encode(picture).decode()}"
    value = page.evaluate(
        "async source => { const image = new Image(); image.src = source; await image.decode();"
        "const canvas = document.createElement('canvas');"
        "canvas.width = image.width; canvas.height = image.height;"
        "const drawing = canvas.getContext('2d'); drawing.drawImage(image, 0, 0);"
        "const found = drawing.getImageData(image.width - 2, image.height / 2 - 8, 1, 16).data;"
        "return found.filter((_, i) => i % 4 === 0).sort()[8] }",
        source,
    )
    page.close()
    return float(value)


def test_the_list_stands_beside_the_document(page: Any) -> None:
    page.set_viewport_size({"width": 1100, "height": 800})
    rows, shown = (page.query_selector(name).bounding_box() for name in ("#list", "#one"))
    assert rows["x"] + rows["width"] <= shown["x"]
    assert page.evaluate("getComputedStyle(document.querySelector('#list')).maxHeight") == "768px"
    page.set_viewport_size({"width": 380, "height": 800})
    rows, shown = (page.query_selector(name).bounding_box() for name in ("#list", "#one"))
    assert rows["y"] + rows["height"] <= shown["y"]


def test_the_accuracy_of_many_systems_uses_the_width(comparison_page: Any) -> None:
    comparison_page.set_viewport_size({"width": 1100, "height": 800})
    drawn = [
        node.bounding_box() for node in comparison_page.query_selector_all("#accuracy svg.chart")
    ]
    right = max(one["x"] + one["width"] for one in drawn)
    left = min(one["x"] for one in drawn)
    assert right - left > 0.95 * comparison_page.query_selector("#accuracy").bounding_box()["width"]


def test_the_policy_stops_what_escaping_would_miss(browser: Any, report: Path) -> None:
    """Markup planted in the open page, as if not escaped, does not run, load or restyle."""
    opened = browser.new_page()
    refused: list[str] = []
    opened.on("console", lambda message: refused.append(message.text))
    opened.goto(f"{PAGE}{report}")
    opened.evaluate(
        "text => document.body.append(document.createRange().createContextualFragment(text))",
        FOREIGN,
    )
    opened.wait_for_timeout(200)
    assert opened.evaluate("window.pwned") is None
    assert len([text for text in refused if "Content Security Policy" in text]) >= 3
    opened.close()
