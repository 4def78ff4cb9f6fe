"""Episodes as rollouts: credit by turn, what is learned of one, and its way through a file."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from offapi.agent.episode import AgentEpisode, AgentFinish
from offapi.chat.chat import Chat
from offapi.completions import Completion
from offapi.data.documents import Document
from offapi.episodes import Segment
from offapi.policy_loss import PolicyLoss
from offapi.rl import rollout_files
from offapi.rl.agent_rollouts import returns, sampled_tokens, turn_groups
from offapi.rl.metrics import of_rollouts
from offapi.rl.reward_pool import Judged
from offapi.rl.rollouts import DrawnAnswer, Prompt, Rollout, RolloutGroup, Sampled, experiences

ASKED = ({"role": "system", "content": "s"}, {"role": "user", "content": "d"})


def episode(rewards: tuple[float, ...], finish: AgentFinish = "stop") -> AgentEpisode:
    """Return an episode with a turn of two tokens for each reward."""
    segments, messages = [Segment((1, 2, 3), False)], list[Any](ASKED)
    turns = []
    for at, _ in enumerate(rewards):
        turns.append(Completion((10 + at, 20), (-0.5, -0.25), "stop"))
        segments += [Segment(turns[-1].tokens, True, turns[-1].logprobs), Segment((7,), False)]
        messages += [{"role": "assistant", "content": "a"}, {"role": "tool", "content": "t"}]
    given = tuple(segments if finish != "stop" else segments[:-1])
    return AgentEpisode(
        0, 0, given, tuple(turns), tuple(messages[:-1]), finish, 2, 1, 1, 3.0, rewards
    )


def group(*finals: tuple[tuple[float, ...], float]) -> RolloutGroup:
    """Return a group of episodes with these rewards of their turns, and final rewards."""
    rollouts = []
    for steps, final in finals:
        drawn = DrawnAnswer.of(episode(steps))
        judged = Judged(final, {"right": final}, {})
        rollouts.append(
            Rollout(drawn.completion, drawn.text, judged, final + sum(steps), drawn.episode)
        )
    return RolloutGroup(Prompt(Document("d", "d"), (1, 2, 3)), tuple(rollouts))


class Centred:
    """A backend that knows one rule's advantages, and has no reference."""

    def advantages(self, rewards: list[list[float]], rule: str) -> list[Any]:
        return [np.array(group, np.float32) - np.float32(np.mean(group)) for group in rewards]

    def score(self, episodes: list[Any], by: str, temperature: float) -> list[None]:
        return [None] * len(episodes)


def test_rewards_to_go_are_a_turns_own_and_all_that_follow() -> None:
    assert returns((0.5, 0.0, -1.0), 2.0).tolist() == [1.5, 1.0, 1.0]
    assert turn_groups([returns((1.0, 0.0), 1.0), returns((0.25,), 0.0)]) == [
        [2.0, 0.25],
        [1.0, 0.25],
    ]


@pytest.mark.parametrize("credit", ["episode", "turn"])
def test_each_turn_is_compared_with_the_groups_turns(credit: Any) -> None:
    groups = [group(((1.0, 0.0), 1.0), ((0.0,), 1.0), ((0.0, 1.0), 0.0))]
    batch = experiences(Centred(), groups, PolicyLoss(), credit=credit)  # type: ignore[arg-type]
    assert [each.advantage for each in batch] == pytest.approx([2 / 3, -1 / 3, -1 / 3])
    own = [None if each.by_token is None else each.by_token.tolist() for each in batch]
    if credit == "episode":
        assert own == [None] * 3
    else:
        third = pytest.approx([2 / 3] * 2 + [0.0] * 2, abs=1e-6)
        assert own == [
            third,
            pytest.approx([-1 / 3] * 2),
            pytest.approx([-1 / 3] * 2 + [0, 0], abs=1e-6),
        ]
    for one, rollout in zip(batch, groups[0].rollouts, strict=True):
        assert rollout.episode
        assert one.episode.tokens == tuple(
            token for segment in rollout.episode.segments for token in segment.tokens
        )
        assert sum(one.episode.mask) == len(rollout.completion.tokens)


def test_what_follows_the_last_sampled_token_is_not_learned() -> None:
    ended = episode((0.0, 0.0), "turns")
    drawn = DrawnAnswer.of(ended)
    assert drawn.completion.finish == "length"
    assert sampled_tokens(episode((0.0,), "done")).finish == "stop"
    assert drawn.text == ""
    rollout = Rollout(drawn.completion, "", Judged(1.0, {}, {}), 1.0, ended)
    other = RolloutGroup(Prompt(Document("d", "d"), (1,)), (rollout,))
    (one,) = experiences(Centred(), [other], PolicyLoss())  # type: ignore[arg-type]
    assert one.episode.mask[-1]
    assert one.episode.tokens == (1, 2, 3, 10, 20, 7, 11, 20)


def test_the_metrics_say_how_episodes_went() -> None:
    found = of_rollouts(Sampled((group(((0.0, 0.0), 1.0), ((0.0,), 0.0)),)))
    assert found["episodes/turns"] == 1.5
    assert found["episodes/malformed_calls"] == found["episodes/tool_errors"] == 1.0
    assert found["finish/stop"] == 1.0
    assert found["finish/turns"] == 0.0


def test_an_episode_comes_back_from_its_file(tmp_path: Path) -> None:
    before = group(((0.5, 0.0), 1.0), ((0.0,), 0.0))
    task: Any = SimpleNamespace(tool_schemas=({"type": "function"},))
    (tmp_path / "1.jsonl").write_bytes(rollout_files.encode([before], task, 1))
    chat: Chat = SimpleNamespace()  # type: ignore[assignment]
    (after,) = rollout_files.read(tmp_path, task, chat)
    assert after.prompt.tokens == (1, 2, 3)
    for one, other in zip(before.rollouts, after.rollouts, strict=True):
        assert one.episode
        assert other.episode
        assert other.completion == one.completion
        assert (other.reward, other.text) == (one.reward, one.text)
        assert other.episode.segments == one.episode.segments
        assert other.returns_K.tolist() == one.returns_K.tolist()
