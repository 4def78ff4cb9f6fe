"""A model's tokenizer: loaded, and compared with the rows of the model's embedding.

Tokenizers are Rust programs with regular expressions of the model's author. Where one gives up, it
raises a panic, which is no `Exception`. Left out: one that never ends (`template_probe`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from offapi.errors import ModelError
from offapi.text.display import plural

ADD = "Fix the model's files, then add it again with `offapi models add`."


def load_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in `folder`. Raise ModelError where there is no usable one.

    It is not usable where one of its tokens, those that transformers adds at load included, lies
    beyond the rows of the embedding that config.json names.
    """
    from transformers import AutoTokenizer

    try:
        with panics_refused(str(folder)):
            tokenizer: Any = AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except (MemoryError, ModelError):
        raise
    except Exception as error:  # files of the model's author can make transformers raise anything
        raise ModelError(
            f"the model has no usable tokenizer: {error}", where=str(folder), next_step=ADD
        ) from error
    _check_rows(tokenizer, folder)
    return tokenizer


def _check_rows(tokenizer: Any, folder: Path) -> None:
    """Raise ModelError for a token without a row that the folder's files name.

    transformers adds such tokens at load. It also adds those that a tokenizer's class has by
    default, which no text of the model contains; they are left alone.
    """
    rows = _read(folder / "config.json").get("vocab_size")
    if not isinstance(rows, int):
        return
    beyond = {token: i for token, i in tokenizer.get_vocab().items() if i >= rows}
    files = ("tokenizer_config.json", "special_tokens_map.json")
    texts = [orjson.dumps(_read(folder / name)) for name in files] if beyond else []
    for token, number in sorted(beyond.items(), key=lambda entry: -int(entry[1])):
        if any(orjson.dumps(token) in text for text in texts):
            raise ModelError(
                f"token {token!r} has the id {number}, but the model's embedding has"
                f" {plural(rows, 'row')}.",
                where=str(folder),
                next_step=(
                    "Remove the token from tokenizer_config.json, or resize the model's embedding"
                    " (transformers: `model.resize_token_embeddings`)."
                ),
            )


def stop_ids(folder: Path) -> set[int]:
    """Return the ids that end a turn; ModelError for anything else in their place.

    They are those of generation_config.json and, as in transformers, of config.json where there is
    no such file.
    """
    path = folder / "generation_config.json"
    if path.is_file():
        named = _read(path).get("eos_token_id")
    else:
        path = folder / "config.json"
        config = _read(path)
        text = config.get("text_config")
        inner = text.get("eos_token_id") if isinstance(text, dict) else None
        named = config.get("eos_token_id", inner)
    ids = named if isinstance(named, list) else [named]
    wrong = [each for each in ids if each is not None and type(each) is not int]
    if wrong:
        raise ModelError(
            f"eos_token_id must be a token id or a list of them, got {wrong[0]!r}.",
            where=str(path),
            next_step=ADD,
        )
    return set(ids) - {None}


def _read(path: Path) -> dict[str, Any]:
    """Return the JSON object at `path`, {} where there is no file."""
    if not path.is_file():
        return {}
    try:
        value = orjson.loads(path.read_bytes())
    except orjson.JSONDecodeError as error:
        raise ModelError(f"not valid JSON ({error}).", where=str(path), next_step=ADD) from None
    if not isinstance(value, dict):
        raise ModelError("the file must be a JSON object.", where=str(path), next_step=ADD)
    return value


@contextmanager
def panics_refused(where: str) -> Iterator[None]:
    """Turn a panic of the tokenizer's Rust code into a ModelError."""
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # pyo3 exports no class to catch
            raise
        raise ModelError(
            f"the tokenizer gave up on a text: {error}", where=where, next_step=ADD
        ) from None
