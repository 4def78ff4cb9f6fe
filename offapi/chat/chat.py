"""Messages to tokens and completion masks: the only place where text becomes tokens.

The text is written by the model's own chat template. Each assistant turn is encoded separately from
what precedes it, because it is generated that way: prompt tokens first, then one at a time. A
template is a program of the model's author: whatever it raises is a ModelError. Left out: content
that is not text, and stopping a template that never ends (see `offapi.chat.template_probe`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from offapi.chat.messages import (
    INSTRUCTING,
    system_in_front,
    with_argument_objects,
    without_thinking,
)
from offapi.chat.tokenizer import ADD, load_tokenizer, panics_refused, stop_ids
from offapi.episodes import Episode, Segment
from offapi.errors import DataError, ModelError
from offapi.text.display import plural

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None
Thinking = Literal["keep", "drop"]
OnLong = Literal["refuse", "drop"]

SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
IN_FRONT = (
    "The model's chat template has no system role: the instructions are put before the first user"
    " message."
)


@dataclass(frozen=True)
class Chat:
    """A model's tokenizer and template.

    `stop_ids` are all ids that end a turn; each of them is learned.
    """

    tokenizer: Any
    stop_ids: tuple[int, ...]
    special: tuple[str, ...] = ()  # texts that the tokenizer reads as one special token
    template: str = ""  # where the template is, for errors

    @classmethod
    def load(cls, folder: Path) -> Chat:
        """Return the chat of the model in `folder`.

        Raise ModelError without a tokenizer, a template or end-of-turn ids.
        """
        tokenizer = load_tokenizer(folder)
        if not tokenizer.chat_template:
            raise ModelError(
                "the model has no chat template.", where=_template(folder), next_step=INSTRUCT
            )
        stops = stop_ids(folder) | ({tokenizer.eos_token_id} - {None})
        if not stops:
            raise ModelError(
                "generation_config.json names no eos_token_id.", where=str(folder), next_step=ADD
            )
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        return cls(tokenizer, tuple(sorted(stops)), tuple(sorted(special)), _template(folder))

    @cached_property
    def no_system(self) -> bool:
        """Whether the template refuses the system role or drops its text, see `IN_FRONT`."""
        return SYSTEM["content"] not in self._tried(SYSTEM, USER) and USER[
            "content"
        ] in self._tried(USER)

    def try_out(self) -> None:
        """Render a short chat as training and prompting do.

        Raise ModelError where the template cannot.
        """
        self._render("", (SYSTEM, USER, ASSISTANT), None, generate=False)
        self.prompt((SYSTEM, USER))

    def prompt(self, messages: Messages, tools: Tools = None, id: str = "") -> tuple[int, ...]:
        """Return the token ids of `messages` up to where the assistant begins to write.

        `id` names them in errors.
        """
        return self.encode(self._render(id, messages, tools, generate=True))

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`; special tokens in it are recognised, none are added."""
        with panics_refused(self.template):
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion, without special tokens."""
        with panics_refused(self.template):
            text: str = self.tokenizer.decode(
                list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
            )
        return text

    def episode(self, id: str, messages: Messages, tools: Tools = None) -> Episode:
        """Return `messages` as one episode; DataError where `episodes` makes several, or none."""
        episodes = self.episodes(id, messages, tools)
        if len(episodes) > 1:
            raise DataError(
                f"row {id!r}: the chat template rewrites earlier turns when a later one follows.",
                next_step="Split it into rows that end with one assistant turn each.",
            )
        return episodes[0]

    def episodes(
        self, id: str, messages: Messages, tools: Tools = None, thinking: Thinking = "keep"
    ) -> list[Episode]:
        """Return `messages` as episodes that learn every assistant turn except those of weight 0.

        A turn is learned through the id that ends it. There is one episode, unless the template
        rewrites earlier turns (most drop old thinking): each turn is then learned in the context in
        which it is generated, in its own episode, `ID#2` and so on.

        Raise DataError, naming `id`, when no assistant turn has text or a tool call to learn, or
        when the template writes a turn differently from how it is generated.
        """
        chat = list(messages)
        if thinking == "drop":
            chat = [without_thinking(message) for message in messages]
        turns: list[list[Segment]] = []
        written: str | None = None
        for i, message in enumerate(chat):
            if message.get("role") != "assistant":
                continue
            before = self._render(id, chat[:i], tools, generate=True)
            after = self._render(id, chat[: i + 1], tools, generate=False)
            self._check_turn(id, i, message, before, after)
            if written is None or not before.startswith(written):
                turns.append([])
                written = ""
            turns[-1].append(Segment(self.encode(before[len(written) :]), sampled=False))
            turns[-1] += self._turn(id, after[len(before) :], learned=message.get("weight", 1) != 0)
            written = after
        learned = [segments for segments in turns if _is_learned(segments)]
        if not learned:
            raise DataError(f"row {id!r} has no assistant message to learn.", next_step=NOTHING)
        names = [id if number == 1 else f"{id}#{number}" for number in range(1, len(learned) + 1)]
        return [_build_episode(*each) for each in zip(names, learned, strict=True)]

    def _check_turn(
        self, id: str, at: int, message: Mapping[str, Any], before: str, after: str
    ) -> None:
        if not after.startswith(before):
            raise DataError(
                f"row {id!r}: the chat template writes message {at + 1} differently from how it is"
                " generated.",
                next_step="If thinking is the cause, set thinking = 'drop'. Or use another model.",
            )
        if not message.get("content") and not message.get("tool_calls"):
            raise DataError(f"row {id!r}: assistant message {at + 1} is empty.", next_step=NOTHING)

    def _turn(self, id: str, text: str, learned: bool) -> list[Segment]:
        """Return an assistant turn: learned through its last end-of-turn id.

        What the template writes after that id is given.
        """
        tokens = self.encode(text)
        ends = [i for i, token in enumerate(tokens) if token in self.stop_ids]
        if not ends or ends[-1] == 0:
            raise DataError(
                f"row {id!r}: the template does not end the assistant's turn with any of the ids"
                f" {self.stop_ids}.",
                next_step="Add the id that ends a turn to eos_token_id in generation_config.json.",
            )
        cut = ends[-1] + 1
        return [Segment(tokens[:cut], sampled=learned), Segment(tokens[cut:], sampled=False)]

    def _harmless(self, value: Any) -> Any:
        """Return `value` with the special tokens in its texts broken up.

        So no document or tool can end its own turn.
        """
        if isinstance(value, str):
            for token in self.special:
                value = value.replace(token, f"{token[:1]} {token[1:]}")
            return value
        if isinstance(value, Mapping):
            return {key: self._harmless(each) for key, each in value.items()}
        return (
            [self._harmless(each) for each in value] if isinstance(value, list | tuple) else value
        )

    def _render(self, id: str, messages: Messages, tools: Tools, generate: bool) -> str:
        asked = [self._harmless(with_argument_objects(id, message)) for message in messages]
        if asked and asked[0].get("role") in INSTRUCTING and self.no_system:
            asked = system_in_front(asked)
        try:
            return self._write(
                asked, None if tools is None else self._harmless(list(tools)), generate
            )
        except Exception as error:  # a template can raise anything
            raise self._unrendered(id, error) from error

    def _tried(self, *messages: Mapping[str, Any]) -> str:
        """Return what the template writes; nothing where it refuses."""
        try:
            return self._write(messages, None, generate=True)
        except Exception:
            return ""

    def _write(self, messages: Messages, tools: Tools, generate: bool) -> str:
        text: str = self.tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=generate
        )
        return text

    def _unrendered(self, id: str, error: Exception) -> ModelError:
        from jinja2.exceptions import SecurityError

        row = f"row {id!r}: " if id else ""
        if isinstance(error, SecurityError):
            what = f"{row}the chat template tried something forbidden: {error}"
            return ModelError(
                what, where=self.template, next_step="Do not trust this model; use another."
            )
        what = f"{row}the chat template cannot render the messages: {type(error).__name__}: {error}"
        step = "Use the roles and the order that the template accepts, or another model."
        return ModelError(what, where=self.template, next_step=step)


INSTRUCT = "Use an instruct model, or write its template to chat_template.jinja."
NOTHING = "Remove the row, or add an answer to learn."


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


def _template(folder: Path) -> str:
    """Return the place of the template that transformers uses."""
    file = folder / "chat_template.jinja"
    return (
        str(file)
        if file.is_file()
        else f"{folder / 'tokenizer_config.json'}, field 'chat_template'"
    )


def _is_learned(segments: Sequence[Segment]) -> bool:
    return any(segment.sampled for segment in segments)


def _build_episode(name: str, segments: Sequence[Segment]) -> Episode:
    """Return an episode of the segments that have tokens."""
    return Episode(name, tuple(segment for segment in segments if segment.tokens))
