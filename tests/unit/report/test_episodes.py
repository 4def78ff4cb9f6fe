"""An agent's episodes in a report: turn by turn, without a script, and hostile text stays text."""

from __future__ import annotations

from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from offapi.agent.episode import AgentEpisode, AgentFinish
from offapi.backend import Completion
from offapi.data.documents import Document
from offapi.episodes import Segment
from offapi.evaluation.accuracy import Prediction, predictions_jsonl
from offapi.evaluation.episode_facts import EpisodeFacts
from offapi.report.render import html, markdown
from offapi.report.story import make_story
from offapi.rl import rollout_files
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import DrawnAnswer, Prompt, Rollout, RolloutGroup
from offapi.training.run import Run

FINISHES: tuple[AgentFinish, ...] = ("turns", "stop")
HOSTILE = "</pre></details><script>window.pwned=1</script><img src=x onerror=1>"
LONG = "Ash Ltd " * 400


def episode(finish: AgentFinish = "stop", sample: int = 0) -> AgentEpisode:
    """Return an episode that calls twice, with a long result and an error, and then answers."""
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Name the shop."},
        {"role": "user", "content": f"the receipt {HOSTILE}"},
    ]
    for id, arguments, result in [("1", {"q": HOSTILE}, LONG), ("2", {}, f"Error: {HOSTILE}")]:
        function = {"name": "look", "arguments": orjson.dumps(arguments).decode()}
        call = {"id": id, "type": "function", "function": function}
        messages += [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "tool_call_id": id, "name": "look", "content": result},
        ]
    messages.append({"role": "assistant", "content": f"answer {HOSTILE}"})
    segments = [Segment((1, 2), False)]
    for at in range(3):
        segments += [Segment((10 + at, 20), True, (-0.5, -0.5)), Segment((7,), False)]
    turns = tuple(Completion(each.tokens, (-0.5, -0.5), "stop") for each in segments[1::2])
    taken = (2, 1, 0, 0.5, (0.0,) * 3)
    return AgentEpisode(0, sample, tuple(segments[:-1]), turns, tuple(messages), finish, *taken)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run with an agent's scored answers, and with rollouts of its last step."""
    path = Run.create(tmp_path_factory.mktemp("runs"), "agent", {"config": {"recipe": "grpo"}}).path
    facts = EpisodeFacts.of(episode())
    rows = [
        Prediction(id, "x", {}, {"shop": id == "good"}, {"shop": "Ash"}, episode=facts)
        for id in ("good", "bad")
    ]
    (path / "predictions.jsonl").write_bytes(predictions_jsonl(rows))
    rollouts = []
    for sample, finish in enumerate(FINISHES):
        drawn = DrawnAnswer.of(episode(finish, sample))
        judged = Judged(0.25, {"right": 0.25}, {})
        rollouts.append(Rollout(drawn.completion, drawn.text, judged, 0.25, drawn.episode))
    group = RolloutGroup(Prompt(Document("d", "d"), (1, 2)), tuple(rollouts))
    task: Any = SimpleNamespace(tool_schemas=({"type": "function"},))
    (path / "rollouts").mkdir(exist_ok=True)
    for step in (1, 2):
        file = path / "rollouts" / f"{step:06}.jsonl"
        file.write_bytes(rollout_files.encode([group], task, step))
    return path


class Episodes(HTMLParser):
    """The elements of a page, and the words of each episode's summary and turns."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.summaries: list[str] = []
        self.turns: list[list[tuple[str, str]]] = []  # of each episode: its class and its words
        self.into = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        kind = dict(attrs).get("class") or ""
        if (tag, kind) == ("details", "episode"):
            self.summaries.append("")
            self.turns.append([])
            self.into = "episode"
        elif self.into and tag in ("summary", "li"):
            self.into = tag
            if tag == "li":
                self.turns[-1].append((kind, ""))

    def handle_endtag(self, tag: str) -> None:
        if tag == "details":
            self.into = ""

    def handle_data(self, data: str) -> None:
        words = " ".join(data.split())
        if not words:
            return
        if self.into == "summary":
            self.summaries[-1] += f"{words} "
        elif self.into == "li":
            kind, said = self.turns[-1][-1]
            self.turns[-1][-1] = kind, f"{said}{words} "


def test_episodes_are_browsed_turn_by_turn_without_a_script(run: Path) -> None:
    story = make_story([run])
    text = html.render(story)
    page = Episodes(text)
    took = "3 turns, 2 tool calls, 1 tool error"
    assert page.summaries == [
        f"good right; {took}, answered ",
        f"bad wrong: shop; {took}, answered ",
        f"2.0/d#0 reward 0.25; {took}, out of turns ",
        f"2.0/d#1 reward 0.25; {took}, answered ",
    ]
    for turns in page.turns:
        whos = [said.split()[0] for _, said in turns]
        assert whos == ["system", "user", "model", "result", "model", "result", "model"]
        assert [kind for kind, _ in turns] == [""] * 5 + ["failed", ""]
        said = [words for _, words in turns]
        assert said[2].startswith('model calls look {"q":"</pre></details><script>')
        assert said[3].startswith("result look, 3,200 characters Ash Ltd")
        assert len(said[3]) < 2_200
        assert said[3].endswith("(1,200 more characters) ")
        assert ", an error Error: </pre>" in said[5]
        assert said[6].startswith("model answer </pre>")
    assert page.tags.count("script") == text.count("<script")
    assert "img" not in page.tags
    assert page.tags.count("script") == 1 + (story.samples is not None)
    assert story.episodes
    assert story.episodes.table
    assert ("turns", "3.00 [3.00–3.00]") in story.episodes.table.rows
    assert ("answered (stop)", "2 of 2, 100.0%") in story.episodes.table.rows


def test_markdown_has_the_first_episodes(run: Path) -> None:
    text = markdown.render(make_story([run]))
    assert "result (look, 3,200 characters):" in text.replace("\\", "")
    assert "## Episodes" in text
    assert "calls look: {}" in text


def test_without_documents_prompts_and_results_are_left_out(run: Path) -> None:
    for page in (html, markdown):
        text = page.render(make_story([run], with_documents=False))
        assert "the receipt" not in text
        assert "Ash Ltd Ash Ltd" not in text
        assert "3,200 characters" in text.replace("\\", "")
        assert "Name the shop" in text
