"""An adapter of a base in few bits: what answers, what an export has, and what it says of itself."""

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
from offapi.chat.chat import Chat
from offapi.data.documents import Document
from offapi.demo.task import task
from offapi.episodes import Episode, Segment
from offapi.errors import ConfigError, ModelError
from offapi.evaluation.evaluate import EvalSettings, Questions, evaluate_model
from offapi.evaluation.predict import predict
from offapi.export import adapter_form, fused_form, mlx_form
from offapi.export.check import MEAN_TOLERANCE, ask_source, score_sequences
from offapi.export.other_bits import measure_other_bits
from offapi.export.source import ExportSource
from offapi.model_spec import ModelSpec
from offapi.models.adapter_probe import PROBE, holds_for, probe_files, read_probe
from offapi.models.parity import parity_sequences
from offapi.optimizer import Arrays
from offapi.predict.answering_model import AnsweringModel
from offapi.predict.predictor import Predictor
from offapi.serve.served_models import ServedModels, read_models
from offapi.training.base_bits import Bits

Load = Callable[..., Backend]
GOLD = {"vendor": "A", "date": "2026-01-02", "total": 1.5}


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
    as_trained = ExportSource.of(run, as_trained=True)
    assert as_trained.answering.doubts(None) == []
    assert measure_other_bits(as_trained, answers, None, (), Quiet()) is None


@pytest.mark.parametrize("bits", [4, 8])
def test_mlx_lm_computes_the_run_on_the_base_in_its_bits(
    run: Path, bits: int, load: Load, backend_name: str
) -> None:
    """On the base that is written and the adapter next to it, which nothing merges."""
    pytest.importorskip("mlx")
    from offapi.backends.mlx_backend.exported import open_both

    source = ExportSource.of(run, as_trained=True)
    source.trained.__dict__["bits"] = bits
    out = run / "out"
    out.mkdir()
    (part,) = mlx_form.write_form(source, out, None)
    trained = load(path=source.base, adapter=source.adapter, quantize=bits)
    sequences = parity_sequences(int(source.config["vocab_size"]))
    form = open_both(out, source.base)
    pairs = zip(score_sequences(trained, sequences), sequences, strict=True)
    apart = np.concatenate([np.abs(ours - form.logprobs(tokens)) for ours, tokens in pairs])
    config = orjson.loads((out / "base" / "config.json").read_bytes())
    assert (config["quantization"]["bits"], config["quantization"]["group_size"]) == (bits, 64)
    if backend_name == "mlx":
        assert part.bits is None
        assert apart.max() < 1e-4
        assert "exactly" in mlx_form.base_sentence(bits, backend_name)
    else:
        assert part.bits == bits
        assert 1e-4 < apart.mean() < MEAN_TOLERANCE[bits]
        assert "which MLX does not have" in mlx_form.base_sentence(bits, backend_name)


class Said(Quiet):
    """A reporter that keeps what it is told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str = "") -> None:
        self.lines.append(text)


@pytest.mark.parametrize(("asked", "bits"), [("trained", 8), (None, None), (4, 4)])
def test_answers_are_those_on_the_base_in_the_bits_of_the_training(
    run: Path, asked: Bits, bits: int | None, load: Load, backend_name: str
) -> None:
    said = Said()
    answering = AnsweringModel.of(run, bits=asked)
    predictor = Predictor(answering, None, None, backend_name, "float32", said.say)
    row = Episode(
        "row", (Segment(tuple(range(40, 50)), False), Segment(tuple(range(60, 90)), True))
    )
    expected = load(path=answering.model.path, adapter=answering.adapter, quantize=bits)
    with predictor:
        found = predictor.backend.score([row])
    np.testing.assert_allclose(found[0], expected.score([row])[0], atol=1e-5)
    doubts = [*answering.doubts(None), *said.lines]
    if asked == "trained":
        assert "The base is loaded in 8 bits, as it was for the training." in doubts
        other = {"mlx": "torch", "torch": "mlx"}[backend_name]
        (line,) = answering.trained_bits.lines(8, other)
        assert f"{backend_name} packed it there, and {other} packs otherwise" in line
        spec = ModelSpec(answering.model.path, answering.adapter, quantize=bits, device="cpu")
        probe = probe_files(expected, spec)[PROBE]
        (run / "adapter" / PROBE).write_bytes(probe)
        record = read_probe(run / "adapter")
        assert record is not None
        held = [
            holds_for(record, *by)
            for by in ((backend_name, 8), (backend_name, 4), (other, 8), (backend_name, None))
        ]
        assert held == [True, False, False, False]
    else:
        assert "in 8 bits, and is used on it" in doubts[0]


def test_eval_asks_the_base_in_the_bits_that_are_meant(
    run: Path, load: Load, backend_name: str
) -> None:
    few = replace(task, max_answer_tokens=16)
    (run / "x.jsonl").write_text("")
    rows = [Document(text, text, GOLD) for text in ("Ash 12", "x", "total: 7", "??", "zebra", "0")]
    model = run.parent / "model"
    given = {}
    for asked, bits in (("trained", 8), (4, 4), (None, None)):
        settings = EvalSettings(
            model=str(model),
            adapter=run / "adapter",
            shots=0,
            samples=1,
            temperature=0.0,
            out=run / "out.jsonl",
            backend=backend_name,
            dtype="float32",
            bits=asked,  # type: ignore[arg-type]
        )
        said = Said()
        result = evaluate_model(settings, Questions(few, run / "x.jsonl", rows), said)
        assert (result.bits, result.as_dict().get("quantize")) == (bits, bits)
        backend = load(path=model, adapter=run / "adapter", quantize=bits)
        expected = predict(backend, Chat.load(model), few, rows, Quiet()).outputs
        given[asked] = result.cost.outputs
        assert given[asked] == expected
        assert any("as it was for the training" in line for line in said.lines) == (bits == 8)
    assert given[4] != given[None]
    with pytest.raises(ConfigError, match="needs the base in 8 bits, and the others as it is"):
        ServedModels.of(
            [
                *read_models([str(run)], None, backend_name, bits=None),
                *read_models([f"other={run}"], None, backend_name),
            ]
        )


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
