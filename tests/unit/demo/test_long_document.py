"""The example of many pages: one place has the answer, and a search finds it."""

from __future__ import annotations

import json
from typing import Any

from offapi.data.documents import fields_of
from offapi.demo.long_document import task as task_module
from offapi.demo.long_document.demonstrate import take_turn
from offapi.demo.long_document.documents import generate_agreements
from offapi.tools.episode_state import EpisodeState

task = task_module.task


def test_the_answer_stands_in_one_place_of_twenty_thousand_tokens() -> None:
    documents = generate_agreements("train", 20)
    for document in documents:
        assert len(document.text) > 4 * 20_000  # characters
        assert document.text.count(f"{fields_of(document.gold)['liability_cap']:,}") == 1
        assert len(task.messages(document.text)[-1]["content"]) < 200
    assert generate_agreements("train", 2) == documents[:2]
    assert generate_agreements("test", 1)[0].text != documents[0].text


def test_pages_are_the_document() -> None:
    text = generate_agreements("val", 1, pages=4)[0].text
    state = EpisodeState(text)
    pages = [task_module.next_page(state) for _ in range(8)]
    assert "".join(pages) == text
    assert pages[-1] == ""


def test_demonstrations_find_the_answer() -> None:
    for document in generate_agreements("train", 20):
        state, messages = EpisodeState(document.text), list[dict[str, Any]]()
        while (turn := take_turn(document, messages)) is not None and turn.calls:
            result = json.dumps(task_module.find(**turn.calls[0].arguments, state=state))
            messages += [turn.message(), {"role": "tool", "content": result}]
        assert turn is not None
        assert json.loads(turn.text) == document.gold
