"""What answering will take, said before it starts: time and memory, at most.

Left out: what is not known beforehand, such as answers that end early.
"""

from __future__ import annotations

from collections.abc import Sequence

from offapi.activation_memory import Account
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
    answer *= task.max_turns if task.is_agent else 1
    seconds = forecast.reading(machine.speed, prompts, answer * asking.readings)
    seconds *= len(documents) / len(prompts)
    rows = min(machine.limits.rollout_rows, len(documents) * asking.readings)
    dtype = resolve_dtype(predictor.dtype, machine.backend)
    account = Account.of(predictor.answering.model.path, machine.backend, dtype)
    memory = machine.used + account.sampling(rows, max(prompts) + answer, 0)
    progress.say(
        f"At most about {duration(seconds)}, {memory / 2**30:.1f} of"
        f" {machine.total / 2**30:.0f} GiB."
    )
