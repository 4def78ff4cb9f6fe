"""How a completion ends, and which prompts and settings are refused."""

from __future__ import annotations

import pytest

from offapi.completions import Sampling, check_rollout


def test_a_completion_ends_with_a_stop_token_or_at_its_limit() -> None:
    sampling = Sampling(3, (7, 9))
    assert sampling.finish([1, 2]) is None
    assert sampling.finish([1, 9]) == "stop"
    assert sampling.finish([7, 1]) is None
    assert sampling.finish([1, 2, 3]) == "length"
    assert sampling.finish([1, 2, 7]) == "stop"


def test_a_greedy_draw_is_the_default_and_is_never_truncated() -> None:
    assert Sampling(3, ()).temperature == 0.0
    assert not Sampling(3, (), top_k=4, top_p=0.5, min_p=0.1).truncated
    assert not Sampling(3, (), temperature=1.0).truncated
    for knob in ({"top_k": 1}, {"top_p": 0.99}, {"min_p": 0.01}):
        assert Sampling(3, (), temperature=1.0, **knob).truncated


@pytest.mark.parametrize(
    "wrong",
    [{"max_tokens": 0}, {"temperature": -1.0}, {"top_k": -1}, {"top_p": 0.0}, {"min_p": 1.1}],
)
def test_a_setting_out_of_its_bounds_is_named(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Sampling(**{"max_tokens": 3, "stop_ids": (), **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("prompts", "n", "keys", "words"),
    [
        ([(1,)], 0, None, "got n = 0"),
        ([(1,), ()], 2, None, "got an empty one"),
        ([(1,), (2, 10)], 2, None, "prompt 1 has token 10; tokens must be 0 to 9"),
        ([(1,), (2,)], 2, [5], "got 1 for 2 prompts"),
    ],
)
def test_what_a_rollout_refuses(
    prompts: list[tuple[int, ...]], n: int, keys: list[int] | None, words: str
) -> None:
    check_rollout([(1,), (9, 0)], 1, [3, 4], 10)
    check_rollout([], 1, None, 10)
    with pytest.raises(ValueError, match=words):
        check_rollout(prompts, n, keys, 10)
