"""Messages to tokens and completion masks: the only place where text becomes tokens.

The text is written by the model's own chat template. Each assistant turn is encoded separately from
what precedes it, because it is generated that way: prompt tokens first, then one at a time. A
template is a program of the model's author: whatever it raises is a ModelError. Left out: content
that is not text, and stopping a template that never ends (see `offapi.chat.template_probe`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from offapi.chat.channels import MARKS, with_tags
from offapi.chat.learned_turns import ANOTHER, LearnedChat, Thinking, row
from offapi.chat.messages import (
    INSTRUCTING,
    SPELLINGS,
    system_in_front,
    with_argument_objects,
)
from offapi.chat.plain_tools import in_plain_text
from offapi.chat.template_options import (
    CLOCK,
    HISTORY,
    Options,
    check_options,
    given_variables,
    settings_of,
    variables,
    with_date,
)
from offapi.chat.tokenizer import ADD, load_tokenizer, panics_refused, stop_ids
from offapi.chat.tool_trials import ToolHabits, habits_of, writes_calls, writes_tools
from offapi.chat.written import unwritten_tool
from offapi.episodes import Episode
from offapi.errors import DataError, ModelError
from offapi.text.thinking import is_thinking_tag, opening_at_end, with_opening

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]] | None

TAIL = 16  # last tokens of a prompt, among which a tag that begins thinking stands
SYSTEM, USER = {"role": "system", "content": "Be brief."}, {"role": "user", "content": "2 + 2?"}
ASSISTANT = {"role": "assistant", "content": "4"}
IN_FRONT = (
    "The model's chat template has no system role: the instructions are put before the first user"
    " message."
)


@dataclass(frozen=True)
class Chat:
    """A model's tokenizer and template.

    `stop_ids` are all ids that end a turn: generation stops at the first of them, and a turn is
    learned through it. `options` are what the template is given besides the messages.
    """

    tokenizer: Any
    stop_ids: tuple[int, ...]
    special: tuple[str, ...] = ()  # texts that the tokenizer reads as one special token
    template: str = ""  # where the template is, for errors
    options: Options = field(default_factory=dict, hash=False)

    @classmethod
    def load(
        cls, folder: Path, options: Options | None = None, recorded: Options | None = None
    ) -> Chat:
        """Return the chat of the model in `folder`, whose template is given `options`.

        It gets those of `recorded` too that it reads: a run's own, or another model's. Raise
        ModelError without a tokenizer, a template or end-of-turn ids, and ConfigError for an
        option that the template never reads.
        """
        tokenizer = load_tokenizer(folder)
        if not tokenizer.chat_template:
            raise ModelError(
                "the model has no chat template.", where=_template(folder), next_step=INSTRUCT
            )
        stops = stop_ids(folder) | ({tokenizer.eos_token_id} - {None})
        if not stops:
            raise ModelError(
                "the model's files name no eos_token_id.",
                where=str(folder),
                next_step=ADD,
            )
        special = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
        chat = cls(tokenizer, tuple(sorted(stops)), tuple(sorted(special)), _template(folder))
        if recorded:
            known = (*settings_of(chat.reads), CLOCK, HISTORY)
            options = {**{k: v for k, v in recorded.items() if k in known}, **(options or {})}
        return chat.with_options(options) if options else chat

    def with_options(self, options: Options) -> Chat:
        """Return this chat with these options. Raise ConfigError for one that is never read."""
        check_options(options, self.reads, self.template)
        return replace(self, options=dict(options))

    @cached_property
    def reads(self) -> frozenset[str]:
        """The variables that the template reads."""
        return variables(self.tokenizer.chat_template)

    @cached_property
    def special_ids(self) -> Mapping[int, str]:
        """The special tokens by id."""
        tokens = self.tokenizer.added_tokens_decoder.items()
        return {i: str(token) for i, token in tokens if token.special}

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
        self.render("", (SYSTEM, USER, ASSISTANT), None, generate=False)
        self.prompt((SYSTEM, USER))

    def prompt(self, messages: Messages, tools: Tools = None, id: str = "") -> tuple[int, ...]:
        """Return the token ids of `messages` up to where the assistant begins to write.

        `id` names them in errors. An agent's earlier turns are as they were generated, unless its
        history is split.
        """
        if self.appends(messages, tools):
            with suppress(
                DataError, ModelError
            ):  # where a turn cannot be written as it is generated
                if prompt := LearnedChat(self, id, messages, tools, None).prompt():
                    return prompt
        return self.encode(self.render(id, messages, tools, generate=True))

    def appends(self, messages: Messages, tools: Tools) -> bool:
        """Return whether turns stay as they were generated when later ones follow: an agent's do.

        Other chats, and an agent's with the option `history = "split"`, are as the template
        rewrites them.
        """
        acts = tools or any(message.get("tool_calls") for message in messages)
        return bool(acts) and self.options.get(HISTORY) != "split"

    def say_history(self) -> str:
        """Return what becomes of an agent's earlier turns; "" where the template keeps them."""
        chosen = str(self.options.get(HISTORY, "append"))
        return HISTORIES_SAID[chosen] if self.tool_habits.rewrites else ""

    def encode(self, text: str) -> tuple[int, ...]:
        """Return the token ids of `text`; special tokens in it are recognised, none are added."""
        with panics_refused(self.template):
            return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def decode(self, tokens: Sequence[int]) -> str:
        """Return the text of a completion, without special tokens, but with tags of thinking."""
        texts: list[str] = []
        begin, tags = 0, self._tags
        for at, token in enumerate(tokens) if tags else ():
            if token in tags:
                texts += [self._decoded(tokens[begin:at], bare=True), tags[token]]
                begin = at + 1
        return "".join([*texts, self._decoded(tokens[begin:], bare=True)])

    def text_of(self, tokens: Sequence[int]) -> str:
        """Return the text of any tokens, special ones included."""
        return self._decoded(tokens, bare=False)

    def answer_text(self, prompt: Sequence[int], tokens: Sequence[int]) -> str:
        """Return a completion of `prompt` as text, to be read as an answer.

        Thinking that the prompt has begun has its opening tag, as if the model had written it.
        """
        text = self.text_of(tokens) if self._channels else ""
        if any(mark in text for mark in self._channels):
            return with_tags(text, self.special)
        return with_opening(self.decode(tokens), self.opening(prompt))

    def opening(self, prompt: Sequence[int]) -> str:
        """Return the tag with which `prompt` begins the answer's thinking; "" where it does not."""
        return opening_at_end(self.text_of(prompt[-TAIL:]))

    @cached_property
    def _channels(self) -> tuple[str, ...]:
        return tuple(mark for mark in MARKS if mark in self.special)

    @cached_property
    def _tags(self) -> Mapping[int, str]:
        return {i: text for i, text in self.special_ids.items() if is_thinking_tag(text)}

    def _decoded(self, tokens: Sequence[int], *, bare: bool) -> str:
        with panics_refused(self.template):
            text: str = self.tokenizer.decode(
                list(tokens), skip_special_tokens=bare, clean_up_tokenization_spaces=False
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
        self, id: str, messages: Messages, tools: Tools = None, thinking: Thinking | None = None
    ) -> list[Episode]:
        """Return `messages` as episodes that learn every assistant turn except those of weight 0.

        A turn is learned through the first id that ends it. There is one episode, unless the
        template rewrites earlier turns (most drop old thinking): each turn is then learned in the
        context in which it is generated, in its own episode, `ID#2` and so on. An agent's turns are
        appended instead (`appends`). `thinking` is the recipe's key; without one, it is kept.

        Raise DataError, naming `id`, when no assistant turn has text or a tool call to learn, or
        when the template writes a turn differently from how it is generated, without its calls or
        without its thinking.
        """
        return LearnedChat(self, id, messages, tools, thinking).episodes()

    def harmless(self, value: Any) -> Any:
        """Return `value` with the special tokens in its texts broken up.

        So no document or tool can end its own turn.
        """
        if isinstance(value, str):
            for token in self.special:
                value = value.replace(token, f"{token[:1]} {token[1:]}")
            return value
        if isinstance(value, Mapping):
            return {key: self.harmless(each) for key, each in value.items()}
        return [self.harmless(each) for each in value] if isinstance(value, list | tuple) else value

    def render(self, id: str, messages: Messages, tools: Tools, *, generate: bool) -> str:
        """Return the text of a chat, to where the assistant is to write with `generate`.

        Where the template writes no tools, they stand in plain text (`offapi.chat.plain_tools`).
        Raise ModelError, naming `id`, where the template cannot.
        """
        if self.plain_tools(messages, tools):
            return self._rendered(id, messages, tools, generate, with_argument_objects, plain=True)
        return self.templated(id, messages, tools, generate=generate)

    def templated(self, id: str, messages: Messages, tools: Tools, *, generate: bool) -> str:
        """Return what `render` does, with tools as the template writes them, or as it fails to.

        Raise ModelError where the template cannot, and DataError where it leaves out the tools.
        """
        calls = any(message.get("tool_calls") for message in messages)
        for spelled in SPELLINGS if calls else ():
            with suppress(ModelError):
                return self._rendered(id, messages, tools, generate, spelled)
        return self._rendered(id, messages, tools, generate, with_argument_objects)

    def plain_tools(self, messages: Messages, tools: Tools) -> bool:
        """Return whether tools and calls of `messages` are written in plain text.

        So it is where the template writes no tools, and without tools where it writes no calls.
        """
        if tools:
            return not self.writes_tools
        acted = any(each.get("tool_calls") or each.get("role") == "tool" for each in messages)
        return acted and not self.writes_tools and not writes_calls(self)

    @cached_property
    def writes_tools(self) -> bool:
        """Whether the template writes the tools that it is given."""
        return writes_tools(self)

    @cached_property
    def tool_habits(self) -> ToolHabits:
        """What the template does with calls of tools, tried once."""
        return habits_of(self)

    def _rendered(
        self,
        id: str,
        messages: Messages,
        tools: Tools,
        generate: bool,
        spelled: Spelled,
        plain: bool = False,
    ) -> str:
        asked = [self.harmless(spelled(id, message)) for message in messages]
        harmless = None if tools is None else self.harmless(list(tools))
        if plain:
            asked, harmless = in_plain_text(asked, harmless), None
        if asked and asked[0].get("role") in INSTRUCTING and self.no_system:
            asked = system_in_front(asked)
        try:
            text = self._write(asked, harmless, generate)
        except Exception as error:  # a template can raise anything
            raise self._unrendered(id, error) from error
        if generate and harmless and (name := unwritten_tool(harmless, text)):
            what = f"{row(id)}the chat template does not write the tools, such as {name!r}."
            raise DataError(what, where=self.template, next_step=ANOTHER)
        return text

    def _tried(self, *messages: Mapping[str, Any]) -> str:
        """Return what the template writes; nothing where it refuses."""
        try:
            return self._write(messages, None, generate=True)
        except Exception:
            return ""

    def _write(self, messages: Messages, tools: Tools, generate: bool) -> str:
        template = self.tokenizer.get_chat_template(None, tools)
        text: str = self.tokenizer.apply_chat_template(
            list(messages),
            tools=tools,
            chat_template=with_date(template, self.options),
            tokenize=False,
            add_generation_prompt=generate,
            **given_variables(self.options),
        )
        return text

    def _unrendered(self, id: str, error: Exception) -> ModelError:
        from jinja2.exceptions import SecurityError

        if isinstance(error, SecurityError):
            what = f"{row(id)}the chat template tried something forbidden: {error}"
            return ModelError(
                what, where=self.template, next_step="Do not trust this model; use another."
            )
        what = f"{row(id)}the chat template cannot render the messages: {type(error).__name__}:"
        what += f" {error}"
        step = "Use the roles and the order that the template accepts, or another model."
        return ModelError(what, where=self.template, next_step=step)


HISTORIES_SAID = {
    "append": "An agent's earlier turns, which the chat template would rewrite, stay as they were"
    " generated (template.history).",
    "split": "An agent's turns are learned in an episode each, as the chat template rewrites them"
    " (template.history).",
}
INSTRUCT = "Use an instruct model, or write its template to chat_template.jinja."
Spelled = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


def _template(folder: Path) -> str:
    """Return the place of the template that transformers uses."""
    file = folder / "chat_template.jinja"
    return (
        str(file)
        if file.is_file()
        else f"{folder / 'tokenizer_config.json'}, field 'chat_template'"
    )
