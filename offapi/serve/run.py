"""Load what is served, listen, and answer until a signal comes.

Left out: the endpoints (`offapi.serve.app`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from offapi.backend import DType, Limits, ModelSpec, load
from offapi.engine import Engine
from offapi.progress import LOADING, Progress
from offapi.serve.access import AccessRules
from offapi.serve.capture import CaptureOptions, open_capture
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.key import check_exposure, read_key
from offapi.serve.limits import ServerLimits
from offapi.serve.listen import listen_until_signal, open_address
from offapi.serve.served_models import ServedModel, ServedModels, adapters_of, read_models
from offapi.serve.server import Server
from offapi.text.display import plural


@dataclass(frozen=True)
class ServeOptions:
    """What the command asks for. `cache_bytes` bounds the prefixes kept between requests.

    `names` are names of the server besides its address, `key_file` has the key that clients need.
    """

    sources: tuple[str, ...]
    backend: str
    task_file: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8080
    names: tuple[str, ...] = ()
    key_file: Path | None = None
    dtype: DType = "auto"
    cache_bytes: int = 0
    limits: ServerLimits = ServerLimits()
    capture: CaptureOptions | None = None


def serve(options: ServeOptions, progress: Progress) -> Server:
    """Answer requests until SIGINT or SIGTERM; then finish what is being answered, and return.

    Raise ConfigError for an address that cannot be had or needs a key, and what loading raises.
    """
    key = read_key(options.key_file)
    check_exposure(options.host, key)
    names = frozenset(name.lower() for name in options.names)
    rules = AccessRules(options.host, names, key)
    models = read_models(options.sources, options.task_file, options.backend)
    served = ServedModels.of(models)
    listening = open_address(options.host, options.port)
    with listening:
        for line in say_models(models, options.backend):
            progress.say(line)
        capture = open_capture(options.capture, progress)
        progress.say(LOADING)
        loop = EngineLoop(make_engine(options, models), options.limits.rows)
        loop.start()
        server = Server(served, loop, options.backend, options.limits, capture=capture)
        try:
            host, port = listening.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            progress.say(f"Serving on http://{shown}:{port}/v1 (Ctrl-C ends it).")
            listen_until_signal(server, listening, rules)
        finally:
            loop.close()
            if capture is not None:
                capture.close()
    return server


def make_engine(
    options: ServeOptions, models: Sequence[ServedModel]
) -> Callable[[], tuple[Engine, Callable[[], None]]]:
    """Return what makes the engine, and what frees its model, in the thread that will use them."""

    def make() -> tuple[Engine, Callable[[], None]]:
        first = models[0].answering
        spec = ModelSpec(
            path=first.model.path, adapter=first.adapter, dtype=options.dtype, limits=Limits()
        )
        backend = load(options.backend, spec)
        return backend.engine(adapters_of(models), options.cache_bytes), backend.close

    return make


def say_models(models: Sequence[ServedModel], backend: str) -> list[str]:
    """Return a line for each model, and what a request takes of memory."""
    lines = []
    for each in models:
        adapter = "with its adapter" if each.answering.adapter else "without an adapter"
        asks = f", task {each.predictor.task.name!r}" if each.predictor.task else ""
        lines.append(f"{each.name}: {each.answering.model.name} {adapter}{asks}, on {backend}.")
    size = bytes_per_token(models[0].answering.model.path)
    if size is not None:
        lines.append(
            f"{plural(1000, 'token')} of prompts and answers in progress take about"
            f" {1000 * size / 1e6:,.0f} MB (half of it in bfloat16), besides the weights."
        )
    return lines


def bytes_per_token(folder: Path) -> int | None:
    """Return the bytes that a token's keys and values take in float32; None if unknown."""
    config = orjson.loads((folder / "config.json").read_bytes())
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    if not isinstance(heads, int) or not isinstance(layers, int):
        return None
    width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return 2 * 4 * layers * int(config.get("num_key_value_heads") or heads) * int(width)
