"""Load what is served, listen, and answer until a signal comes.

Left out: the endpoints (`offapi.serve.app`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import orjson

from offapi.backend import load, resolve_dtype
from offapi.chat.template_options import Options
from offapi.constrain import Level
from offapi.engine import Engine
from offapi.model_spec import DType, Limits, ModelSpec
from offapi.predict.level import say_level
from offapi.progress import LOADING, Progress
from offapi.serve.access import AccessRules
from offapi.serve.adapter_check import check_adapters
from offapi.serve.capture import CaptureOptions, open_capture
from offapi.serve.engine_loop import EngineLoop
from offapi.serve.fine_tuning.job_service import JobService
from offapi.serve.key import check_exposure, read_key
from offapi.serve.limits import ServerLimits
from offapi.serve.listen import listen_until_signal, open_address
from offapi.serve.served_models import ServedModel, ServedModels, adapters_of, read_models
from offapi.serve.server import Server
from offapi.serve.unaccepted import UnacceptedOptions, opened, say_unaccepted
from offapi.text.display import plural
from offapi.training.base_bits import Bits


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
    level: Level | None = None
    template: Options = field(default_factory=dict)  # over each run's own
    bits: Bits = "trained"  # that the base is loaded in
    unaccepted: UnacceptedOptions = UnacceptedOptions()
    jobs: Path | None = None


def serve(options: ServeOptions, progress: Progress) -> Server:
    """Answer requests until SIGINT or SIGTERM; then finish what is being answered, and return.

    Raise ConfigError for an address that cannot be had or needs a key, and what loading raises.
    """
    key = read_key(options.key_file)
    check_exposure(options.host, key)
    names = frozenset(name.lower() for name in options.names)
    rules = AccessRules(options.host, names, key)
    models = read_models(
        options.sources,
        options.task_file,
        options.backend,
        options.level,
        options.template,
        options.bits,
    )
    options.unaccepted.check(models)
    escalation = options.unaccepted.escalation(progress.say)
    queue, below = options.unaccepted.review_queue(), options.unaccepted.below
    served = ServedModels.of(models)
    listening = open_address(options.host, options.port)
    with listening, opened(escalation):
        for line in say_models(models, options.backend):
            progress.say(line)
        for line in say_unaccepted(escalation, queue, below):
            progress.say(line)
        capture = open_capture(options.capture, progress)
        progress.say(LOADING)
        dtype = resolve_dtype(options.dtype, options.backend)
        loop = EngineLoop(make_engine(options, models), options.limits.rows, dtype)
        loop.start()
        server = Server(
            served,
            loop,
            options.backend,
            options.limits,
            capture=capture,
            escalation=escalation,
            review_queue=queue,
            below=below,
        )
        try:
            for name, nats in asyncio.run(check_adapters(loop, models)).items():
                progress.say(f"{name} computes what was trained, to {nats:.1g} nats.")
            with open_jobs(options, server, progress) as server.jobs:
                host, port = listening.getsockname()[:2]
                shown = f"[{host}]" if ":" in host else host
                progress.say(f"Serving on http://{shown}:{port}/v1 (Ctrl-C ends it).")
                listen_until_signal(server, listening, rules)
        finally:
            loop.close()
            if capture is not None:
                capture.close()
            for line in say_ended(server):
                progress.say(line)
    return server


def say_ended(server: Server) -> list[str]:
    """Return sentences on what became of answers that were not accepted."""
    lines = [] if server.escalation is None else [server.escalation.line()]
    if (queue := server.review_queue) is not None:
        lines.append(f"{plural(queue.added, 'document')} went into {queue.path}.")
    return lines


def open_jobs(
    options: ServeOptions, server: Server, progress: Progress
) -> AbstractContextManager[JobService | None]:
    """Return the jobs of the server's folder, if it has one."""
    if options.jobs is None:
        return nullcontext()
    return JobService.open(options.jobs, server.models, server.loop, options.backend, progress)


def make_engine(
    options: ServeOptions, models: Sequence[ServedModel]
) -> Callable[[], tuple[Engine, Callable[[], None]]]:
    """Return what makes the engine, and what frees its model, in the thread that will use them."""

    def make() -> tuple[Engine, Callable[[], None]]:
        first = models[0].answering
        spec = ModelSpec(
            path=first.model.path,
            adapter=first.adapter,
            dtype=options.dtype,
            quantize=first.quantize,
            limits=Limits(),
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
        lines += each.answering.trained_bits.lines(each.answering.quantize, backend)
        lines += say_asked(each) if each.predictor.task else []
    size = bytes_per_token(models[0].answering.model.path)
    if size is not None:
        lines.append(
            f"{plural(1000, 'token')} of prompts and answers in progress take about"
            f" {1000 * size / 1e6:,.0f} MB (half of it in bfloat16), besides the weights."
        )
    return lines


def say_asked(model: ServedModel) -> list[str]:
    """Return how the task's answers are bound, and why they have no confidence, if they have none.

    Raise ConfigError where the task cannot be bound as it should.
    """
    how, _ = model.calibration.now()
    lines = [say_level(how.level)]
    if how.no_promise:
        lines.append(f"No confidence: {how.no_promise}")
    if how.promise is not None and (gone := how.promise.withdrawn):
        why = gone.why.rstrip(".")
        lines.append(f"The promise was withdrawn on {gone.when}: {why}. Nothing is accepted.")
    return lines


def bytes_per_token(folder: Path) -> int | None:
    """Return the bytes that a token's keys and values take in float32; None if unknown."""
    config = orjson.loads((folder / "config.json").read_bytes())
    heads, layers = config.get("num_attention_heads"), config.get("num_hidden_layers")
    if not isinstance(heads, int) or not isinstance(layers, int):
        return None
    width = config.get("head_dim") or config.get("hidden_size", 0) // heads
    return 2 * 4 * layers * int(config.get("num_key_value_heads") or heads) * int(width)
