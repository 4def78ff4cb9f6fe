"""A GGUF file opened by llama.cpp itself, in a process of its own, through `xllamacpp`.

It is native code that reads a file: a crash there ends the helper process alone. What is asked for
are tokens of a text, tokens of a chat by llama.cpp's own template engine, greedy tokens, logprobs
of given tokens, and answers. Left out: sampling, GPU settings and speed.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from offapi.errors import BackendError, ModelError, OffapiError
from offapi.workers.supervised import CallNote, Ended, Supervised

Tokens = Sequence[int]
Messages = Sequence[Mapping[str, Any]]
PACKAGE = "xllamacpp"
CERTAIN = 1e9  # added to a logit, so that the next token is the one wanted
LOG_END = 400  # characters of llama.cpp's log that an error quotes
NOT_OPENED = "Do not use the file. Export it again; if it fails again, use `--to fused`."


@dataclass(frozen=True)
class Written:
    """Tokens that llama.cpp wrote or was made to write, and their logprobs in nats.

    `likeliest`: what it would have written in place of each.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    likeliest: tuple[int, ...]


@dataclass(frozen=True)
class Answer:
    """The text of an answer, and the number of tokens of the prompt it answers."""

    text: str
    prompt_tokens: int


def check_installed() -> None:
    """Raise BackendError where `xllamacpp` is missing: nothing could be checked."""
    if find_spec(PACKAGE) is None:
        raise BackendError(
            f"the package {PACKAGE} is not installed, and without it no GGUF file can be opened"
            " again and compared.",
            next_step="Install it: pip install 'offapi-kit[gguf]'",
        )


class LlamaCpp:
    """A file that llama.cpp has open, with room for `context` tokens. Use it in a `with` block."""

    def __init__(self, path: Path, context: int) -> None:
        """Raise BackendError without `xllamacpp`."""
        check_installed()
        self._path = path
        self._logs = TemporaryDirectory(prefix="offapi-llama-")
        self._log = Path(self._logs.name) / "log"
        self._process: Supervised[Any, Any] = Supervised(_open, (path, context, self._log))

    def __enter__(self) -> LlamaCpp:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.end()
        self._logs.cleanup()

    def tokens(self, text: str) -> tuple[int, ...]:
        """Return the tokens of `text`; special tokens in it are recognised, none are added."""
        return tuple(self._ask("tokens", text, False))

    def chat_tokens(self, messages: Messages) -> tuple[int, ...]:
        """Return the tokens of the prompt that llama.cpp makes of `messages`."""
        return tuple(self._ask("chat_tokens", list(messages)))

    def greedy(self, prompt: Tokens, count: int) -> Written:
        """Return up to `count` greedy tokens after `prompt`; the one that ends a turn included."""
        return Written(*self._ask("greedy", list(prompt), count))

    def forced(self, prompt: Tokens, answer: Tokens) -> Written:
        """Return the logprobs of the tokens of `answer` after `prompt`."""
        return Written(*self._ask("forced", list(prompt), list(answer)))

    def stops_at(self, prompt: Tokens, token: int) -> bool:
        """Return whether llama.cpp ends its answer when it writes `token`."""
        return bool(self._ask("stops_at", list(prompt), token))

    def answer(self, messages: Messages, max_tokens: int) -> Answer:
        """Return the greedy answer to `messages`, as an application gets it."""
        return Answer(*self._ask("answer", list(messages), max_tokens))

    def _ask(self, *job: Any) -> Any:
        self._process.send(job)
        reply = self._process.take()
        if isinstance(reply, OffapiError):
            raise reply
        if isinstance(reply, Ended):
            log = self._log.read_text(errors="replace").strip() if self._log.is_file() else ""
            said = f" Its log ends: {log[-LOG_END:]}" if log else ""
            raise ModelError(
                f"llama.cpp ended with {reply.how} instead of an answer.{said}",
                where=str(self._path),
                next_step=NOT_OPENED,
            )
        return reply


def _open(settings: tuple[Path, int, Path], note: CallNote) -> Any:
    """Open the file; return the function that answers jobs. It runs in the helper process."""
    import xllamacpp

    path, context, log = settings
    with log.open("wb") as file:
        os.dup2(file.fileno(), 2)  # llama.cpp logs there; an error quotes the end
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(path)
    parameters.n_ctx = context
    parameters.n_parallel = 1
    parameters.warmup = False
    # Keys and values in f32: what differs then is the file, not the cache.
    parameters.cache_type_k = parameters.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    parameters.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    key = secrets.token_hex()
    parameters.api_keys = [key]
    try:
        opened = _Opened(xllamacpp.Server(parameters), key)
    except Exception as error:
        raise ModelError(
            f"llama.cpp cannot open the file: {error}. Its log ends:"
            f" {log.read_text(errors='replace').strip()[-LOG_END:]}",
            where=str(path),
            next_step=NOT_OPENED,
        ) from None
    return lambda job: getattr(opened, job[0])(*job[1:])


@dataclass(frozen=True)
class _Opened:
    """llama.cpp's server in this process; its methods are those of `LlamaCpp`."""

    server: Any
    key: str

    def tokens(self, text: str, begin: bool) -> list[int]:
        asked = {"content": text, "parse_special": True, "add_special": begin}
        return list(self._post("/tokenize", asked)["tokens"])

    def chat_tokens(self, messages: list[Mapping[str, Any]]) -> list[int]:
        prompt = self._post("/apply-template", {"messages": messages})["prompt"]
        return self.tokens(prompt, True)

    def greedy(self, prompt: list[int], count: int) -> tuple[Any, ...]:
        return _written(self._complete(prompt, n_predict=count)["logprobs"]["content"])

    def forced(self, prompt: list[int], answer: list[int]) -> tuple[Any, ...]:
        steps = []
        for i, token in enumerate(answer):
            wanted = [[token, CERTAIN]]
            choice = self._complete(prompt + answer[:i], n_predict=1, logit_bias=wanted)
            steps += choice["logprobs"]["content"][:1]
        return _written(steps)

    def stops_at(self, prompt: list[int], token: int) -> bool:
        choice = self._complete(prompt, n_predict=2, logit_bias=[[token, CERTAIN]])
        return bool(choice["finish_reason"] == "stop")

    def answer(self, messages: list[Mapping[str, Any]], max_tokens: int) -> tuple[str, int]:
        asked = {"messages": messages, "max_tokens": max_tokens, "temperature": 0.0}
        reply = _checked(self.server.handle_chat_completions(asked))
        return reply["choices"][0]["message"]["content"] or "", reply["usage"]["prompt_tokens"]

    def _complete(self, prompt: list[int], **settings: Any) -> Any:
        asked = {"prompt": prompt, "temperature": 0.0, "logprobs": 1} | settings
        return _checked(self.server.handle_completions(asked))["choices"][0]

    def _post(self, path: str, content: Mapping[str, Any]) -> Any:
        import httpx2

        headers = {"Authorization": f"Bearer {self.key}"}
        url = self.server.listening_address + path
        reply = httpx2.post(url, content=orjson.dumps(content), headers=headers, timeout=None)
        return _checked(reply.json())


def _written(steps: Sequence[Any]) -> tuple[Any, ...]:
    return (
        tuple(int(step["id"]) for step in steps),
        tuple(float(step["logprob"]) for step in steps),
        tuple(int(step["top_logprobs"][0]["id"]) for step in steps),
    )


def _checked(reply: Any) -> Any:
    """Return `reply`; ModelError where llama.cpp answered with an error."""
    if isinstance(reply, Mapping) and "error" not in reply:
        return reply
    error = reply.get("error") if isinstance(reply, Mapping) else reply
    said = error.get("message", error) if isinstance(error, Mapping) else error
    raise ModelError(f"llama.cpp refused a request: {said}.", next_step=NOT_OPENED)
