"""Episodes within a limit of tokens: a longer one is refused or dropped, never cut."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from offapi.episodes import Episode
from offapi.errors import DataError
from offapi.text.display import plural

OnLong = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Fitted:
    """Episodes within the limit, and the ids of those dropped because they are longer."""

    episodes: tuple[Episode, ...]
    dropped: tuple[str, ...]


def fit_episodes(episodes: Sequence[Episode], max_tokens: int, on_long: OnLong) -> Fitted:
    """Keep episodes of at most `max_tokens`; a longer one is refused or dropped, never cut.

    Raise DataError for a longer one under "refuse", and when nothing is left.
    """
    long = [episode for episode in episodes if len(episode.tokens) > max_tokens]
    if long and on_long == "refuse":
        raise DataError(
            f"row {long[0].id!r} has {plural(len(long[0].tokens), 'token')}, more than max_tokens ="
            f" {max_tokens} (too long: {len(long)} of {plural(len(episodes), 'row')}).",
            next_step=(
                f"Set max_tokens = {max(len(e.tokens) for e in long)}, or on_long = 'drop' to drop"
                " them."
            ),
        )
    kept = tuple(episode for episode in episodes if len(episode.tokens) <= max_tokens)
    if not kept:
        raise DataError(
            f"no row fits into max_tokens = {max_tokens}.", next_step="Raise max_tokens."
        )
    return Fitted(kept, tuple(episode.id for episode in long))
