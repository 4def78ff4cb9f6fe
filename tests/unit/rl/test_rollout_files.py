"""Rollouts as graded traces on disk and back: the same tokens, logprobs and rewards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_llama

from offapi.backend import Completion
from offapi.chat.chat import Chat
from offapi.checks import is_json
from offapi.data.documents import Document
from offapi.episodes import SamplingMask
from offapi.errors import DataError
from offapi.files import jsonl
from offapi.rl import rollout_files
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import Prompt, Rollout, RolloutGroup
from offapi.task import Task

TASK = Task(
    "t",
    "Read.",
    {"type": "object", "properties": {"a": {}}},
    {"json": (is_json, 1.0)},
    {"a": "text"},
)
GRADED = {"score": 1.0, "checks": {"json": {"score": 1.0, "reason": ""}}}


@pytest.fixture(scope="module")
def chat(tmp_path_factory: pytest.TempPathFactory) -> Chat:
    return Chat.load(tiny_llama.write_chat(tmp_path_factory.mktemp("model")))


def rollout(
    chat: Chat, text: str, reward: float | None, end: bool = True, mask: SamplingMask | None = None
) -> Rollout:
    tokens = chat.encode(text) + (chat.stop_ids if end else ())
    logprobs = tuple(-0.1 * (i + 1) for i in range(len(tokens)))
    completion = Completion(tokens, logprobs, "stop" if end else "length", mask)
    return Rollout(completion, text, Judged(reward, {"json": 0.5}, {"gold": 0.25}), reward)


def group(chat: Chat, name: str, *rollouts: Rollout) -> RolloutGroup:
    document = Document(name, f"the text of {name}")
    return RolloutGroup(Prompt(document, chat.prompt(TASK.messages(document.text))), rollouts)


def written(folder: Path, step: int, *groups: RolloutGroup) -> Path:
    (folder / f"{step:06d}.jsonl").write_bytes(rollout_files.encode(groups, TASK, step))
    return folder


def trace(id: str, answer: str, score: float | None, **more: Any) -> dict[str, Any]:
    messages = [*TASK.messages("the question"), {"role": "assistant", "content": answer}]
    return {"id": id, "messages": messages, "grade": {**GRADED, "score": score}, **more}


def test_a_runs_rollouts_are_read_as_they_were(tmp_path: Path, chat: Chat) -> None:
    first = group(
        chat,
        "d1",
        rollout(chat, "yes", 1.0),
        rollout(chat, "", 0.5),
        rollout(chat, "no", 0.0, end=False),
    )
    second = group(chat, "d2", rollout(chat, "a\n", 1.5), rollout(chat, "ä", -2.0))
    written(tmp_path, 1, first, second)
    read = rollout_files.read(written(tmp_path, 2, first), TASK, chat)
    assert len(read) == 3
    for was, found in zip((first, second, first), read, strict=True):
        assert found.prompt.tokens == was.prompt.tokens
        assert found.rewards_G == was.rewards_G
        assert [one.completion for one in found.rollouts] == [
            one.completion for one in was.rollouts
        ]
        assert [one.text for one in found.rollouts] == [one.text for one in was.rollouts]
        assert [(one.judged.parts, one.judged.audit) for one in found.rollouts] == [
            ({"json": 0.5}, {"gold": 0.25})
        ] * (len(was.rollouts))


def test_steps_are_read_in_their_order(tmp_path: Path, chat: Chat) -> None:
    for step in (7, 2, 12, 1, 9, 4, 11, 3):
        pair = (rollout(chat, "yes", float(step)), rollout(chat, "no", 0.0))
        written(tmp_path, step, group(chat, "d1", *pair))
    read = rollout_files.read(tmp_path, TASK, chat)
    assert [group.rewards_G[0] for group in read] == [1, 2, 3, 4, 7, 9, 11, 12]


def test_a_document_that_is_twice_in_a_step_makes_two_groups(tmp_path: Path, chat: Chat) -> None:
    one = group(chat, "d1", rollout(chat, "yes", 1.0), rollout(chat, "no", 0.0))
    other = group(chat, "d1", rollout(chat, "so", 0.0), rollout(chat, "so", 0.0))
    read = rollout_files.read(written(tmp_path, 1, one, other), TASK, chat)
    assert [group.rewards_G for group in read] == [(1.0, 0.0), (0.0, 0.0)]


def test_rewardless_completions_and_single_ones_are_left_out(tmp_path: Path, chat: Chat) -> None:
    three = group(
        chat, "d1", rollout(chat, "yes", 1.0), rollout(chat, "no", None), rollout(chat, "or", 0.0)
    )
    single = group(chat, "d2", rollout(chat, "yes", 1.0), rollout(chat, "no", None))
    read = rollout_files.read(written(tmp_path, 1, three, single), TASK, chat)
    assert [group.rewards_G for group in read] == [(1.0, 0.0)]


def test_truncated_sampling_keeps_tokens_but_not_logprobs(tmp_path: Path, chat: Chat) -> None:
    mask = SamplingMask(np.arange(4, dtype=np.int32), np.array([1, 3], np.int32))
    drawn = [
        rollout(chat, text, reward, mask=mask)
        for text, reward in (("y", 0.7), ("", 0.7), ("n", 0.6))
    ]
    read = rollout_files.read(written(tmp_path, 1, group(chat, "d1", *drawn)), TASK, chat)[0]
    assert read.rewards_G == (1.0, 1.0, 0.0)
    assert [one.completion.tokens for one in read.rollouts] == [
        one.completion.tokens for one in drawn
    ]
    assert all(one.completion.logprobs == () for one in read.rollouts)


def test_other_traces_of_one_question_are_a_group(tmp_path: Path, chat: Chat) -> None:
    rows = [trace("a", "yes", 0.9), trace("b", "no", 0.2), trace("c", "yes!", 0.9)]
    read = rollout_files.read(jsonl_file(tmp_path, rows), TASK, chat)
    assert [one.reward for one in read[0].rollouts] == [1.0, 0.0, 1.0]
    assert read[0].rollouts[0].completion.tokens == chat.encode("yes") + chat.stop_ids
    assert read[0].rollouts[0].completion.logprobs == ()
    assert read[0].prompt.tokens == chat.prompt(TASK.messages("the question"))


def test_tokens_of_another_tokenizer_are_not_taken(tmp_path: Path, chat: Chat) -> None:
    foreign = {"tokens": [1, 2, 3], "logprobs": [-0.1, -0.1, -0.1], "finish": "stop"}
    rows = [trace("a", "yes", 1.0, source=foreign), trace("b", "no", 0.0, source=foreign)]
    read = rollout_files.read(jsonl_file(tmp_path, rows), TASK, chat)[0]
    assert read.rollouts[0].completion.tokens == chat.encode("yes") + chat.stop_ids
    assert read.rollouts[0].completion.logprobs == ()


def test_unusable_traces_are_named_with_their_file(tmp_path: Path, chat: Chat) -> None:
    ungraded = {name: value for name, value in trace("b", "no", 0.0).items() if name != "grade"}
    turns = trace("b", "no", 0.0)
    turns["messages"] = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "hi"},
        *turns["messages"],
    ]
    for rows, message in (
        ([trace("a", "yes", 1.0), ungraded], "trace 'b' has no grade"),
        ([trace("a", "yes", 1.0), turns], "trace 'b' has several turns"),
        (
            [trace("a", "yes", 1.0, group="x"), trace("b", "no", 1.0, group="y")],
            "no prompt has two answers",
        ),
    ):
        path = jsonl_file(tmp_path, rows)
        with pytest.raises(DataError, match=message) as error:
            rollout_files.read(path, TASK, chat)
        assert str(path) in error.value.where
        assert error.value.next_step


def jsonl_file(folder: Path, rows: list[dict[str, Any]]) -> Path:
    (folder / "traces.jsonl").write_bytes(b"".join(jsonl.line(row) for row in rows))
    return folder / "traces.jsonl"
