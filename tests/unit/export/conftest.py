"""A tiny model with an adapter that matters, and what its source computes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny_llama
from tiny_adapter import draw_adapter, write_adapter

from offapi.export.source import ExportSource
from offapi.models.store import Model
from offapi.predict.answering_model import AnsweringModel


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_llama.write_chat(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture(scope="session")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_adapter(tmp_path_factory.mktemp("adapter") / "adapter", draw_adapter())


@pytest.fixture(scope="session")
def source_of(model: Path) -> Callable[..., ExportSource]:
    """Return a function from an adapter's folder to what would be exported."""
    return lambda adapter, base=model: ExportSource(AnsweringModel(Model("tiny", base), adapter))


@pytest.fixture(scope="session")
def source(source_of: Callable[..., ExportSource], adapter: Path) -> ExportSource:
    return source_of(adapter)
