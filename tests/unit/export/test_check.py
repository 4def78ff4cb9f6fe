"""The comparison lets right exports pass, and none with a mistake that its tool does not notice."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import orjson
import pytest
import tiny_llama
from safetensors.numpy import load_file, save_file
from tiny_adapter import RANK, draw_adapter, write_adapter

from offapi import adapter as adapters
from offapi.errors import ExportError, ModelError
from offapi.export import adapter_form, fused_form, mlx_form
from offapi.export.check import (
    FormAnswers,
    FormCheck,
    SourceAnswers,
    ask_source,
    compare,
    load_source,
    require_as_trained,
    require_passed,
)
from offapi.export.prompts import CHATS
from offapi.export.reopen import FormQuestions, answer
from offapi.export.safetensors_file import encode_tensor, read_layout, read_tensor
from offapi.export.source import ExportSource
from offapi.model_spec import LoraSpec
from offapi.models.adapter_probe import probe_files
from offapi.optimizer import Arrays

Tool = tuple[str, ExportSource, SourceAnswers]
LIBRARY = {"torch_backend": "torch", "mlx_backend": "mlx"}


def asked(source: ExportSource, name: str) -> SourceAnswers:
    backend = load_source(source, name)
    try:
        return ask_source(backend, source)
    finally:
        backend.close()


@pytest.fixture(scope="session")
def answers(source: ExportSource) -> SourceAnswers:
    """Return what the source computes, by the first backend that is installed."""
    return asked(source, next(name for name in ("torch", "mlx") if find_spec(name)))


@pytest.fixture(params=["torch_backend", "mlx_backend"])
def tool(request: pytest.FixtureRequest) -> str:
    pytest.importorskip(LIBRARY[request.param])
    return str(request.param)


def check(
    folder: Path, source: ExportSource, answers: SourceAnswers, tool: str, how: str = "open_fused"
) -> FormCheck:
    """Open what was written in `folder` with the tool of a backend, and compare it."""
    form = getattr(import_module(f"offapi.backends.{tool}.exported"), how)(folder, source.base)
    given = answer(form, FormQuestions.of(answers))
    rows = [np.array(row, np.float32) for row in given.logprobs]
    rendered = [source.chat.prompt(turns) for turns in CHATS]
    found = FormAnswers(given.greedy, tuple(rows), given.rendered)
    return compare(answers, found, dtype=source.dtype, rendered=rendered)


def swapped(arrays: Arrays, one: str, other: str) -> Arrays:
    """Return the adapter with the matrices of two targets exchanged."""
    names = {one: other, other: one}
    target = {name: adapters.module(name).rpartition(".")[2] for name in arrays}
    return {
        name.replace(target[name], names.get(target[name], target[name])): array
        for name, array in arrays.items()
    }


def transposed(arrays: Arrays) -> Arrays:
    """Return the adapter whose products are the transposed ones, where layers are square."""
    turned = dict(arrays)
    for name, array in arrays.items():
        if ".q_proj.lora_A" in name:
            b = name.replace("lora_A", "lora_B")
            turned[name], turned[b] = arrays[b].T.copy(), array.T.copy()
    return turned


def test_a_fused_model_is_its_source(
    source: ExportSource, backend_name: str, tool: str, tmp_path: Path
) -> None:
    fused_form.write_fused(source, tmp_path)
    found = check(tmp_path, source, asked(source, backend_name), tool)
    assert found.passed
    assert found.template_equal
    assert found.greedy_equal == found.prompts == len(CHATS)
    assert found.largest_difference_nats < 1e-3


def test_a_base_in_bfloat16_is_rounded_once_at_the_end(
    source_of: Callable[..., ExportSource],
    model: Path,
    adapter: Path,
    tool: str,
    tmp_path: Path,
) -> None:
    half = halved(model, tmp_path / "half")
    alone, merged = tmp_path / "alone", tmp_path / "merged"
    for folder, which in ((alone, None), (merged, adapter)):
        folder.mkdir()
        fused_form.write_fused(source_of(which, half), folder)
    for name in ("model.safetensors", "config.json"):
        assert (alone / name).read_bytes() == (half / name).read_bytes()
    named = orjson.loads((alone / "generation_config.json").read_bytes())
    assert named["eos_token_id"] == [tiny_llama.EOS]
    source = source_of(adapter, half)
    found = check(merged, source, asked(source, LIBRARY[tool]), tool)
    assert [found.passed, found.tolerance, source.dtype] == [True, 0.2, "bfloat16"]
    assert found.largest_difference_nats > 1e-3


def halved(model: Path, folder: Path) -> Path:
    """Write a copy of the model in bfloat16."""
    shutil.copytree(model, folder)
    file = folder / "model.safetensors"
    header, data = {}, b""
    for each in read_layout(file):
        part = encode_tensor(read_tensor(file, each), "BF16")
        offsets = [len(data), len(data) + len(part)]
        header[each.name] = {"dtype": "BF16", "shape": each.shape, "data_offsets": offsets}
        data += part
    head = orjson.dumps(header)
    file.write_bytes(len(head).to_bytes(8, "little") + head + data)
    return folder


MISTAKES: dict[str, Callable[[], tuple[Arrays, float]]] = {
    "scale is alpha": lambda: (draw_adapter(), 2.0 * RANK * RANK),
    "scale is 1": lambda: (draw_adapter(), RANK),
    "transposed": lambda: (transposed(draw_adapter()), 2.0 * RANK),
    "keys and values swapped": lambda: (swapped(draw_adapter(), "k_proj", "v_proj"), 2.0 * RANK),
    "queries and outputs swapped": lambda: (
        swapped(draw_adapter(), "q_proj", "o_proj"),
        2.0 * RANK,
    ),
    "gate and up swapped": lambda: (swapped(draw_adapter(), "gate_proj", "up_proj"), 2.0 * RANK),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_merge_is_found(
    mistake: str,
    source_of: Callable[..., ExportSource],
    source: ExportSource,
    answers: SourceAnswers,
    tool: str,
    tmp_path: Path,
) -> None:
    wrong = source_of(write_adapter(tmp_path / "wrong", *MISTAKES[mistake]()))
    (tmp_path / "fused").mkdir()
    fused_form.write_fused(wrong, tmp_path / "fused")
    found = check(tmp_path / "fused", source, answers, tool)
    assert not found.passed
    with pytest.raises(ExportError, match=r"the largest difference of a logprob is [\d.]+ nats"):
        require_passed(found, "fused model")


def test_a_base_without_its_adapter_is_found(
    source_of: Callable[..., ExportSource],
    source: ExportSource,
    answers: SourceAnswers,
    tool: str,
    tmp_path: Path,
) -> None:
    fused_form.write_fused(source_of(None), tmp_path)
    assert not check(tmp_path, source, answers, tool).passed


def test_another_template_is_found(
    source: ExportSource, answers: SourceAnswers, tool: str, tmp_path: Path
) -> None:
    fused_form.write_fused(source, tmp_path)
    path = tmp_path / "tokenizer_config.json"
    path.write_text(path.read_text().replace("assistant", "model"))
    found = check(tmp_path, source, answers, tool)
    assert [found.passed, found.template_equal] == [False, False]
    with pytest.raises(ExportError, match="its chat template makes other tokens"):
        require_passed(found, "fused model")


def test_the_adapter_is_opened_by_peft(
    source: ExportSource, answers: SourceAnswers, tmp_path: Path
) -> None:
    pytest.importorskip("peft")
    adapter_form.write_form(source, tmp_path, None)
    assert check(tmp_path, source, answers, "torch_backend", "open_adapter").passed
    config = orjson.loads((tmp_path / adapters.CONFIG).read_bytes())
    (tmp_path / adapters.CONFIG).write_bytes(orjson.dumps({**config, "use_rslora": True}))
    assert not check(tmp_path, source, answers, "torch_backend", "open_adapter").passed


def write_mlx(source: ExportSource, folder: Path) -> Path:
    assert source.adapter
    mlx_form.write_adapter(*adapters.read(source.adapter), folder / "adapter", 2)
    return folder / "adapter"


def test_mlx_lm_opens_its_own_kind_of_adapter(
    source: ExportSource, answers: SourceAnswers, tmp_path: Path
) -> None:
    pytest.importorskip("mlx")
    folder = write_mlx(source, tmp_path)
    assert check(folder, source, answers, "mlx_backend", "open_adapter").passed


@pytest.mark.parametrize("mistake", ["not transposed", "scale", "last block alone"])
def test_an_adapter_that_mlx_lm_reads_wrong_is_found(
    mistake: str, source: ExportSource, answers: SourceAnswers, tmp_path: Path
) -> None:
    pytest.importorskip("mlx")
    folder = write_mlx(source, tmp_path)
    config = orjson.loads((folder / adapters.CONFIG).read_bytes())
    tensors = load_file(folder / mlx_form.WEIGHTS)
    if mistake == "not transposed":
        for name in [name for name in tensors if "q_proj" in name]:
            tensors[name] = tensors[name].T.copy()
    elif mistake == "scale":
        config["lora_parameters"]["scale"] = 2.0 * RANK
    else:
        config["num_layers"] = 1
        tensors = {name: array for name, array in tensors.items() if ".layers.1." in name}
    save_file(tensors, folder / mlx_form.WEIGHTS)
    (folder / adapters.CONFIG).write_bytes(orjson.dumps(config))
    assert not check(folder, source, answers, "mlx_backend", "open_adapter").passed


def test_pefts_own_merge_is_wrong_in_mlx_lm(
    source: ExportSource, answers: SourceAnswers, tmp_path: Path
) -> None:
    """The reason for writing the base's config.json as it is."""
    pytest.importorskip("mlx")
    peft = pytest.importorskip("peft")
    transformers = pytest.importorskip("transformers")
    fused_form.write_fused(source, tmp_path)
    base = transformers.AutoModelForCausalLM.from_pretrained(source.base)
    merged = peft.PeftModel.from_pretrained(base, source.adapter).merge_and_unload()
    merged.save_pretrained(tmp_path)
    assert check(tmp_path, source, answers, "torch_backend").passed
    assert not check(tmp_path, source, answers, "mlx_backend").passed
    config = orjson.loads((tmp_path / "config.json").read_bytes())
    config["rope_theta"] = config["rope_parameters"]["rope_theta"]  # where mlx-lm looks
    (tmp_path / "config.json").write_bytes(orjson.dumps(config))
    assert check(tmp_path, source, answers, "mlx_backend").passed


def test_a_tie_counts_only_where_the_source_is_undecided(
    source: ExportSource, answers: SourceAnswers
) -> None:
    other = (answers.greedy[0][0] + 1, *answers.greedy[0][1:])
    form = FormAnswers((other, *answers.greedy[1:]), answers.logprobs)
    sure = compare(answers, form, dtype="float32")
    assert [sure.passed, sure.greedy_equal, sure.ties] == [False, len(CHATS) - 1, 0]
    margins = ((1e-5, *answers.margins[0][1:]), *answers.margins[1:])
    undecided = compare(replace(answers, margins=margins), form, dtype="float32")
    assert [undecided.passed, undecided.greedy_equal, undecided.ties] == [True, len(CHATS) - 1, 1]


def test_numbers_that_are_not_numbers_do_not_pass(answers: SourceAnswers) -> None:
    broken = (np.full_like(answers.logprobs[0], np.nan), *answers.logprobs[1:])
    assert not compare(answers, FormAnswers(answers.greedy, broken), dtype="float32").passed


def test_too_few_numbers_are_no_agreement(answers: SourceAnswers) -> None:
    short = (answers.logprobs[0][:0], *answers.logprobs[1:])
    with pytest.raises(ExportError, match="gave 0 of"):
        compare(answers, FormAnswers(answers.greedy, short), dtype="float32")


def test_an_adapter_that_is_not_what_was_trained_is_refused(
    source_of: Callable[..., ExportSource], source: ExportSource, backend_name: str, tmp_path: Path
) -> None:
    """`probe.json` is of the first adapter; the second folder holds other weights."""
    right = write_adapter(tmp_path / "right", draw_adapter())
    wrong = write_adapter(tmp_path / "wrong", *MISTAKES["scale is 1"]())
    backend = load_source(source, backend_name)
    try:
        for name, content in probe_files(backend, source.spec).items():
            (right / name).write_bytes(content)
            (wrong / name).write_bytes(content)
        require_as_trained(backend, source_of(right))
    finally:
        backend.close()
    other = load_source(source_of(wrong), backend_name)
    try:
        with pytest.raises(
            ExportError, match=r"its training recorded .* difference is [\d.]+ nats"
        ):
            require_as_trained(other, source_of(wrong))
    finally:
        other.close()


def test_an_adapter_of_another_model_is_refused(
    source_of: Callable[..., ExportSource], tmp_path: Path
) -> None:
    arrays = {name.replace("layers.1", "layers.7"): each for name, each in draw_adapter().items()}
    spec = LoraSpec(rank=RANK, alpha=RANK, targets=("q_proj",))
    (tmp_path / "adapter").mkdir()
    for name, content in adapters.encode(arrays, spec).items():
        (tmp_path / "adapter" / name).write_bytes(content)
    (tmp_path / "fused").mkdir()
    with pytest.raises(ModelError, match=r"no layer 'model\.layers\.7"):
        fused_form.write_fused(source_of(tmp_path / "adapter"), tmp_path / "fused")
