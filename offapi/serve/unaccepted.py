"""What is done with answers that are not accepted, as the command's options say.

Left out: which ones those are (`offapi.serve.acceptance`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from offapi.errors import ConfigError
from offapi.network.addresses import on_this_machine
from offapi.serve.escalation import KEY_OPTION, Escalation
from offapi.serve.review_queue import ReviewQueue
from offapi.serve.served_models import ServedModel
from offapi.teachers.address import api_key_from


@dataclass(frozen=True)
class UnacceptedOptions:
    """What the command asks for. `below` is a confidence; None: as the run's promise says.

    Raise ConfigError for options that say nothing without another one.
    """

    escalate: str | None = None  # base URL of the stronger endpoint
    escalate_model: str | None = None
    escalate_key_env: str | None = None
    ask: Path | None = None  # the review queue
    below: float | None = None

    def __post_init__(self) -> None:
        if self.below is not None and not self.asked:
            step = "Add --escalate URL or --ask FILE, or leave --below out."
            raise ConfigError("--below says what is done with nothing.", next_step=step)
        if self.escalate is None and (self.escalate_model or self.escalate_key_env):
            step = "Add --escalate http://HOST:PORT/v1, or leave the others out."
            raise ConfigError("--escalate names no endpoint.", next_step=step)

    @property
    def asked(self) -> bool:
        """Whether anything is done."""
        return self.escalate is not None or self.ask is not None

    def escalation(self, say: Callable[[str], None]) -> Escalation | None:
        """Return the stronger endpoint, if there is one. Raise ConfigError where it is none."""
        if self.escalate is None:
            return None
        key = api_key_from(self.escalate_key_env, KEY_OPTION)
        return Escalation(self.escalate, self.escalate_model, key, say=say)

    def review_queue(self) -> ReviewQueue | None:
        """Return the review queue, if there is one. Raise what opening it raises."""
        return None if self.ask is None else ReviewQueue(self.ask)

    def check(self, models: Sequence[ServedModel]) -> None:
        """Raise ConfigError unless every task that is served has a confidence."""
        if not self.asked:
            return
        option = "--escalate" if self.escalate is not None else "--ask"
        asked = [each for each in models if each.predictor.task is not None]
        if not asked:
            step = "Serve a run, or name its task with --task."
            raise ConfigError(f"{option} needs a task, and none is served.", next_step=step)
        for each in asked:
            how, _ = each.calibration.now()
            if how.promise is None:
                run = each.answering.run
                named = run.path if run else "RUN"
                why = how.no_promise or "it is not calibrated."
                raise ConfigError(
                    f"{option} needs to know how sure {each.name!r} is: {why}",
                    next_step=f"Calibrate it: offapi calibrate {named} --data REVIEWED.jsonl.",
                )


def opened(escalation: Escalation | None) -> AbstractContextManager[None]:
    """Return the block in which the endpoint, if there is one, may be reached."""
    return nullcontext() if escalation is None else escalation.open()


def say_unaccepted(
    escalation: Escalation | None, queue: ReviewQueue | None, below: float | None
) -> list[str]:
    """Return sentences on where documents go whose answers are not accepted."""
    which = "that the promise does not cover" if below is None else f"with a field below {below:g}"
    lines = []
    if escalation is not None:
        host = escalation.to.rpartition(":")[0] or escalation.to
        leaves = "" if on_this_machine(host) else ": they leave this machine"
        lines.append(f"Documents {which} go to {escalation.to}{leaves}.")
    if queue is not None:
        lines.append(f"Documents {which} are put into {queue.path}.")
    return lines
