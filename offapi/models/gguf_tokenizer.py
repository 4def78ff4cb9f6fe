"""Tokenizer, chat template and end-of-turn ids from a GGUF file's metadata, without torch.

Left out: every tokenizer but byte-level BPE and SentencePiece's BPE with bytes, and every way of
splitting text that is not in `SPLITS`: a wrong split gives other tokens without an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from offapi.errors import ModelError
from offapi.models import gguf_sentencepiece

CONTROL, USER_DEFINED = 3, 4  # llama.cpp's token types
MAX_TEMPLATE = 100_000  # characters

# Split expressions of the models' own tokenizer.json;
# "" stands for GPT-2's, which ByteLevel has built in.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
LLAMA3 = QWEN2.replace(r"|\p{N}| ", r"|\p{N}{1,3}| ")
UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
WORDS = (rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}*{LOWER}+", rf"[^\r\n\p{{L}}\p{{N}}]?{UPPER}+{LOWER}*")
SIGNS = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEKKEN = rf"{WORDS[0]}|{WORDS[1]}|\p{{N}}{SIGNS}"
SHORT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
GPT4O = rf"{WORDS[0]}{SHORT}|{WORDS[1]}{SHORT}|\p{{N}}{{1,3}}{SIGNS}"
SPLITS = {
    "gpt-2": "",
    "smollm": "",
    "qwen2": QWEN2,
    "deepseek-r1-qwen": QWEN2,
    "llama-bpe": LLAMA3,
    "smaug-bpe": LLAMA3,
    "dbrx": LLAMA3,
    "tekken": TEKKEN,
    "gpt-4o": GPT4O,
    "refact": "",
}
DIGITS_APART = ("smollm", "refact")
WHOLE_WORDS = (
    "llama-bpe",
    "tekken",
)  # a word that is a token is taken whole, whatever the merges say

# Control tokens that end a turn, where the template writes them.
TURN_ENDS = (
    "<|im_end|>",
    "<|eot_id|>",
    "<|end|>",
    "<|eom_id|>",
    "<end_of_turn>",
    "<|end_of_turn|>",
    "<|endoftext|>",
)


def tokenizer_files(fields: Mapping[str, Any], where: str) -> dict[str, bytes]:
    """Return file name -> content of tokenizer, template and generation config.

    Raise ModelError for what is not supported.
    """
    template = fields.get("tokenizer.chat_template")
    if template is not None and (not isinstance(template, str) or len(template) > MAX_TEMPLATE):
        raise ModelError(
            f"the chat template must be text of at most {MAX_TEMPLATE} characters.",
            where=where,
            next_step="Take the model from somewhere you trust.",
        )
    tokens = fields.get("tokenizer.ggml.tokens", [])
    special = {name: _token(fields, key, tokens, where) for name, key in _SPECIAL.items()}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": _context(fields),
        "clean_up_tokenization_spaces": False,
        "add_bos_token": bool(fields.get("tokenizer.ggml.add_bos_token", False)),
        "add_eos_token": False,
    } | {name: token for name, token in special.items() if token is not None}
    files = {
        "tokenizer.json": _tokenizer(fields, where).encode(),
        "tokenizer_config.json": orjson.dumps(config, option=orjson.OPT_INDENT_2),
        "generation_config.json": orjson.dumps(
            _generation(fields, tokens, template or ""), option=orjson.OPT_INDENT_2
        ),
    }
    return files | ({"chat_template.jinja": template.encode()} if template else {})


_SPECIAL = {
    "bos_token": "tokenizer.ggml.bos_token_id",
    "eos_token": "tokenizer.ggml.eos_token_id",
    "unk_token": "tokenizer.ggml.unknown_token_id",
    "pad_token": "tokenizer.ggml.padding_token_id",
}


def turn_end_ids(fields: Mapping[str, Any], tokens: list[str], template: str) -> list[int]:
    """Return the ids that end a turn.

    These are the file's eos, eot and eom, and known end-of-turn tokens that the template writes.
    """
    ids = [fields.get(f"tokenizer.ggml.{name}_token_id") for name in ("eos", "eot", "eom")]
    kinds = fields.get("tokenizer.ggml.token_type", [])
    index = {token: i for i, token in enumerate(tokens) if i < len(kinds) and kinds[i] == CONTROL}
    ids += [index[token] for token in TURN_ENDS if token in template and token in index]
    return list(dict.fromkeys(i for i in ids if isinstance(i, int)))


def _generation(fields: Mapping[str, Any], tokens: list[str], template: str) -> dict[str, Any]:
    config: dict[str, Any] = {"eos_token_id": turn_end_ids(fields, tokens, template)}
    for name, key in (("bos_token_id", "bos"), ("pad_token_id", "padding")):
        if (value := fields.get(f"tokenizer.ggml.{key}_token_id")) is not None:
            config[name] = value
    return config


def _token(fields: Mapping[str, Any], key: str, tokens: list[str], where: str) -> str | None:
    index = fields.get(key)
    if index is None:
        return None
    if not isinstance(index, int) or not 0 <= index < len(tokens):
        raise ModelError(
            f"{key} is {index!r}, outside the vocabulary.",
            where=where,
            next_step="The file is damaged; copy it again.",
        )
    return tokens[index]


def _context(fields: Mapping[str, Any]) -> int:
    return int(fields.get(f"{fields['general.architecture']}.context_length", 2048))


def _tokenizer(fields: Mapping[str, Any], where: str) -> str:
    """Return tokenizer.json as text."""
    from tokenizers import AddedToken, processors

    kind, pre = fields.get("tokenizer.ggml.model"), fields.get("tokenizer.ggml.pre")
    if kind != "llama" and (kind != "gpt2" or pre not in SPLITS):
        raise ModelError(
            f"tokenizer {kind!r} with splitting {pre!r} is not supported (SentencePiece's, and"
            f" byte-level BPE with {', '.join(SPLITS)}, are).",
            where=where,
            next_step=(
                "Add the model from its safetensors folder instead, which has a tokenizer.json."
            ),
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise ModelError(
            "the vocabulary names a token twice.",
            where=where,
            next_step="The file is damaged; copy it again.",
        )
    tokenizer = (
        gguf_sentencepiece.sentencepiece(fields, vocab)
        if kind == "llama"
        else _byte_level(fields, vocab, str(pre))
    )
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    for token, type_ in zip(tokens, kinds, strict=True):
        if type_ == CONTROL:
            tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True)])
        elif type_ == USER_DEFINED:
            tokenizer.add_tokens([AddedToken(token, normalized=False, special=False)])
    bos = _token(fields, "tokenizer.ggml.bos_token_id", tokens, where)
    if fields.get("tokenizer.ggml.add_bos_token") and bos is not None:
        pair = (bos, vocab[bos])
        tokenizer.post_processor = processors.TemplateProcessing(
            f"{bos} $A", f"{bos} $A {bos} $B", [pair]
        )
    return str(tokenizer.to_str())


def _byte_level(fields: Mapping[str, Any], vocab: Mapping[str, int], pre: str) -> Any:
    from tokenizers import Tokenizer, decoders, models

    merges = [tuple(merge.split(" ", 1)) for merge in fields["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE(dict(vocab), merges, ignore_merges=pre in WHOLE_WORDS))
    set_split(tokenizer, pre)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def set_split(tokenizer: Any, pre: str) -> None:
    """Set how text is split before the merges, as in the models' own tokenizer.json files."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=not SPLITS[pre])
    if pre == "gpt-2":
        tokenizer.pre_tokenizer = byte_level
        return
    first = (
        pre_tokenizers.Digits(individual_digits=True)
        if pre in DIGITS_APART
        else pre_tokenizers.Split(Regex(SPLITS[pre]), behavior="isolated")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([first, byte_level])
    if SPLITS[pre] is QWEN2:
        tokenizer.normalizer = normalizers.NFC()
