"""GRPO on torch elsewhere: TRL, and transformers with PEFT, set up as a careful user would.

Each arm runs in a separate process and uses nothing of offapi. Left out: vLLM, and kernels that
exist only for GPUs.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grpo_common import ALPHA, CLIP, LINEARS, LR, NO_END, RANK, Sampling, reward, timed
from pairs import Clock, Result, finish


def trl(arm: str, work: Result, folder: Path) -> None:
    """Time GRPOTrainer. Prompts are given as tokens, so it encodes no text."""
    sampling, tokens = Sampling(), list[int]()
    trainer = trl_trainer(trl_settings(arm, work, folder), work, sampling, tokens)
    clock = Clock(str(trainer.args.device))
    trainer.add_callback(stops(work, sampling, clock))
    trainer.train()
    finish(folder, clock, sum(tokens[work["warmup"] :]), phases=sampling.phases(clock))


def trl_settings(arm: str, work: Result, folder: Path) -> Any:
    """Return TRL's GRPOConfig."""
    from trl import GRPOConfig

    cpu = work["device"] == "cpu"
    return GRPOConfig(
        output_dir=str(folder / "trl"),
        model_init_kwargs={"dtype": "float32"},
        per_device_train_batch_size=work["prompts"] * work["group"],
        num_generations=work["group"],
        max_completion_length=work["completion"],
        generation_kwargs={"eos_token_id": NO_END},
        max_steps=work["warmup"] + work["steps"],
        learning_rate=LR,
        lr_scheduler_type="constant",
        loss_type="grpo",
        epsilon=CLIP,
        shuffle_dataset=False,
        gradient_checkpointing=arm == "trl-default",
        bf16=False,
        use_cpu=cpu,
        dataloader_pin_memory=not cpu,
        logging_strategy="no",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
    )


def trl_trainer(settings: Any, work: Result, sampling: Sampling, tokens: list[int]) -> Any:
    """Return a GRPOTrainer that times its sampling and adds each step's tokens to `tokens`."""
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoTokenizer
    from trl import GRPOTrainer

    class Counting(GRPOTrainer):  # type: ignore[misc]
        def _tokenize_prompts(
            self, prompts: list[str]
        ) -> tuple[list[list[int]], None, dict[str, Any]]:
            return [work["tokens"][int(prompt)] for prompt in prompts], None, {}

        def _generate_and_score_completions(self, inputs: Any) -> Any:
            with sampling.under_way():
                sampled = super()._generate_and_score_completions(inputs)
            tokens.append(int(sampled["completion_mask"].sum()))
            return sampled

    def rewards(completions: list[str], **_: Any) -> list[float]:
        return [reward(text) for text in completions]

    trainer = Counting(
        model=work["model"],
        reward_funcs=rewards,
        args=settings,
        train_dataset=Dataset.from_list([{"prompt": str(i)} for i in range(len(work["tokens"]))]),
        processing_class=AutoTokenizer.from_pretrained(work["model"], local_files_only=True),
        peft_config=LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, lora_dropout=0.0),
    )
    trainer.eos_token_ids = [NO_END]
    return trainer


def stops(work: Result, sampling: Sampling, clock: Clock) -> Any:
    """Return a trainer callback that runs `clock` over the steps after the warm-up."""
    from transformers import TrainerCallback

    class Stops(TrainerCallback):
        def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == 0 and not work["warmup"]:
                clock.start()

        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if state.global_step == work["warmup"] + work["steps"]:
                clock.stop()
            if state.global_step == work["warmup"]:
                sampling.seconds = 0.0
                clock.start()

    return Stops()


def peft_model(work: Result) -> Any:
    """Load the base with transformers, and a new adapter with PEFT."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    cuda = work["device"] == "auto" and torch.cuda.is_available()
    base: Any = AutoModelForCausalLM.from_pretrained(
        work["model"], dtype=torch.float32, local_files_only=True
    )
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=LINEARS, lora_dropout=0.0)
    model: Any = get_peft_model(base, config).to(
        "cuda" if cuda else work["device"].replace("auto", "cpu")
    )
    return model


def generate(model: Any, work: Result, prompts: list[list[int]], copies: int) -> list[list[int]]:
    """Generate with transformers, each prompt `copies` times; greedy if that is once."""
    import torch
    from transformers import GenerationConfig

    settings = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=work["completion"],
        do_sample=copies > 1,
        num_return_sequences=copies,
        temperature=1.0,
        top_k=0,
        top_p=1.0,
        eos_token_id=NO_END,
        pad_token_id=0,
    )
    tokens = torch.tensor(prompts, device=model.device)
    with torch.inference_mode():
        generated = model.generate(
            input_ids=tokens, attention_mask=torch.ones_like(tokens), generation_config=settings
        )
    answers: list[list[int]] = generated[:, tokens.shape[1] :].tolist()
    return answers


def hf_generate(_: str, work: Result, folder: Path) -> None:
    """Time generate with num_return_sequences; unlike offapi it keeps no logprobs."""
    model = peft_model(work).eval()

    def sample(prompts: list[list[int]]) -> int:
        return sum(map(len, generate(model, work, prompts, work["group"])))

    timed(work, folder, Clock(str(model.device)), sample)


def add_gradient(model: Any, work: Result, prompts: list[list[int]], at_once: int) -> int:
    """Add the gradient of GRPO's loss on the given completions, `at_once` rows at a time.

    Every row contains the prompt. Return the completion tokens processed.
    """
    import torch

    counted, group = 0, work["group"]
    for prompt, completions in zip(prompts, work["completions"], strict=True):
        for at in range(0, group, at_once):
            targets = torch.tensor(completions[at : at + at_once], device=model.device)
            advantages = torch.tensor(work["advantages"][at : at + at_once], device=model.device)[
                :, None
            ]
            rows = torch.cat(
                (torch.tensor(prompt, device=model.device).expand(len(targets), -1), targets), dim=1
            )
            logits = model(
                input_ids=rows, use_cache=False, logits_to_keep=targets.shape[1] + 1
            ).logits[:, :-1]
            logprobs = logits.log_softmax(-1).gather(2, targets[..., None])[..., 0]
            ratios = (logprobs - logprobs.detach()).exp()
            gain = torch.minimum(ratios * advantages, ratios.clamp(1 - CLIP, 1 + CLIP) * advantages)
            loss: Any = -gain.mean(1).sum() / (group * len(prompts))
            loss.backward()
            counted += targets.numel()
    return counted


def peft_loop(_: str, work: Result, folder: Path) -> None:
    """Time the obvious update: the prompt in every row, logits only where they count."""
    import torch

    model = peft_model(work)
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=LR, weight_decay=0.0)

    def update(_: list[list[int]]) -> int:
        counted = add_gradient(model, work, work["tokens"][-work["prompts"] :], work["group"])
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        return counted

    timed(work, folder, Clock(str(model.device)), update)


def gates(
    work: Result, prompts: list[list[int]], adapter: Mapping[str, Any]
) -> tuple[list[list[int]], dict[str, Any]]:
    """Return greedy tokens, and the adapter's gradient by PEFT's names, with `adapter` in place."""
    import torch

    model = peft_model(work).eval()
    matrices = {
        name.replace(".default.", "."): p for name, p in model.named_parameters() if p.requires_grad
    }
    for name, parameter in matrices.items():
        parameter.data = torch.tensor(adapter[name], device=model.device)
    answers = [generate(model, work, [prompt], 1)[0] for prompt in prompts]
    add_gradient(model, work, prompts, 1)
    return answers, {name: parameter.grad.cpu().numpy() for name, parameter in matrices.items()}
