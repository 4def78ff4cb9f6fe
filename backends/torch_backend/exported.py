"""Exported folders opened by transformers, and by peft on top of it, as a user would.

`offapi.export` compares what they compute with the run. Left out: sampling, and any
device but the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer

from offapi.episodes import Floats
from offapi.model_spec import ModelSpec

from . import quantised

Tokens = tuple[int, ...]


@dataclass(frozen=True)
class TransformersForm:
    """A model, and the tokenizer that was exported with it, if one was."""

    model: Any
    tokenizer: Any = None

    def logprobs(self, tokens: Sequence[int]) -> Floats:
        """Return the logprob (nats) of each token but the first."""
        with torch.no_grad():
            logits = self.model(torch.tensor([list(tokens)])).logits[0, :-1].float()
            all_logprobs = torch.log_softmax(logits, dim=-1)
            taken = all_logprobs.gather(1, torch.tensor(tokens[1:])[:, None])[:, 0]
        return np.asarray(taken.numpy(), np.float32)

    def greedy(self, prompt: Sequence[int], max_tokens: int, stop_ids: Sequence[int]) -> Tokens:
        """Return what `generate` gives without sampling."""
        asked = torch.tensor([list(prompt)])
        written = self.model.generate(
            asked,
            attention_mask=torch.ones_like(asked),
            max_new_tokens=max_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            eos_token_id=list(stop_ids),
            pad_token_id=stop_ids[0],
        )
        return tuple(written[0, len(prompt) :].tolist())

    def render(self, turns: Sequence[Mapping[str, str]]) -> Tokens | None:
        """Return the tokens that the exported tokenizer makes of a chat."""
        if self.tokenizer is None:
            return None
        text = self.tokenizer.apply_chat_template(
            list(turns), tokenize=False, add_generation_prompt=True
        )
        return tuple(self.tokenizer(text, add_special_tokens=False)["input_ids"])


def open_fused(folder: Path, base: Path) -> TransformersForm:
    """Open a fused model and its tokenizer."""
    del base
    return TransformersForm(_load(folder), AutoTokenizer.from_pretrained(folder))


def open_adapter(folder: Path, base: Path) -> TransformersForm:
    """Open an adapter with peft, on its base."""
    model: Any = PeftModel.from_pretrained(_load(base), folder)
    return TransformersForm(model.eval())


def _load(folder: Path) -> Any:
    spec = ModelSpec(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        local_files_only=True,
        trust_remote_code=False,
        **quantised.loading(spec, torch.device("cpu")),
    )
    quantised.settle(model, spec)  # else 4 bits are computed in bfloat16 on some CPUs
    return model.eval()
