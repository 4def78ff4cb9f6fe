"""No id of a tokenizer, and no id that ends a turn, may lie beyond the rows of the embedding.

MLX reads memory beyond the table without a word; torch fails with an index error. Left out: ids
that transformers gives to new tokens while it loads a tokenizer; `Chat.load` compares those.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from offapi.errors import ModelError
from offapi.models.settings_files import read_object
from offapi.text.display import plural

EMBEDDING = "model.embed_tokens.weight"


def check_token_ids(folder: Path, rows: int) -> None:
    """Raise ModelError for a token id in the files of `folder` that is not below `rows`."""
    for path, name, number in _ids(folder):
        if type(number) is not int or not 0 <= number < rows:
            raise ModelError(
                f"token {name!r} has the id {number!r}, but the model's embedding has"
                f" {plural(rows, 'row')}.",
                where=str(path),
                next_step=(
                    "Copy tokenizer and weights of the same model, or resize its embedding"
                    " (transformers: `model.resize_token_embeddings`)."
                ),
            )


def _ids(folder: Path) -> Iterator[tuple[Path, str, Any]]:
    """Yield every id that a file of `folder` gives to a token: file, token, id."""
    path = folder / "tokenizer.json"
    content = read_object(path)
    model = content.get("model")
    vocabulary = model.get("vocab") if isinstance(model, dict) else None
    if isinstance(vocabulary, dict):
        yield from ((path, token, number) for token, number in vocabulary.items())
    elif isinstance(vocabulary, list) and vocabulary:  # unigram: the place is the id
        yield path, str(vocabulary[-1]), len(vocabulary) - 1
    added = content.get("added_tokens")
    for token in added if isinstance(added, list) else ():
        if isinstance(token, dict):
            yield path, str(token.get("content")), token.get("id")
    path = folder / "added_tokens.json"
    yield from ((path, token, number) for token, number in read_object(path).items())
    path = folder / "tokenizer_config.json"
    decoder = read_object(path).get("added_tokens_decoder")
    for number, token in decoder.items() if isinstance(decoder, dict) else ():
        yield path, str(token), int(number) if number.isdecimal() else number
    yield from _stops(folder / "generation_config.json")


def _stops(path: Path) -> Iterator[tuple[Path, str, Any]]:
    stops = read_object(path).get("eos_token_id")
    for number in stops if isinstance(stops, list) else [stops]:
        if number is not None:
            yield path, "eos_token_id", number
