"""What answering will take, said before it starts: time and memory, at most.

Left out: what is not known beforehand, such as answers that end early.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import orjson

from offapi.backend import resolve_dtype
from offapi.data.documents import Document
from offapi.predict.predict_documents import Asking
from offapi.predict.predictor import Predictor
from offapi.progress import Progress
from offapi.text.display import duration
from offapi.training import forecast

SAMPLED = 100  # documents whose prompts are measured


def say_outlook(
    predictor: Predictor, asking: Asking, documents: Sequence[Document], progress: Progress
) -> None:
    """Load the model, measure it, and say the time and memory that `documents` take at most."""
    machine = forecast.Machine.of(predictor.backend)
    step = -(-len(documents) // SAMPLED)
    task, answer = asking.task, asking.task.max_answer_tokens
    chat = asking.chat
    prompts = [len(chat.prompt(task.messages(each.text))) for each in documents[::step]]
    seconds = forecast.reading(machine.speed, prompts, answer * asking.readings)
    seconds *= len(documents) / len(prompts)
    rows = predictor.backend.limits.rollout_rows
    dtype = resolve_dtype(predictor.dtype, machine.backend)
    per_token = cache_bytes(predictor.answering.model.path, dtype)
    memory = machine.used + per_token * rows * (max(prompts) + answer)
    progress.say(
        f"At most about {duration(seconds)}, {memory / 2**30:.1f} of"
        f" {machine.total / 2**30:.0f} GiB."
    )


def cache_bytes(folder: Path, dtype: str) -> float:
    """Return the bytes of one token's keys and values in the model in `folder`."""
    config = orjson.loads((folder / "config.json").read_bytes())
    heads = config["num_attention_heads"]
    size = config.get("head_dim") or config["hidden_size"] // heads
    numbers = 2 * config.get("num_key_value_heads", heads) * size * config["num_hidden_layers"]
    return float(numbers * (4 if dtype == "float32" else 2))
