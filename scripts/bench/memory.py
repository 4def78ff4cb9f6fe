"""Measure the memory of training on one long row, with its layers kept and computed again.

Random weights in Qwen3-0.6B's shape (28 layers of 1024, 151,936 tokens), LoRA (r 16) on all linear
layers, one row whose last 256 tokens are learned. Each case is a process of its own; its figure is
the peak of its resident memory less what it held once the model was loaded. Left out: GPUs, where
`Backend.memory` says the same.

    \b
    python scripts/bench/memory.py
    python scripts/bench/memory.py --backend torch --tokens 16384 --checkpointing always
"""

from __future__ import annotations

import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import numpy as np
import orjson
from safetensors.numpy import save_file

HIDDEN, INNER, HEADS, KV_HEADS, WIDTH, VOCABULARY = 1024, 3072, 16, 8, 128, 151_936
LEARNED = 256  # tokens
CONFIG = {
    "architectures": ["Qwen3ForCausalLM"],
    "model_type": "qwen3",
    "hidden_size": HIDDEN,
    "intermediate_size": INNER,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": WIDTH,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 40_960,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
    "rope_scaling": None,
    "tie_word_embeddings": True,
    "attention_bias": False,
    "hidden_act": "silu",
}


@click.command(help=__doc__, context_settings={"max_content_width": 120})
@click.option(
    "--backend",
    "backends",
    type=click.Choice(["torch", "mlx"]),
    multiple=True,
    default=["torch", "mlx"],
    help="Backend to measure; may be repeated.  [default: both]",
)
@click.option("--layers", default=28, show_default=True, help="Layers of the model.")
@click.option(
    "--tokens", "lengths", multiple=True, default=[2048, 8192, 16384], help="Tokens of the row."
)
@click.option(
    "--checkpointing",
    "modes",
    type=click.Choice(["never", "always"]),
    multiple=True,
    default=["never", "always"],
    help="Whether layers are computed again.  [default: both]",
)
def main(
    backends: tuple[str, ...], layers: int, lengths: tuple[int, ...], modes: tuple[str, ...]
) -> None:
    """Print a table, a row for each backend, length and mode."""
    print("| backend | tokens | layers computed again | over the loaded model, GB | CPU seconds |")
    print("|---|---|---|---|---|")
    with TemporaryDirectory() as made:
        write_model(Path(made), layers)
        for name in backends:
            for tokens in lengths:
                for mode in modes:
                    case = (name, made, tokens, mode == "always")
                    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
                        peak, seconds = process.submit(measure, *case).result()
                    print(f"| {name} | {tokens:,} | {mode} | {peak / 1e9:.2f} | {seconds:.0f} |")
                    sys.stdout.flush()


def write_model(folder: Path, layers: int) -> None:
    """Write config and random weights in float16."""
    config = CONFIG | {"num_hidden_layers": layers}
    (folder / "config.json").write_bytes(orjson.dumps(config))
    draw = np.random.default_rng(0)
    shapes = {"model.embed_tokens": (VOCABULARY, HIDDEN), "model.norm": (HIDDEN,)}
    for layer in range(layers):
        inner = f"model.layers.{layer}"
        shapes |= {
            f"{inner}.input_layernorm": (HIDDEN,),
            f"{inner}.post_attention_layernorm": (HIDDEN,),
            f"{inner}.self_attn.q_norm": (WIDTH,),
            f"{inner}.self_attn.k_norm": (WIDTH,),
            f"{inner}.self_attn.q_proj": (HEADS * WIDTH, HIDDEN),
            f"{inner}.self_attn.k_proj": (KV_HEADS * WIDTH, HIDDEN),
            f"{inner}.self_attn.v_proj": (KV_HEADS * WIDTH, HIDDEN),
            f"{inner}.self_attn.o_proj": (HIDDEN, HEADS * WIDTH),
            f"{inner}.mlp.gate_proj": (INNER, HIDDEN),
            f"{inner}.mlp.up_proj": (INNER, HIDDEN),
            f"{inner}.mlp.down_proj": (HIDDEN, INNER),
        }
    tensors = {}
    for name, shape in shapes.items():
        drawn = 0.02 * draw.standard_normal(shape, np.float32) if len(shape) > 1 else np.ones(shape)
        tensors[f"{name}.weight"] = drawn.astype(np.float16)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def measure(name: str, folder: str, tokens: int, recompute: bool) -> tuple[int, float]:
    """Return the peak of a gradient's memory over the loaded model (bytes), and CPU seconds."""
    from offapi.backend import load
    from offapi.episodes import Episode, Segment
    from offapi.model_spec import LoraSpec, ModelSpec

    backend = load(name, ModelSpec(Path(folder), lora=LoraSpec(), checkpointing=recompute))
    loaded = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    row = tuple(3 + (i * 7919) % 1000 for i in range(tokens))
    segments = (Segment(row[:-LEARNED], False), Segment(row[-LEARNED:], True))
    started = time.process_time()
    backend.forward_backward([Episode("row", segments)])
    return resident("VmHWM") - loaded, time.process_time() - started


def resident(key: str) -> int:
    """Return what Linux says of this process's memory, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


if __name__ == "__main__":
    main()
