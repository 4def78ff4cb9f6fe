"""What an export says of an adapter that was trained on a base in few bits, and of stored ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import oracle
import orjson
import pytest
import tiny_llama
from imported_row import Quiet

from offapi import adapter as adapters
from offapi.backend import Backend
from offapi.errors import ModelError
from offapi.export import adapter_form, fused_form, mlx_form
from offapi.export.check import ask_source, score_sequences
from offapi.export.other_bits import measure_other_bits
from offapi.export.source import ExportSource
from offapi.optimizer import Arrays

Load = Callable[..., Backend]


@pytest.fixture
def run(tmp_path: Path, adapter: Arrays, backend_name: str) -> Path:
    """A run that trained `adapter` on the tiny model in 8 bits."""
    model = tiny_llama.write_chat(tmp_path / "model")
    base = adapters.Base.of("model", model, 8)
    folder = tmp_path / "run" / "adapter"
    folder.mkdir(parents=True)
    for name, content in adapters.encode(adapter, oracle.SHAPE, base).items():
        (folder / name).write_bytes(content)
    config = {"model": str(model), "quantize": 8}
    manifest = {"config": config, "backend": backend_name}
    (tmp_path / "run" / "manifest.json").write_bytes(orjson.dumps(manifest))
    return tmp_path / "run"


def test_the_cost_of_the_base_as_it_is_stored_is_measured(
    run: Path, load: Load, backend_name: str
) -> None:
    source = ExportSource.of(run)
    stored = load(path=source.base, adapter=source.adapter)
    answers = ask_source(stored, source)
    found = measure_other_bits(source, answers, None, (), Quiet())
    assert found is not None
    packed = score_sequences(
        load(path=source.base, adapter=source.adapter, quantize=8), answers.sequences
    )
    apart = np.concatenate(packed) - np.concatenate(answers.logprobs)
    assert found.largest == pytest.approx(np.abs(apart).max(), rel=1e-5)
    assert 0 < found.mean < found.largest < 1
    assert (found.bits, found.backend) == (8, backend_name)
    (said,) = found.lines()
    assert (
        f"in 8 bits. On the base as it is stored, which the export is of, the largest difference of a logprob is {found.largest:.2g} nats"
        in said
    )
    assert "in 8 bits, and is used on it as it is stored" in source.answering.doubts(None)[0]
    manifest = run / "manifest.json"
    manifest.write_bytes(manifest.read_bytes().replace(b'"quantize":8', b'"quantize":null'))
    assert measure_other_bits(ExportSource.of(run), answers, None, (), Quiet()) is None


@pytest.mark.parametrize(
    ("keys", "refused", "backend"),
    [
        ({"quantization": {"bits": 4}}, adapter_form, "mlx"),
        ({"quantization_config": {"quant_method": "bitsandbytes"}}, mlx_form, "torch"),
    ],
)
def test_a_base_that_is_stored_quantised_has_the_forms_that_open_it(
    run: Path, keys: dict[str, object], refused: object, backend: str
) -> None:
    pytest.importorskip("mlx")
    source = ExportSource.of(run)
    source = replace(source)
    source.__dict__["config"] = {**source.config, **keys}
    assert source.only_backend == backend
    with pytest.raises(ModelError, match=f"stored quantised for {backend}"):
        refused.bytes_on_disk(source, None)  # type: ignore[attr-defined]
    other = mlx_form if refused is adapter_form else adapter_form
    assert source.adapter is not None
    assert other.bytes_on_disk(source, None) == (source.adapter / adapters.WEIGHTS).stat().st_size
    with pytest.raises(ModelError, match="cannot be merged"):
        fused_form.bytes_on_disk(source, None)
