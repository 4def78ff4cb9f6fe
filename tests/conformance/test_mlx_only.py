"""What only the MLX backend has: bases stored in its bits, a step in flight while another is read, its BLAS."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import oracle
import pytest

from offapi.backend import Backend, Completion, Sampling
from offapi.backend import load as load_backend
from offapi.episodes import Episode, Segment
from offapi.errors import ModelError
from offapi.model_spec import Limits, ModelSpec

# Found, not imported: importing mlx before the backend would keep it from the faster BLAS.
pytestmark = pytest.mark.skipif(find_spec("mlx_lm") is None, reason="mlx is not installed")

EPISODES = [Episode("e", (Segment((1, 2, 3), False), Segment((4, 5, 6, 7), True)))]
PROMPTS = [(9, 8, 7, *range(20, 20 + i)) for i in range(1, 6)]


def open_mlx(path: Path, **fields: object) -> Backend:
    return load_backend("mlx", ModelSpec(path=path, device="cpu", **fields))  # type: ignore[arg-type]


def in_mlx_format(source: Path, target: Path) -> Path:
    """Save the model quantised to 4 bits, as mlx-lm saves it."""
    import mlx.nn as nn
    from mlx_lm.utils import load_model, save_config, save_model

    model, config = load_model(source)
    nn.quantize(
        model,
        64,
        4,
        class_predicate=lambda _, m: hasattr(m, "to_quantized") and m.weight.shape[-1] % 64 == 0,
    )
    save_model(target, model)
    save_config(config | {"quantization": {"group_size": 64, "bits": 4}}, target / "config.json")
    return target


def test_quantising_at_load_equals_a_quantised_folder(model_folder: Path, tmp_path: Path) -> None:
    at_load = open_mlx(model_folder, quantize=4)
    stored = open_mlx(in_mlx_format(model_folder, tmp_path / "q4"))
    (full,), (one,), (other,) = (
        b.score(EPISODES) for b in (open_mlx(model_folder), at_load, stored)
    )
    np.testing.assert_allclose(one, other, atol=1e-5)
    assert 1e-3 < np.abs(one - full).max() < 5


def test_a_quantised_folder_is_not_quantised_again(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="already"):
        open_mlx(in_mlx_format(model_folder, tmp_path / "q4"), quantize=8)


@pytest.mark.parametrize("rows", [2, 5, 64])
def test_reading_one_step_behind_changes_no_group(
    model_folder: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    """As on a GPU: rows run one step too far, and others get their slots before they are read."""
    from offapi.backends.mlx_backend import engine

    backend = open_mlx(model_folder, limits=Limits(rollout_rows=rows))
    sampling = Sampling(max_tokens=6, stop_ids=tuple(range(0, 300, 7)), temperature=4.0, top_p=0.6)

    def completions() -> list[Completion]:
        groups = {g.prompt: g.completions for g in backend.rollout(PROMPTS, 3, sampling)}
        return [completion for prompt in sorted(groups) for completion in groups[prompt]]

    before = completions()
    assert {completion.finish for completion in before} == {"stop", "length"}
    monkeypatch.setattr(engine, "ahead", lambda: 1)
    for one, other in zip(before, completions(), strict=True):
        assert (one.tokens, one.finish) == (other.tokens, other.finish)
        np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-5)
        assert one.sampling_mask is not None
        assert other.sampling_mask is not None
        np.testing.assert_array_equal(one.sampling_mask.ids, other.sampling_mask.ids)


def test_attention_in_blocks_has_the_gradient_of_plain_attention(model_folder: Path) -> None:
    import mlx.core as mx

    from offapi.backends.mlx_backend import attention

    draw = np.random.default_rng(0)
    rows, heads, groups, length, shared, width = 2, 4, 2, attention.BLOCK + 9, 5, 8
    shapes = (
        (rows, heads, length, width),
        *[(rows, groups, length, width)] * 2,
        *[(groups, shared, width)] * 2,
    )
    arrays = [mx.array(draw.standard_normal(shape).astype(np.float32)) for shape in shapes]
    weigh = mx.array(draw.standard_normal(shapes[0]).astype(np.float32))

    def ours(q: mx.array, k: mx.array, v: mx.array, pk: mx.array, pv: mx.array) -> mx.array:
        return (attention.attend(q, k, v, (pk, pv), 0.3, "causal") * weigh).sum()

    def plain(q: mx.array, k: mx.array, v: mx.array, pk: mx.array, pv: mx.array) -> mx.array:
        k, v = (
            mx.concatenate([mx.broadcast_to(prefix[None], (rows, *prefix.shape)), own], axis=2)
            for prefix, own in ((pk, k), (pv, v))
        )
        return (
            mx.fast.scaled_dot_product_attention(q, k, v, scale=0.3, mask="causal") * weigh
        ).sum()

    argnums = (0, 1, 2, 3, 4)
    computed = mx.value_and_grad(ours, argnums=argnums)(*arrays)
    expected = mx.value_and_grad(plain, argnums=argnums)(*arrays)
    np.testing.assert_allclose(computed[0].item(), expected[0].item(), rtol=1e-4)
    for one, other in zip(computed[1], expected[1], strict=True):
        np.testing.assert_allclose(np.array(one), np.array(other), atol=oracle.CLOSE)


@pytest.mark.parametrize("kind", ["float32", "bfloat16"])
def test_swiglu_and_its_gradient_are_those_of_mlx_lm(kind: str) -> None:
    from importlib import import_module

    # First, because it opens the BLAS.
    ours = import_module("offapi.backends.mlx_backend.linux_cpu.fast_swiglu").swiglu
    import mlx.core as mx
    from mlx_lm.models.activations import swiglu as plain

    draw = np.random.default_rng(0)
    gate, x, weigh = (
        mx.array(draw.standard_normal((50, 7)).astype(np.float32) * 4) for _ in range(3)
    )
    gate[0, :4] = mx.array([0.0, 100.0, -100.0, -88.0])
    with mx.stream(mx.cpu):
        arrays = [array.astype(getattr(mx, kind)) for array in (gate, x)]
        weights = weigh.astype(arrays[0].dtype)
        computed, expected = mx.vjp(ours, arrays, [weights]), mx.vjp(plain, arrays, [weights])
    for one, other in zip([*computed[0], *computed[1]], [*expected[0], *expected[1]], strict=True):
        assert one.dtype == other.dtype
        expected_array = np.array(other.astype(mx.float32))
        tolerance = {"float32": 1e-5, "bfloat16": 0.03}[kind] * (1 + np.abs(expected_array).max())
        np.testing.assert_allclose(np.array(one.astype(mx.float32)), expected_array, atol=tolerance)


def test_a_groups_prompt_is_computed_once_among_other_groups() -> None:
    from offapi.backends.mlx_backend.micro_batches import lines, micro_batches

    def episode(group: int, length: int) -> Episode:
        return Episode(
            "e", (Segment((1, 2, group, *range(50)), False), Segment((7,) * length, True))
        )

    groups = lines([episode(group, length) for length in (4, 9, 30) for group in range(3)])
    batches = micro_batches(groups, 10_000)
    assert [(batch.shared, len(batch.lines)) for batch in batches] == [(52, 3)] * 3
    singles = lines([episode(group, 4) for group in range(6)])
    assert [len(batch.lines) for batch in micro_batches(singles, 10_000)] == [6]
    assert sorted(
        line.index for batch in micro_batches(groups, 100) for line in batch.lines
    ) == list(range(9))


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_sampling_mask_holds_what_could_be_drawn(
    model_folder: Path, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from offapi.backends.mlx_backend import engine

    monkeypatch.setattr(engine, "ahead", lambda: ahead)
    backend = open_mlx(model_folder)
    sampling = Sampling(
        max_tokens=12, stop_ids=tuple(range(0, 300, 7)), temperature=4.0, top_k=40, top_p=0.9
    )
    for group in backend.rollout(PROMPTS, 3, sampling):
        for completion in group.completions:
            episode = Episode(
                "e",
                (
                    Segment(PROMPTS[group.prompt], False),
                    Segment(completion.tokens, True, completion.logprobs, completion.sampling_mask),
                ),
            )
            assert completion.sampling_mask is not None
            assert len(completion.sampling_mask.counts) == len(completion.tokens)
            assert completion.sampling_mask.counts.max() <= 40
            np.testing.assert_allclose(
                completion.logprobs, backend.score([episode], temperature=4.0)[0], atol=oracle.CLOSE
            )


@pytest.mark.skipif(sys.platform != "linux", reason="macOS has a fast BLAS of its own")
def test_a_fast_blas_is_opened_without_importing_torch() -> None:
    script = (
        "import sys, importlib.util as u; s = u.spec_from_file_location('blas', sys.argv[1]);blas ="
        " sys.modules['blas'] = u.module_from_spec(s); s.loader.exec_module(blas); opened ="
        " blas.open_fast();assert 'torch' not in sys.modules; r = blas.report(); print(opened,"
        " r.path, r.slow)"
    )
    file = find_spec("offapi.backends.mlx_backend.linux_cpu.blas").origin
    done = subprocess.run(
        [sys.executable, "-c", script, file], capture_output=True, text=True, check=True
    )
    opened, used, slow = done.stdout.rsplit("\n", 2)[0].split(" ")
    if not opened:
        pytest.skip("no BLAS other than MLX's own is installed")
    assert Path(used).name == Path(opened).name
    assert slow == "False"
