"""SentencePiece's BPE with bytes (Llama 2, Mistral, Gemma, Phi 3) from a GGUF file's metadata.

The file has a score for each piece; tokenizers wants merges in their order. As in transformers'
conversion: a piece can be made of any two that are pieces, and a piece of a higher score is made
first. Left out: unigram models, which llama.cpp names otherwise.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

SPACE = "\u2581"
NORMAL, UNKNOWN, UNUSED = 1, 2, 5  # llama.cpp's token types
MADE = (NORMAL, UNUSED)  # what merges make; Gemma's unused pieces are steps on the way to others


def sentencepiece(fields: Mapping[str, Any], vocab: Mapping[str, int]) -> Any:
    """Return the tokenizer, without its special tokens."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    kinds: list[int] = fields["tokenizer.ggml.token_type"]
    unknown = [token for token, kind in zip(tokens, kinds, strict=True) if kind == UNKNOWN]
    tokenizer = Tokenizer(
        models.BPE(
            dict(vocab),
            merges_of(tokens, fields["tokenizer.ggml.scores"], kinds),
            unk_token=unknown[0] if unknown else None,
            fuse_unk=True,
            byte_fallback=True,
        )
    )
    prefixed = bool(fields.get("tokenizer.ggml.add_space_prefix", True))
    spaces = normalizers.Replace(" ", SPACE)
    tokenizer.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE), spaces]) if prefixed else spaces
    )
    steps = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence(
        [*steps, decoders.Strip(" ", 1, 0)] if prefixed else steps
    )
    return tokenizer


def merges_of(
    tokens: Sequence[str], scores: Sequence[float], kinds: Sequence[int]
) -> list[tuple[str, str]]:
    """Return all merges, those of the highest score first, as SentencePiece takes them."""
    each = zip(tokens, scores, kinds, strict=True)
    made = {token: score for token, score, kind in each if kind in MADE}
    places = {token: i for i, token in enumerate(tokens) if token in made}
    merges: list[tuple[float, int, int, int, int]] = []
    for token, score in made.items():
        for cut in range(1, len(token)):
            left, right = places.get(token[:cut]), places.get(token[cut:])
            if left is not None and right is not None:
                merges.append((-score, -cut, -(len(token) - cut), left, right))
    return [(tokens[left], tokens[right]) for *_, left, right in sorted(merges)]
