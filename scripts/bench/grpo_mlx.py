"""GRPO on MLX elsewhere: mlx-lm-lora, set up as a careful user would for offapi's work.

Each arm runs in a separate process and uses nothing of offapi, except on Linux the BLAS that it
opens for MLX; malloc is as Linux has it. Left out: quantised bases.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

from grpo_common import ALPHA, CLIP, LR, RANK, Sampling, reward, timed
from pairs import Clock, Result, finish


def load(work: Result) -> tuple[Any, Any]:
    """Load mlx-lm's model with a new adapter, and a tokenizer whose tokens never end a text."""
    open_blas()
    import mlx.core as mx
    import mlx_lm
    from mlx_lm.tuner.utils import linear_to_lora_layers

    model, tokenizer, *_ = mlx_lm.load(work["model"])
    model.set_dtype(mx.float32)
    model.freeze()
    linear_to_lora_layers(model, -1, {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0})
    mx.eval(model.parameters())
    tokenizer.eos_token_ids = set()
    return model, tokenizer


def open_blas() -> None:
    """Open offapi's BLAS, before anything imports mlx.core; malloc stays as the peer has it."""
    # By its file: its package would set malloc, too, and import mlx.core.
    spec = find_spec("offapi")
    assert spec is not None
    assert spec.origin is not None
    root = Path(spec.origin).parent
    places = (root / "backends", root.parent / "backends")
    file = next(place for place in places if place.is_dir()) / "mlx_backend/linux_cpu/blas.py"
    found = spec_from_file_location("blas_of_offapi", file)
    assert found is not None
    assert found.loader is not None
    module = module_from_spec(found)
    sys.modules[found.name] = module  # its dataclass looks there
    found.loader.exec_module(module)
    module.open_fast()


def clock_here() -> Clock:
    """Return a clock for the device on which MLX computes."""
    import mlx.core as mx

    return Clock("gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu")


def at_once(arm: str, work: Result) -> int:
    """Return how many completions mlx-lm-lora decodes side by side; its default is one."""
    return int(work["group"]) if "-group" in arm else 1


def rollout(arm: str, work: Result, folder: Path) -> None:
    """Time mlx-lm-lora's rollouts alone."""
    model, tokenizer = load(work)
    trainer: Any = import_module("mlx_lm_lora.trainer.grpo_trainer")

    def sample(prompts: list[list[int]]) -> int:
        drawn = {"temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0}
        sizes = {
            "max_tokens": work["completion"],
            "group_size": work["group"],
            "batch_size": at_once(arm, work),
        }
        completions, *_ = trainer.generate_grpo(
            model, tokenizer, prompts, end_token="", **sizes, **drawn
        )
        return sum(completion.size for completion in completions)

    timed(work, folder, clock_here(), sample)


def step(arm: str, work: Result, folder: Path) -> None:
    """Time mlx-lm-lora's train_grpo on batches that always have the same prompts."""
    model, tokenizer = load(work)
    import mlx.optimizers
    from mlx_lm.tuner.callbacks import TrainingCallback

    trainer: Any = import_module("mlx_lm_lora.trainer.grpo_trainer")
    clock, sampling = clock_here(), Sampling()
    steps, n = work["warmup"] + work["steps"], work["prompts"]
    tokens: list[int] = []
    generate = trainer.generate_grpo

    def counted(*given: Any, **named: Any) -> Any:
        if not tokens and not work["warmup"]:
            clock.start()
        with sampling.under_way():
            sampled = generate(*given, **named)
        tokens.append(sum(completion.size for completion in sampled[0]))
        return sampled

    def batches(**_: Any) -> Iterator[Any]:
        for step in range(steps):
            yield work["tokens"][step * n : (step + 1) * n], [[]] * n, [""] * n, [""] * n, None

    class Stops(TrainingCallback):
        def on_train_loss_report(self, info: Result) -> None:
            if info["iteration"] == steps:
                clock.stop()
            if info["iteration"] == work["warmup"]:
                sampling.seconds = 0.0
                clock.start()

    def vowels(completions: Sequence[str], **_: Any) -> list[float]:
        return [reward(text) for text in completions]

    trainer.generate_grpo = counted
    trainer.train_grpo(
        model,
        None,
        tokenizer,
        mlx.optimizers.AdamW(learning_rate=LR, weight_decay=0.0, bias_correction=True),
        train_dataset=[()],
        reward_funcs=[vowels],
        args=trainer.GRPOTrainingArgs(
            batch_size=at_once(arm, work),
            iters=steps,
            steps_per_report=1,
            steps_per_save=steps + 1,
            adapter_file=str(folder / "adapters.safetensors"),
            group_size=work["group"],
            beta=0.0,
            epsilon=CLIP,
            max_completion_length=work["completion"],
            temperature=1.0,
            top_p=1.0,
            top_k=0,
        ),
        iterate_batches=batches,
        training_callback=Stops(),
        end_answer_token="",
    )
    finish(folder, clock, sum(tokens[work["warmup"] :]), phases=sampling.phases(clock))


def gates(
    work: Result, prompts: list[list[int]], adapter: Mapping[str, Any]
) -> tuple[list[list[int]], dict[str, Any]]:
    """Return mlx-lm's greedy tokens, and the gradient of mlx-lm-lora's loss, row by row."""
    model, tokenizer = load(work)
    import mlx.core as mx
    import numpy as np
    from mlx.nn.utils import value_and_grad
    from mlx.utils import tree_flatten
    from mlx_lm import batch_generate

    trainer: Any = import_module("mlx_lm_lora.trainer.grpo_trainer")
    names = {
        f"{path}.lora_{m.lower()}": f"base_model.model.{path}.lora_{m}.weight"
        for path, module in model.named_modules()
        if hasattr(module, "lora_a")
        for m in ("A", "B")
    }
    model.load_weights(
        [(own, mx.array(adapter[name].T)) for own, name in names.items()], strict=False
    )
    greedy = batch_generate(
        model, tokenizer, prompts, max_tokens=work["completion"], return_token_ids=True
    )
    slope = value_and_grad(model, trainer.grpo_loss)
    total = {name: np.zeros_like(adapter[name]) for name in names.values()}
    for i, completions in enumerate(work["completions"]):
        for completion, advantage in zip(completions, work["advantages"], strict=True):
            options = {
                "beta": 0.0,
                "epsilon": CLIP,
                "batch_indices": [i],
                "advantages": mx.array([advantage]),
            }
            _, gradient = slope(
                model, None, (prompts,), completions=[mx.array(completion)], **options
            )
            flat: Any = tree_flatten(gradient)
            for own, array in flat:
                total[names[own]] += np.array(array).T / (len(prompts) * len(completions))
    return greedy.token_ids or [], total
