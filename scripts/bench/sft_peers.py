"""TRL's SFTTrainer and mlx-lm's LoRA trainer, set up as a careful user would for offapi's work.

Each runs in a separate process and uses nothing of offapi, except on Linux the BLAS that it opens
for MLX. Left out: kernels that exist only for GPUs (flash attention, Liger).
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from pairs import Clock, Result, finish

RANK, ALPHA, LR = 16, 32, 1e-4
LINEARS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
TRL = {
    "trl": (),  # batches padded to their longest row, SFTTrainer's default
    "trl-padding-free": ("padding_free",),  # a batch's rows end to end, as in packing
    # row by row, adding up the gradients: no padding, and the least memory
    "trl-accumulate": ("accumulate",),
}


def trl(arm: str, work: Result, folder: Path) -> None:
    """Time SFTTrainer on the rows in order. Rows are given as tokens, so it prepares no text."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    rows, batch, alone = work["rows"], work["batch"], "accumulate" in TRL[arm]
    cpu = work["device"] == "cpu"
    losses, tokens = [0.0] * (len(rows) // batch), [0] * (len(rows) // batch)

    class Counting(SFTTrainer):  # type: ignore[misc]
        def training_step(self, model: Any, inputs: Any, *rest: Any) -> Any:
            real = (
                inputs["attention_mask"].sum()
                if "attention_mask" in inputs
                else inputs["input_ids"].numel()
            )
            loss = super().training_step(model, inputs, *rest)
            tokens[self.state.global_step] += int(real)
            losses[self.state.global_step] += float(loss)
            return loss

    class Stops(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == work["warmup"]:
                clock.start()
            if state.global_step == len(losses):
                clock.stop()

    trainer = Counting(
        model=work["model"],
        args=SFTConfig(
            output_dir=str(folder / "trl"),
            model_init_kwargs={"dtype": work["dtype"]},
            per_device_train_batch_size=1 if alone else batch,
            gradient_accumulation_steps=batch if alone else 1,
            max_steps=len(losses),
            learning_rate=LR,
            lr_scheduler_type="constant",
            completion_only_loss=True,
            padding_free="padding_free" in TRL[arm],
            max_length=None,
            train_sampling_strategy="sequential",
            gradient_checkpointing=False,
            bf16=False,
            use_cpu=cpu,
            dataloader_pin_memory=not cpu,
            logging_strategy="no",
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
        ),
        train_dataset=Dataset.from_list([masked(row) for row in rows]),
        processing_class=AutoTokenizer.from_pretrained(work["model"], local_files_only=True),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, lora_dropout=0.0),
        callbacks=[Stops()],
    )
    clock = Clock(str(trainer.args.device))
    trainer.train()
    finish(folder, clock, sum(tokens[work["warmup"] :]), losses=losses)


def masked(row: Result) -> Result:
    """Return a row in SFTTrainer's format for tokenized rows."""
    given, tokens = row["given"], row["tokens"]
    return {"input_ids": tokens, "completion_mask": [0] * given + [1] * (len(tokens) - given)}


def mlx_lm(work: Result, folder: Path) -> None:
    """Time mlx-lm's trainer with its own batches (similar lengths, padded to 32) and loss."""
    import_module("offapi.backends.mlx_backend")  # opens the BLAS that offapi's arm has
    import mlx.core as mx
    import mlx.optimizers
    from mlx_lm import load
    from mlx_lm.tuner import trainer
    from mlx_lm.tuner.callbacks import TrainingCallback
    from mlx_lm.tuner.utils import linear_to_lora_layers

    rows, batch = [(row["tokens"], row["given"]) for row in work["rows"]], work["batch"]
    model = load(work["model"])[0]
    model.set_dtype(getattr(mx, work["dtype"]))
    model.freeze()
    linear_to_lora_layers(model, -1, {"rank": RANK, "scale": ALPHA / RANK, "dropout": 0.0})
    mx.eval(model.parameters())
    clock = Clock("gpu" if mx.default_device().type == mx.DeviceType.gpu else "cpu")
    batches: Any = trainer.iterate_batches
    loss: Any = trainer.default_loss
    inputs, spans = next(batches(rows[:batch], batch, 1 << 20))
    # Its loss counts one pad token per row, so for the comparison rows end one token earlier.
    first = loss(model, inputs, spans - mx.array([0, 1]))[0].item()
    steps = len(rows) // batch
    tokens: list[int] = []

    def counted(**options: Any) -> Any:
        for inputs, spans in batches(**options):
            tokens.append(int(spans[:, 1].sum().item()))
            yield inputs, spans

    class Stops(TrainingCallback):
        def on_train_loss_report(self, info: Result) -> None:
            if info["iteration"] == work["warmup"]:
                clock.start()
            if info["iteration"] == steps:
                clock.stop()

    trainer.train(
        model,
        mlx.optimizers.AdamW(learning_rate=LR, bias_correction=True),
        rows,
        args=trainer.TrainingArgs(
            batch_size=batch,
            iters=steps,
            steps_per_report=1,
            steps_per_save=steps + 1,
            max_seq_length=1 << 20,
            adapter_file=str(folder / "adapters.safetensors"),
        ),
        iterate_batches=counted,
        training_callback=Stops(),
    )
    finish(folder, clock, sum(tokens[work["warmup"] : steps]), losses=[first])
