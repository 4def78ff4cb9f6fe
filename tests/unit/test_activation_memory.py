"""The bytes that a training token takes, from the model's sizes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import orjson
import tiny_llama

from offapi.activation_memory import (
    FACTORS,
    Account,
    Factors,
    FreeMemory,
    ModelSizes,
    activation_bytes,
    head_rows,
)

SIZES = ModelSizes(layers=2, hidden=10, inner=30, heads=4, queries=20, keys=5, vocabulary=100)


def test_memory_follows_the_models_shape_dtype_and_backend(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(orjson.dumps(tiny_llama.CONFIG))
    floats, torch = activation_bytes(tmp_path, "torch", "float32") / 4, FACTORS["torch"]
    widths = tiny_llama.HIDDEN // tiny_llama.HEADS * (tiny_llama.HEADS + tiny_llama.KV_HEADS)
    layer = torch.hidden * tiny_llama.HIDDEN + torch.attention * widths
    assert floats == tiny_llama.LAYERS * (layer + torch.inner * tiny_llama.INNER)
    assert activation_bytes(tmp_path, "torch", "bfloat16") == 2 * floats
    assert activation_bytes(tmp_path, "mlx", "float32") != 4 * floats
    (tmp_path / "config.json").write_bytes(
        orjson.dumps({**tiny_llama.CONFIG, "num_hidden_layers": 2 * tiny_llama.LAYERS})
    )
    assert activation_bytes(tmp_path, "torch", "float32") == 8 * floats


def test_sizes_are_those_of_the_text_part_of_heads_and_of_the_experts_in_use(
    tmp_path: Path,
) -> None:
    config = {
        "hidden_size": 10,
        "intermediate_size": [30, 20],
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 1,
        "head_dim": 5,
        "vocab_size": 100,
    }
    path = tmp_path / "config.json"
    path.write_bytes(orjson.dumps({"text_config": config}))
    assert ModelSizes.read(tmp_path) == SIZES
    path.write_bytes(orjson.dumps(config | {"moe_intermediate_size": 8, "num_experts_per_tok": 2}))
    assert ModelSizes.read(tmp_path) == replace(SIZES, inner=16)


def test_the_peak_is_what_is_held_and_the_head_or_a_layer() -> None:
    factors = Factors(
        hidden=1.0,
        attention=2.0,
        inner=3.0,
        layer=0.5,
        again=0.75,
        scores=2.0,
        head=3.0,
        chunked=False,
    )
    account = Account(SIZES, factors, width=4)
    layer = (10 + 2 * 25 + 3 * 30) * 4
    assert account.token == 2 * layer
    within = 7 * (0.5 * layer + 2 * 4 * 6 * 4)  # 2 numbers for each of 4 heads' 6 scores
    assert account.training(7, 6, logit_rows=1, recomputed=False) == 7 * 2 * layer + within
    inputs = 7 * 2 * 10 * 4
    within = 7 * (0.75 * layer + 2 * 4 * 6 * 4)
    assert account.training(7, 6, logit_rows=1, recomputed=True) == inputs + within
    long = 7 * (0.75 * layer + 2 * 4 * 128 * 4)
    assert account.training(7, 900, logit_rows=1, recomputed=True) == inputs + long
    head = 7 * 100 * 4 * 3.0  # of as many rows as there are
    assert account.training(7, 6, logit_rows=256, recomputed=True) == inputs + head
    keys_and_values = 2 * 2 * 5 * 4
    assert account.sampling(3, 8, 2) == keys_and_values * (3 * 8 + 2) + 3 * 100 * 4 * 3.0


def test_a_wide_vocabulary_has_fewer_rows_at_a_time() -> None:
    assert head_rows(256, 8192) == 256
    assert head_rows(256, 1 << 15) == 128  # 16 MiB of logits
    assert head_rows(256, 150_000) == 64
    assert head_rows(7, 150_000) == 7
    wide = replace(SIZES, vocabulary=150_000)
    heads = {
        chunked: Account(wide, replace(FACTORS["mlx"], chunked=chunked), width=4)
        for chunked in (False, True)
    }
    taken = {
        chunked: account.training(256, 6, logit_rows=256, recomputed=True)
        for chunked, account in heads.items()
    }
    assert taken[False] - taken[True] == heads[True].head(256 - 64)


def test_layers_are_recomputed_if_asked_or_if_they_must() -> None:
    room = FreeMemory(None, token=10.0, free=1000.0)
    assert not room.recomputes(80)
    assert room.recomputes(81)  # with a margin: other things take memory too
    assert replace(room, trained=1).recomputes(80)
    assert not replace(room, trained=1).recomputes(78)
    assert FreeMemory(True, None, 1e12).recomputes(1)
    assert not FreeMemory(False, 1e12, 1.0).recomputes(1)
    assert not FreeMemory(None, None, 1.0).recomputes(10**9)
