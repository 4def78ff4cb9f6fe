"""What both backends refuse, and which prefix they share."""

from __future__ import annotations

import numpy as np
import pytest

from offapi.episodes import (
    Episode,
    SamplingMask,
    Segment,
    check_learnable,
    check_scorable,
    common_prefix_length,
)

GIVEN = Segment((1, 2), False)


def masked(ids: tuple[int, ...], counts: tuple[int, ...]) -> Episode:
    """Return an episode of two sampled tokens, 3 and 4, drawn from these sets."""
    mask = SamplingMask(np.array(ids, np.int32), np.array(counts, np.int32))
    return Episode("row-1", (GIVEN, Segment((3, 4), True, sampling_mask=mask)))


def test_common_prefix_leaves_every_row_a_token() -> None:
    assert common_prefix_length([(1, 2), (1, 2)]) == 1
    assert common_prefix_length([(1, 2, 3), (1, 2, 4, 5)]) == 2
    assert common_prefix_length([(1,), (1, 2)]) == 0
    assert common_prefix_length([(), (1, 2)]) == 0


def test_what_cannot_be_learned_is_refused_by_name() -> None:
    good = Episode("good", (GIVEN, Segment((3,), True)))
    check_learnable([good], 10)
    with pytest.raises(ValueError, match="at least one episode"):
        check_learnable([], 10)
    with pytest.raises(ValueError, match="'mute' has no masked tokens"):
        check_learnable([good, Episode("mute", (GIVEN,))], 10)
    with pytest.raises(ValueError, match="'early' masks its first token"):
        check_learnable([good, Episode("early", (Segment((1, 2), True),))], 10)


def test_episodes_without_masked_tokens_can_be_scored() -> None:
    check_scorable([], 10)
    check_scorable([Episode("mute", (GIVEN,)), Episode("empty", ())], 10)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_that_is_not_above_0_is_refused(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature above 0"):
        check_scorable([], 10, temperature)


def test_a_sampling_mask_must_hold_the_token_of_each_position() -> None:
    check_scorable([masked((3, 9, 4), (2, 1))], 10)
    for ids, counts in (
        ((3, 4), (2,)),  # one set for two tokens
        ((3, 9, 4), (2, 2)),  # more ids counted than there are
        ((3, 4), (2, 0)),  # nothing to draw from
        ((3, 9, 5), (2, 1)),  # the second token is not in its set
        ((3, 10, 4), (2, 1)),  # an id beyond the vocabulary
        ((-1, 3, 4), (2, 1)),
    ):
        with pytest.raises(ValueError, match="sampling mask of episode 'row-1'"):
            check_scorable([masked(ids, counts)], 10)


def test_segments_are_joined_in_order() -> None:
    spoken = Segment((3, 4), True, (-0.5, -1.0))
    chat = Episode("a", (GIVEN, spoken, Segment((5,), False), Segment((6,), True, (-2.0,))))
    assert chat.tokens == (1, 2, 3, 4, 5, 6)
    assert chat.mask == (False, False, True, True, False, True)
    assert chat.behaviour is not None
    assert chat.behaviour.tolist() == [-0.5, -1.0, -2.0]
    assert Episode("b", (GIVEN, spoken, Segment((6,), True))).behaviour is None
    assert Episode("c", (GIVEN, Segment((3,), True))).behaviour is None


def test_the_sampling_masks_of_all_turns_are_joined_or_none_counts() -> None:
    def turn(ids: tuple[int, ...], counts: tuple[int, ...], tokens: tuple[int, ...]) -> Segment:
        mask = SamplingMask(np.array(ids, np.int32), np.array(counts, np.int32))
        return Segment(tokens, True, sampling_mask=mask)

    first, second = turn((3, 9), (2,), (3,)), turn((4, 5, 6), (1, 2), (4, 6))
    joined = Episode("a", (GIVEN, first, GIVEN, second)).sampling_mask
    assert joined is not None
    assert (joined.ids.tolist(), joined.counts.tolist()) == ([3, 9, 4, 5, 6], [2, 1, 2])
    assert Episode("b", (GIVEN, first, Segment((5,), True))).sampling_mask is None
    assert Episode("c", (GIVEN,)).sampling_mask is None
    of_positions = SamplingMask.of_positions([np.array([3, 9], np.int32), np.array([4], np.int32)])
    assert (of_positions.ids.tolist(), of_positions.counts.tolist()) == ([3, 9, 4], [2, 1])


@pytest.mark.parametrize("tokens", [(-1, 2), (1, 10)])
def test_tokens_that_the_model_does_not_know_are_named(tokens: tuple[int, ...]) -> None:
    check_scorable([Episode("a", (Segment((0, 9), False),))], 10)
    with pytest.raises(ValueError, match="episode 'a' has token"):
        check_scorable([Episode("a", (Segment(tokens, False),))], 10)
