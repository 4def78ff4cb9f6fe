"""Importers: what people log of their models, read into traces. Each format has a module.

A format's module has `rows(record)`. For one record of a file (a line, or an element of an array)
it yields a Trace or a Dropped with its reason for everything that could be one; a Document for a
question whose answer is known without a model. Formats whose requests and results are in different
files also have `halves(record)`, see `pairs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from offapi.data.documents import Document
from offapi.data.importers.pairs import Half
from offapi.data.importers.shared.reasons import Dropped
from offapi.data.traces import Trace

FORMATS: Mapping[str, str] = {
    "openai-ft": "training files for chat models: OpenAI's, ShareGPT, Gemini's, TRL's",
    "alpaca": "training files with instruction, input and output",
    "openai": (
        "requests with their responses, Batch files, stored completions; Chat Completions and"
        " Responses; Weave calls"
    ),
    "anthropic": "Messages requests with their responses, batches, Bedrock invocation logs",
    "otel": (
        "OpenTelemetry GenAI spans and events: OTLP/JSON or flat, Tempo, Jaeger, Zipkin, MLflow,"
        " Logfire, the Vercel AI SDK"
    ),
    "openinference": "OpenInference spans, Phoenix exports",
    "langfuse": "observations from the API, the blob export or the web page",
    "langsmith": "runs, from the API, the SDK or an export",
    "litellm": "SpendLogs and the standard logging payload",
    "agents-sdk": "OpenAI Agents SDK, through `offapi traces processor`",
    "generic": "any JSON, with --map",
}


Outcome = Trace | Document | Dropped


@dataclass(frozen=True)
class Importer:
    """A format's module.

    `marks`: bytes without which a record is not half of anything; empty where there are no halves.
    """

    rows: Callable[[Mapping[str, Any]], Iterator[Outcome]]
    halves: Callable[[Mapping[str, Any]], Iterator[Half]] | None = None
    marks: tuple[bytes, ...] = ()


def find_importer(format: str, maps: Mapping[str, str]) -> Importer:
    """Return the importer of a format in FORMATS. `maps`: what --map gave, for `generic`."""
    if format == "generic":
        from offapi.data.importers.formats.generic import mapped

        return Importer(mapped(maps))
    module = import_module(f"{__package__}.formats.{format.replace('-', '_')}")
    return Importer(module.rows, getattr(module, "halves", None), getattr(module, "MARKS", ()))
