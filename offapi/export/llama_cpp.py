"""A GGUF file opened by llama.cpp itself, in this process, through `xllamacpp`.

It reads text with its own tokenizer and its own template engine, and both must give the tokens that
the model was trained on. Keys and values are kept in float32, so that what differs is the file.
Left out: sampling, GPU settings and speed.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import numpy as np
import orjson

from offapi.chat.chat import Chat
from offapi.episodes import Floats
from offapi.errors import BackendError, ExportError
from offapi.export.gguf_vocabulary import PROBE
from offapi.export.part import TAIL
from offapi.export.prompts import Turns
from offapi.text.display import plural

PACKAGE = "xllamacpp"
FILE = "model.gguf"
CERTAIN = 1e9  # added to a logit, so that the next token is the one wanted
EVERY = 10_000_000  # tokens; more than any vocabulary has
GREEDY = {"temperature": 0.0, "repeat_penalty": 1.0}
THREADS = "OMP_NUM_THREADS"
LEAST_ROOM = 1024  # tokens; more are reserved when a longer prompt comes
LOG_END = 400  # characters of llama.cpp's log that an error quotes
AGAIN = "Do not use the file. `--to fused` writes the same model for other runtimes."

PROBES: tuple[Turns, ...] = (
    ({"role": "user", "content": PROBE},),
    ({"role": "system", "content": "Answer briefly."}, {"role": "user", "content": PROBE}),
)

Tokens = tuple[int, ...]


def require_llama_cpp() -> None:
    """Raise BackendError where `xllamacpp` is missing: nothing could be checked."""
    if find_spec(PACKAGE) is None:
        raise BackendError(
            f"the package {PACKAGE} is not installed, and without it no GGUF file can be opened"
            " again and compared.",
            next_step="Install it: pip install 'offapi-kit[gguf]'",
        )


def open_gguf(folder: Path, base: Path) -> LlamaCpp:
    """Open the file in `folder`, and compare how it reads text with the base model's tokenizer.

    Raise BackendError without `xllamacpp`, ExportError for a file that llama.cpp cannot open, or
    whose text becomes other tokens.
    """
    require_llama_cpp()
    import_module(PACKAGE)  # before transformers: its memory allocation fails after some libraries
    chat = Chat.load(base)
    opened = LlamaCpp(folder / FILE, chat.stop_ids[0])
    opened.check_reading(chat)
    return opened


class LlamaCpp:
    """An open GGUF file, see `OpenedForm`."""

    def __init__(self, path: Path, end: int) -> None:
        """Open the file, in which the token `end` ends a turn.

        Raise ExportError for a file that llama.cpp cannot open.
        """
        self._path, self._end = path, end
        self._log = TemporaryFile()  # noqa: SIM115  # as long as this process
        sys.stderr = os.fdopen(os.dup(2), "w", buffering=1)
        os.dup2(self._log.fileno(), 2)  # llama.cpp writes its log there
        self._key = secrets.token_hex()
        self._room = 0  # tokens
        self._reserve(LEAST_ROOM)

    def check_reading(self, chat: Chat) -> None:
        """Raise ExportError where a chat becomes other tokens, or a turn's end goes unnoticed."""
        for asked in PROBES:
            wanted, found = chat.prompt(asked), self.render(asked)
            if found != wanted:
                raise self._differs(
                    "reads a chat as other tokens than the model was trained on:"
                    f" {plural(len(found), 'token')} instead of {len(wanted)}, first different at"
                    f" {_first_difference(wanted, found)}"
                )
            if (counted := self._chat_length(asked)) != len(wanted):
                raise self._differs(
                    f"makes a prompt of {plural(counted, 'token')} at its chat endpoint, the"
                    f" model's template one of {len(wanted)}"
                )
            for token in chat.stop_ids:
                if not self._stops_at(wanted, token):
                    text = chat.tokenizer.convert_ids_to_tokens(token)
                    raise self._differs(
                        f"does not end an answer at token {token} ({text!r}), which ends a turn"
                    )

    def logprobs(self, tokens: Sequence[int]) -> Floats:
        """Return the logprobs (nats) of the last tokens, up to TAIL: each takes a request."""
        self._reserve(len(tokens))
        places = range(max(1, len(tokens) - TAIL), len(tokens))
        return np.array([self._logprob(tokens[:i], tokens[i]) for i in places], np.float32)

    def greedy(self, prompt: Sequence[int], max_tokens: int, stop_ids: Sequence[int]) -> Tokens:
        """Return the likeliest tokens after `prompt`, up to where llama.cpp itself stops."""
        del stop_ids
        self._reserve(len(prompt) + max_tokens)
        asked = {"prompt": list(prompt), "n_predict": max_tokens, "return_tokens": True} | GREEDY
        return tuple(self._post("/completion", asked)["tokens"])

    def render(self, turns: Turns) -> Tokens:
        """Return the tokens of a chat by llama.cpp's own template engine and tokenizer."""
        prompt = self._post("/apply-template", {"messages": list(turns)})["prompt"]
        asked = {"content": prompt, "parse_special": True, "add_special": True}
        return tuple(self._post("/tokenize", asked)["tokens"])

    def _chat_length(self, turns: Turns) -> int:
        asked = {"messages": list(turns), "max_tokens": 1} | GREEDY
        reply = self._checked(self._server.handle_chat_completions(asked))
        return int(reply["usage"]["prompt_tokens"])

    def _stops_at(self, prompt: Sequence[int], token: int) -> bool:
        choice = self._complete(prompt, n_predict=2, logit_bias=[[token, CERTAIN]])
        return bool(choice["finish_reason"] == "stop")

    def _logprob(self, prompt: Sequence[int], token: int) -> float:
        """Return the logprob of `token` after `prompt`.

        llama.cpp says none for a token that is a part of a character: it is then looked up among
        all tokens that could stand in place of one that ends a turn.
        """
        said = self._complete(prompt, n_predict=1, logit_bias=[[token, CERTAIN]])["logprobs"]
        if said:
            return float(said["content"][0]["logprob"])
        every = {"logprobs": EVERY, "logit_bias": [[self._end, CERTAIN]]}
        steps = self._complete(prompt, n_predict=1, **every)["logprobs"]["content"]
        likely = steps[0]["top_logprobs"]
        return next(float(each["logprob"]) for each in likely if each["id"] == token)

    def _complete(self, prompt: Sequence[int], **settings: Any) -> Any:
        asked = {"prompt": list(prompt), "logprobs": 1} | GREEDY | settings
        return self._checked(self._server.handle_completions(asked))["choices"][0]

    def _post(self, path: str, content: Mapping[str, Any]) -> Any:
        import httpx2

        headers = {"Authorization": f"Bearer {self._key}"}
        url = self._server.listening_address + path
        reply = httpx2.post(url, content=orjson.dumps(content), headers=headers, timeout=None)
        return self._checked(reply.json())

    def _reserve(self, tokens: int) -> None:
        """Open the file with room for that many tokens, unless it is open with as many."""
        if tokens < self._room:
            return
        import xllamacpp

        self._room = max(LEAST_ROOM, 2 * tokens)
        parameters = xllamacpp.CommonParams()
        parameters.model.path = str(self._path)
        parameters.n_ctx, parameters.n_parallel = self._room, 1
        parameters.warmup = False
        # A request restored from a checkpoint would see other keys than its window's.
        parameters.n_ctx_checkpoints = 0
        if (threads := os.environ.get(THREADS, "")).isdecimal():  # waiting ones take their core
            parameters.cpuparams.n_threads = int(threads)
        parameters.api_keys = [self._key]
        parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
        kinds = xllamacpp.llama_flash_attn_type
        parameters.flash_attn_type = kinds.LLAMA_FLASH_ATTN_TYPE_DISABLED
        self._server: Any = None  # the one before leaves its memory first
        try:
            self._server = xllamacpp.Server(parameters)
        except Exception as error:
            raise self._failed(f"cannot open the file ({error})") from None

    def _checked(self, reply: Any) -> Any:
        """Return `reply`; ExportError where llama.cpp answered with an error."""
        if isinstance(reply, Mapping) and "error" not in reply:
            return reply
        error = reply.get("error") if isinstance(reply, Mapping) else reply
        said = error.get("message", error) if isinstance(error, Mapping) else error
        raise self._failed(f"refused a request ({said})")

    def _differs(self, how: str) -> ExportError:
        return ExportError(f"llama.cpp {how}.", where=str(self._path), next_step=AGAIN)

    def _failed(self, what: str) -> ExportError:
        self._log.seek(0)
        said = " ".join(self._log.read().decode(errors="replace").split())[-LOG_END:]
        return ExportError(
            f"llama.cpp {what}; its log ends: {said}", where=str(self._path), next_step=AGAIN
        )


def _first_difference(ours: Tokens, theirs: Tokens) -> int:
    """Return the place of the first token that differs, from 0."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    return next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
