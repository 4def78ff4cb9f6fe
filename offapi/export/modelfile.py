"""A Modelfile for Ollama, which has no Jinja: its template is found by rendering the model's own.

Chats of marked texts are rendered, and what stands between the marks is what the Go template
writes. It is used only if it gives back every chat of a second set. Left out: SYSTEM, since an
application sends its own messages, and tools.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from offapi.chat.chat import Chat
from offapi.chat.messages import system_in_front
from offapi.export.gguf_vocabulary import adds_bos

FILE = "Modelfile"
MOST_CONTEXT = 8192  # tokens; Ollama reserves memory for all of them
START, END = "", "end"  # what comes before the first message, and after the last
RAW = "{{ .Prompt }}"
TURNS = (
    ("user",),
    ("system", "user"),
    ("user", "assistant", "user"),
    ("system", "user", "assistant", "user"),
    ("system", "user", "assistant", "user", "assistant", "user"),
)
PADDED = " {}\n"  # a template that trims texts writes them without the ends


@dataclass(frozen=True)
class OllamaTemplate:
    """A Go template, and what a user must know of it ("" for nothing)."""

    text: str
    note: str = ""


def write_modelfile(folder: Path, model: str, chat: Chat, config: Mapping[str, Any]) -> None:
    """Write the Modelfile for the GGUF file `model` in `folder`."""
    template = ollama_template(chat)
    context = min(int(config["max_position_embeddings"]), MOST_CONTEXT)
    stops = [chat.tokenizer.convert_ids_to_tokens(token) for token in chat.stop_ids]
    lines = [f"FROM ./{model}"]
    if template.note:
        lines.append(f"# {template.note}")
    lines.append(f'TEMPLATE """{template.text}"""')
    lines += [f"PARAMETER stop {_quoted(stop)}" for stop in stops]
    lines += ["PARAMETER temperature 0", f"PARAMETER num_ctx {context}"]
    (folder / FILE).write_text("\n".join(lines) + "\n")


def ollama_template(chat: Chat) -> OllamaTemplate:
    """Return the Go template that writes what the model's chat template writes."""
    between = transitions(chat)
    if between is None or any('"""' in text for text in between.values()):
        return OllamaTemplate(
            RAW,
            "The model's chat template cannot be written for Ollama. Send whole prompts, rendered"
            " by the application.",
        )
    note = "" if _verbatim(chat, between) else TRIMS
    if adds_bos(chat):  # Ollama writes that token itself
        bos = str(chat.tokenizer.bos_token)
        between = {
            pair: text.removeprefix(bos) if pair[0] == START else text
            for pair, text in between.items()
        }
    return OllamaTemplate(_go(between), note)


TRIMS = (
    "The model's chat template trims the ends of texts, Ollama's cannot: send texts without spaces"
    " and line ends around them."
)
Transitions = Mapping[tuple[str, str], str]


def transitions(chat: Chat) -> Transitions | None:
    """Return what the template writes from one role to the next, None if it depends on more."""
    found: dict[tuple[str, str], str] = {}
    for roles in TURNS:
        texts = [f"Mark{i}Mark" for i in range(len(roles))]
        rest, gaps = _render(chat, roles, texts), []
        for text in texts:
            gap, mark, rest = rest.partition(text)
            if not mark:
                return None
            gaps.append(gap)
        for pair, gap in zip(pairwise((START, *roles, END)), (*gaps, rest), strict=True):
            if found.setdefault(pair, gap) != gap:
                return None
    return found


def _verbatim(chat: Chat, between: Transitions) -> bool:
    """Whether the template writes the ends of texts as they are."""
    roles = TURNS[-1]
    texts = [PADDED.format(i) for i in range(len(roles))]
    pairs = list(pairwise((START, *roles, END)))
    parts = [between[pair] + text for pair, text in zip(pairs, (*texts, ""), strict=True)]
    return "".join(parts) == _render(chat, roles, texts)


def _render(chat: Chat, roles: Sequence[str], texts: Sequence[str]) -> str:
    """Return what the template writes; nothing where it refuses."""
    asked: Sequence[Mapping[str, Any]] = [
        {"role": role, "content": text} for role, text in zip(roles, texts, strict=True)
    ]
    if chat.no_system:
        asked = system_in_front(asked)
    try:
        rendered: str = chat.tokenizer.apply_chat_template(
            list(asked), tokenize=False, add_generation_prompt=True
        )
    except Exception:  # a template can raise anything
        return ""
    return rendered


def _go(between: Transitions) -> str:
    """Return the transitions as a Go template; `$last` is the role of the message before."""
    parts = ['{{ $last := "" }}{{ range .Messages }}']
    for keyword, role in zip(
        ("if", "else if", "else if"), ("system", "user", "assistant"), strict=True
    ):
        parts.append(f'{{{{ {keyword} eq .Role "{role}" }}}}{_before(between, role)}')
        parts.append("{{ .Content }}")
    parts.append("{{ end }}{{ $last = .Role }}{{ end }}")
    parts.append(f'{{{{ if eq $last "user" }}}}{_escaped(between["user", END])}{{{{ end }}}}')
    return "".join(parts)


def _before(between: Transitions, role: str) -> str:
    """Return the template of what precedes a message of `role`."""
    known = {first: _escaped(text) for (first, second), text in between.items() if second == role}
    if len(set(known.values())) == 1:
        return next(iter(known.values()))
    parts = []
    for i, (first, text) in enumerate(known.items()):
        parts.append(f'{{{{ {"else if" if i else "if"} eq $last "{first}" }}}}{text}')
    return "".join(parts) + "{{ end }}"


def _escaped(text: str) -> str:
    return text.replace("{{", '{{ "{{" }}')


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '\\"') + '"'
