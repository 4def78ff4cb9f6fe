"""What requests can name: runs and models over one base, each with its adapter and task.

Left out: loading weights (`offapi.serve.run`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import time
from typing import Any, Self

from offapi.adapter import in_bits
from offapi.chat.chat import Chat
from offapi.chat.template_options import Options
from offapi.constrain import Level
from offapi.errors import ConfigError
from offapi.predict.answering_model import AnsweringModel
from offapi.predict.predictor import Predictor
from offapi.serve.calibration import WatchedCalibration
from offapi.serve.errors import ApiError
from offapi.task import load_task
from offapi.training.base_bits import Bits


@dataclass(frozen=True)
class ServedModel:
    """A name that requests use, and what answers them.

    `adapter` is the engine's name of the adapter; None is the policy as it was loaded. `predictor`
    is never loaded: it says how documents are asked and has the task, if there is one.
    """

    name: str
    predictor: Predictor
    adapter: str | None = None
    level: Level | None = None  # how the task's answers are bound; None: as calibrated
    created: int = field(default_factory=lambda: int(time()))

    @property
    def answering(self) -> AnsweringModel:
        """The base, the adapter and the run."""
        return self.predictor.answering

    @cached_property
    def calibration(self) -> WatchedCalibration:
        """How the documents of its task are asked. Raise what cannot be bound or read."""
        return WatchedCalibration(self.predictor, self.level)

    @cached_property
    def identity(self) -> dict[str, Any]:
        """The base and the adapter with the hashes of their weights; no path of this machine."""
        facts = self.answering.facts
        adapter = facts["adapter"]
        named = None if adapter is None else {"name": self.name, "sha256": adapter["sha256"]}
        return {"base": facts["base"], "adapter": named}

    @cached_property
    def fingerprint(self) -> str:
        """A short name of the weights, OpenAI's `system_fingerprint`."""
        adapter = self.identity["adapter"] or {"sha256": ""}
        both = f"{self.identity['base']['sha256']} {adapter['sha256']}"
        return f"fp_{hashlib.sha256(both.encode()).hexdigest()[:12]}"


@dataclass
class ServedModels:
    """All models of a server by name. Their base is one; `chat` is the first one's."""

    chat: Chat
    base: Path
    context: int | None
    bits: int | None = None  # of the base
    _named: dict[str, ServedModel] = field(default_factory=dict)

    @classmethod
    def of(cls, models: Sequence[ServedModel]) -> Self:
        """Return the models of a server, of which there is at least one.

        Raise ConfigError for two of one name, or with two bases.
        """
        first = models[0].answering
        chat = models[0].predictor.chat_format
        served = cls(chat, first.model.path, first.context, first.quantize)
        for each in models:
            served.add(each)
        return served

    def add(self, model: ServedModel) -> None:
        """Serve one more. Raise ConfigError for a name that is taken, or another base."""
        if model.name in self._named:
            step = "Write NAME=RUN to serve one of them under another name."
            raise ConfigError(f"two models are called {model.name!r}.", next_step=step)
        other = model.answering.model
        if other.path != self.base:
            what = f"{model.name!r} has another base model ({other.name}) than the others."
            step = "Serve it with a command of its own, on another --port."
            raise ConfigError(what, next_step=step)
        if model.answering.quantize != self.bits:
            here, there = (in_bits(each) for each in (model.answering.quantize, self.bits))
            what = f"{model.name!r} needs the base {here}, and the others {there}."
            step = "Serve it with a command of its own, or all of them with --quantize."
            raise ConfigError(what, next_step=step)
        self._named[model.name] = model

    def remove(self, name: str) -> None:
        """Serve a model no longer. Requests that are being answered end as they would have."""
        self._named.pop(name, None)

    def get(self, name: str) -> ServedModel:
        """Return the model of that name. Raise ApiError (404) where there is none."""
        if name not in self._named:
            served = ", ".join(list(self._named)[:20])
            message = f"The model does not exist. Served here: {served}."
            raise ApiError(404, message, param="model", code="model_not_found")
        return self._named[name]

    def __iter__(self) -> Iterator[ServedModel]:
        return iter(list(self._named.values()))

    def __len__(self) -> int:
        return len(self._named)


def read_models(
    sources: Sequence[str],
    task_file: Path | None,
    backend: str,
    level: Level | None = None,
    template: Options | None = None,
    bits: Bits = "trained",
) -> list[ServedModel]:
    """Return what `[NAME=]RUN|MODEL` of the command mean; the first one's adapter is the policy.

    `task_file` is the task of all, by default each run's own; their chat templates
    get `template` over what their runs gave them. Raise RunError, ModelError or
    ConfigError for what cannot be used.
    """
    served: list[ServedModel] = []
    for source in sources:
        name, answering = _named(source, bits)
        file = task_file or answering.task_file
        task = load_task(file) if file is not None else None
        predictor = Predictor(answering, task, file, backend, template=template or {})
        served.append(ServedModel(name, predictor, name if served else None, level))
    return served


def adapters_of(models: Sequence[ServedModel]) -> Mapping[str, Path | None]:
    """Return the adapters that the engine needs besides the policy, by name."""
    return {each.adapter: each.answering.adapter for each in models if each.adapter is not None}


def _named(source: str, bits: Bits) -> tuple[str, AnsweringModel]:
    """Return the name and the model of `[NAME=]RUN|MODEL`."""
    name, equals, rest = source.partition("=")
    if equals and not Path(source).exists():
        return name, AnsweringModel.of(rest, bits=bits)
    answering = AnsweringModel.of(source, bits=bits)
    if answering.run is not None:
        return answering.run.path.name, answering
    return answering.model.name if Path(source).exists() else source, answering
