"""Messages to tokens and completion masks. The only place where text becomes tokens.

The text is the model's own chat template's. Each assistant turn is encoded apart from what
precedes it, because that is how it will be generated: prompt tokens first, then one at a time.
Left out: templates that rewrite earlier turns once a later one follows; they are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import orjson

from offapi.backend import Episode, Segment
from offapi.errors import DataError, ModelError

Messages = Sequence[Mapping[str, Any]]
OnLong = Literal["refuse", "drop"]


@dataclass(frozen=True)
class Chat:
    """A model's tokenizer and template. `stop_ids` are all ids that end a turn; any of them is learned."""

    tokenizer: Any
    stop_ids: tuple[int, ...]
    special: tuple[str, ...] = ()  # texts that the tokenizer reads as one special token

    @classmethod
    def load(cls, folder: Path) -> Chat:
        """The chat of the model in `folder`. Raises ModelError without tokenizer, template or end-of-turn ids."""
        from transformers import AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except (OSError, ValueError) as error:
            raise ModelError(f"no usable tokenizer: {error}", where=str(folder), next_step=ADD) from error
        if not tokenizer.chat_template:
            raise ModelError("the model has no chat template.", where=str(folder), next_step="Use an instruct model.")
        stops = _stop_ids(folder) | ({tokenizer.eos_token_id} - {None})
        if not stops:
            raise ModelError("generation_config.json names no eos_token_id.", where=str(folder), next_step=ADD)
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer, tuple(sorted(stops)), tuple(sorted(special)))

    def prompt(self, messages: Messages, tools: Sequence[Mapping[str, Any]] | None = None) -> tuple[int, ...]:
        """Token ids of `messages` up to where the assistant begins to write."""
        return self.encode(self._render(messages, tools, generate=True))

    def encode(self, text: str) -> tuple[int, ...]:
        """Token ids of `text` as it stands, special tokens in it recognised, none added."""
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of a completion, without special tokens."""
        text: str = self.tokenizer.decode(list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def episode(self, id: str, messages: Messages, tools: Sequence[Mapping[str, Any]] | None = None) -> Episode:
        """`messages` as an episode: every assistant turn is learned, through the id that ends it.

        Raises DataError, naming `id`, when there is no assistant turn with text or a tool call to
        learn, or when the template rewrites earlier turns.
        """
        segments: list[Segment] = []
        written = ""
        for i, message in enumerate(messages):
            if message.get("role") != "assistant":
                continue
            before = self._render(messages[:i], tools, generate=True)
            after = self._render(messages[: i + 1], tools, generate=False)
            if not (before.startswith(written) and after.startswith(before)):
                raise DataError(
                    f"row {id!r}: the chat template rewrites earlier turns at message {i + 1}.",
                    next_step="Split it into rows that end with one assistant turn each.",
                )
            if not message.get("content") and not message.get("tool_calls"):
                raise DataError(f"row {id!r}: assistant message {i + 1} is empty.", next_step=NOTHING)
            segments.append(Segment(self.encode(before[len(written) :]), sampled=False))
            segments += self._turn(id, after[len(before) :])
            written = after
        if not segments:
            raise DataError(f"row {id!r} has no assistant message.", next_step=NOTHING)
        return Episode(id, tuple(segment for segment in segments if segment.tokens))

    def _turn(self, id: str, text: str) -> list[Segment]:
        """An assistant turn: learned through its last end-of-turn id, what the template writes behind it given."""
        tokens = self.encode(text)
        ends = [i for i, token in enumerate(tokens) if token in self.stop_ids]
        if not ends or ends[-1] == 0:
            raise DataError(
                f"row {id!r}: the template does not end the assistant's turn with any of the ids {self.stop_ids}.",
                next_step="Add the id that ends a turn to eos_token_id in generation_config.json.",
            )
        cut = ends[-1] + 1
        return [Segment(tokens[:cut], sampled=True), Segment(tokens[cut:], sampled=False)]

    def _harmless(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """`message` with special tokens in its text broken up, so that a document cannot end its own turn."""
        content = message.get("content")
        if not isinstance(content, str):
            return dict(message)
        for token in self.special:
            content = content.replace(token, f"{token[:1]} {token[1:]}")
        return {**message, "content": content}

    def _render(self, messages: Messages, tools: Sequence[Mapping[str, Any]] | None, generate: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            [self._harmless(message) for message in messages],
            tools=None if tools is None else [dict(tool) for tool in tools],
            tokenize=False,
            add_generation_prompt=generate,
        )
        return text


ADD = "Add the model again with `offapi models add`."
NOTHING = "Remove the row, or give it an answer to learn."


@dataclass(frozen=True)
class Fitted:
    """Episodes within the limit, and the ids of those dropped for being longer."""

    episodes: tuple[Episode, ...]
    dropped: tuple[str, ...]


def fit(episodes: Sequence[Episode], max_tokens: int, on_long: OnLong) -> Fitted:
    """Keep episodes of at most `max_tokens`; a longer one is refused or dropped, never cut.

    Raises DataError for a longer one under "refuse", and when nothing is left.
    """
    long = [episode for episode in episodes if len(episode.tokens) > max_tokens]
    if long and on_long == "refuse":
        raise DataError(
            f"row {long[0].id!r} has {len(long[0].tokens)} tokens, more than max_tokens = {max_tokens}"
            f" ({len(long)} of {len(episodes)} rows are too long).",
            next_step=f"Set max_tokens = {max(len(e.tokens) for e in long)}, or on_long = 'drop' to leave them out.",
        )
    kept = tuple(episode for episode in episodes if len(episode.tokens) <= max_tokens)
    if not kept:
        raise DataError(f"no row fits into max_tokens = {max_tokens}.", next_step="Raise max_tokens.")
    return Fitted(kept, tuple(episode.id for episode in long))


def _stop_ids(folder: Path) -> set[int]:
    path = folder / "generation_config.json"
    if not path.is_file():
        return set()
    named = orjson.loads(path.read_bytes()).get("eos_token_id")
    return set() if named is None else set(named) if isinstance(named, list) else {int(named)}
