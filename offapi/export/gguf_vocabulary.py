"""A GGUF file's metadata about text: tokens, merges or scores, how text is split, special ids.

llama.cpp knows splits by name only. The name is found by splitting a probe text with the model's
tokenizer and with each known split; a wrong name gives other tokens without an error. Left out:
every tokenizer but byte-level BPE and BPE with byte fallback (Llama 2, Mistral). llama.cpp does not
bring letters and accents together (NFC), which Qwen's tokenizer does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from offapi.chat.chat import Chat
from offapi.errors import ModelError
from offapi.models import gguf_tokenizer

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6  # llama.cpp's token types
# What the known splits disagree on: contractions, digits, spaces, line ends, signs, scripts.
PROBE = (
    "It's WE'LL don't 1 12 123 1234567 3.14  two   three\t\ttabs\n\n\nlines \r\n x=y+z; (a)[b]{c}"
    " ...!? élan ÀÉ straße 北京 привет ٣٤ 🙂🙂 a_b #tag @me https://x.org/?q=1&r=2 $5,000.00 €7 \n "
)
ENDS = ("eos", "eot", "eom")  # the ids that a file can name as ends of a turn
SPACE = "▁"
Fields = dict[str, Any]


def vocabulary_fields(chat: Chat, rows: int, where: str) -> Fields:
    """Return key -> value of the metadata about text, for an embedding of that many rows.

    Raise ModelError for a tokenizer that llama.cpp does not have.
    """
    content = orjson.loads(chat.tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model.get("type") != "BPE":
        raise _refused(f"a tokenizer of the kind {model.get('type')}", where)
    tokens, types = _tokens(content, rows)
    if model.get("byte_fallback"):
        kind = _sentencepiece(chat, model, tokens, types, where)
    else:
        kind = _byte_level(chat, model, where)
    return {
        **kind,
        "ggml.tokens": tokens,
        "ggml.token_type": types,
        **_special_ids(chat, where),
        "chat_template": chat_template(chat),
    }


def chat_template(chat: Chat) -> str:
    """Return the model's template; one without a system role gets the rule that offapi trains by.

    An application sends instructions, and such a template would refuse them or drop them.
    """
    template = str(chat.tokenizer.chat_template)
    return IN_FRONT + template if chat.no_system else template


IN_FRONT = (
    "{%- if messages[0]['role'] == 'system' and messages | length > 1 -%}{%- set messages ="
    " [{'role': 'user', 'content': messages[0]['content'] + '\\n\\n' + messages[1]['content']}] +"
    " messages[2:] -%}{%- endif -%}"
)


def _tokens(content: Mapping[str, Any], rows: int) -> tuple[list[str], list[int]]:
    """Return text and type of every row of the embedding; rows without a token are unused."""
    tokens = [f"[PAD{i}]" for i in range(rows)]
    types = [UNUSED] * rows
    for token, i in content["model"]["vocab"].items():
        if i < rows:
            tokens[i], types[i] = token, NORMAL
    for added in content["added_tokens"]:
        if (i := added["id"]) < rows:
            tokens[i] = added["content"]
            types[i] = CONTROL if added["special"] else USER_DEFINED
    return tokens, types


def _byte_level(chat: Chat, model: Mapping[str, Any], where: str) -> Fields:
    merges = [
        merge if isinstance(merge, str) else " ".join(merge) for merge in model.get("merges", [])
    ]
    return {
        "ggml.model": "gpt2",
        "ggml.pre": find_split(chat.tokenizer.backend_tokenizer, model, where),
        "ggml.merges": merges,
    }


def find_split(tokenizer: Any, model: Mapping[str, Any], where: str) -> str:
    """Return llama.cpp's name of how `tokenizer` splits text; ModelError if it has no name."""
    from tokenizers import Tokenizer, models

    whole = bool(model.get("ignore_merges"))
    normalizer, splitter = tokenizer.normalizer, tokenizer.pre_tokenizer
    text = normalizer.normalize_str(PROBE) if normalizer else PROBE
    if text == PROBE and splitter is not None:
        found = [piece for piece, _ in splitter.pre_tokenize_str(PROBE)]
        for name in gguf_tokenizer.SPLITS:
            known = Tokenizer(models.BPE())
            gguf_tokenizer.set_split(known, name)
            pieces = [piece for piece, _ in known.pre_tokenizer.pre_tokenize_str(PROBE)]
            if pieces == found and whole == (name in gguf_tokenizer.WHOLE_WORDS):
                return name
    known_names = ", ".join(gguf_tokenizer.SPLITS)
    raise _refused(f"a tokenizer that splits text otherwise than {known_names}", where)


def _sentencepiece(
    chat: Chat, model: Mapping[str, Any], tokens: Sequence[str], types: list[int], where: str
) -> Fields:
    """Return the fields of a tokenizer with byte fallback; name bytes and unknown in `types`.

    llama.cpp merges by score what tokenizers merges by rank: a token's score is the negative rank
    of the first merge that makes it.
    """
    for i, token in enumerate(tokens):
        if types[i] == NORMAL and len(token) == 6 and token.startswith("<0x"):
            types[i] = BYTE
        if token == model.get("unk_token"):
            types[i] = UNKNOWN
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(model.get("merges", [])):
        pair = merge.split(" ", 1) if isinstance(merge, str) else merge
        ranks.setdefault("".join(pair), rank)
    if BYTE not in types:
        raise _refused("a tokenizer with byte fallback but without bytes", where)
    return {
        "ggml.model": "llama",
        "ggml.pre": "default",
        "ggml.scores": [-float(ranks.get(token, 0)) for token in tokens],
        "ggml.add_space_prefix": _prefixes_space(chat),
    }


def _prefixes_space(chat: Chat) -> bool:
    """Return whether text after a special token, as in every chat, begins with a space."""
    mark = chat.special[0] if chat.special else ""
    pieces = chat.tokenizer.convert_ids_to_tokens(list(chat.encode(f"{mark}hi")))
    return bool(pieces[1 if mark else 0].startswith(SPACE))


def _special_ids(chat: Chat, where: str) -> Fields:
    tokenizer = chat.tokenizer
    ids = {
        "bos": tokenizer.bos_token_id,
        "unknown": tokenizer.unk_token_id,
        "padding": tokenizer.pad_token_id,
        **dict(zip(ENDS, end_ids(chat, where), strict=False)),
    }
    fields: Fields = {
        f"ggml.{name}_token_id": number for name, number in ids.items() if number is not None
    }
    return fields | {"ggml.add_bos_token": adds_bos(chat), "ggml.add_eos_token": False}


def end_ids(chat: Chat, where: str) -> tuple[int, ...]:
    """Return the ids that end a turn, the one that the chat template writes first.

    Raise ModelError when there are more than a file can name.
    """
    if len(chat.stop_ids) > len(ENDS):
        raise _refused(f"{len(chat.stop_ids)} ids that end a turn (a file names 3)", where)
    episode = chat.episode("probe", [{"role": "user", "content": "a"}, _ANSWER])
    written = next(each.tokens[-1] for each in reversed(episode.segments) if each.sampled)
    return (written, *(i for i in chat.stop_ids if i != written))


_ANSWER = {"role": "assistant", "content": "b"}


def adds_bos(chat: Chat) -> bool:
    """Return whether runtimes write the beginning-of-text token before each prompt.

    They do where the tokenizer does, unless the chats trained on begin without it.
    """
    bos = chat.tokenizer.bos_token_id
    prompt = chat.prompt([{"role": "user", "content": "a"}])
    return bos is not None and prompt[0] == bos and chat.tokenizer("a")["input_ids"][0] == bos


def _refused(what: str, where: str) -> ModelError:
    return ModelError(
        f"{what} cannot be written to GGUF.",
        where=where,
        next_step="Export it with `--to fused`, and run it with transformers or vLLM.",
    )
