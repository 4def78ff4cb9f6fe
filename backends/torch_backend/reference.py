"""transformers' plain eager forward in float32: what a model computes, independent of the backend.

No packing, no cache of ours, no LoRA, one row at a time. Left out: speed, and every other dtype.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from transformers import AutoModelForCausalLM, GenerationConfig

from offapi.episodes import Floats
from offapi.model_spec import ModelSpec

from . import quantised


class LibraryModel:
    """One model on the CPU, read by transformers alone."""

    def __init__(self, folder: Path) -> None:
        auto: Any = AutoModelForCausalLM
        spec, cpu = ModelSpec(folder), torch.device("cpu")
        self.by = f"transformers {transformers.__version__}, eager, float32"
        self.model: Any = auto.from_pretrained(
            folder,
            dtype=torch.float32,
            attn_implementation="eager",
            experts_implementation="eager",
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
            **quantised.loading(spec, cpu),
        ).eval()
        quantised.settle(self.model, spec)
        self.model.generation_config.eos_token_id = None  # `generate` would merge it in, and stop

    def logprobs(self, tokens: tuple[int, ...]) -> Floats:
        """Return the logprobs (nats) of all tokens but the first, shape (T - 1,)."""
        row_T = torch.tensor(tokens)
        with torch.no_grad():
            logits_TV = self.model(row_T[None], use_cache=False).logits[0, :-1].double()
        found = torch.log_softmax(logits_TV, -1).gather(-1, row_T[1:, None])[:, 0]
        return np.asarray(found.numpy(), np.float32)

    def greedy(self, prompt: tuple[int, ...], count: int) -> tuple[list[int], list[float]]:
        """Return what `generate` says greedily after `prompt`, and each token's margin (nats)."""
        settings: Any = GenerationConfig
        row = torch.tensor([prompt])
        said = self.model.generate(
            row,
            attention_mask=torch.ones_like(row),
            generation_config=settings(
                do_sample=False,
                max_new_tokens=count,
                output_logits=True,
                return_dict_in_generate=True,
            ),
        )
        best = [logits[0].double().topk(2).values for logits in said.logits]
        margins = [float(first - second) for first, second in best]
        return said.sequences[0, len(prompt) :].tolist(), margins


def open_reference(folder: Path) -> LibraryModel:
    """Load the model; raise whatever transformers raises for a folder that it cannot read."""
    return LibraryModel(folder)
