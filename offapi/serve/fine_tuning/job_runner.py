"""One fine-tuning job at a time, in a thread that starts commands and follows what they write.

A job that was interrupted, whether by a signal or by a kill, is resumed when a runner starts again.
Left out: what a request may ask for (`offapi.serve.fine_tuning.endpoints`).
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import time
from typing import Any

import orjson

from offapi.errors import OffapiError
from offapi.serve.errors import ApiError
from offapi.serve.fine_tuning import job_recipe
from offapi.serve.fine_tuning.fine_tuned_models import FineTunedModels, clear_job
from offapi.serve.fine_tuning.job_process import JobProcess, end_leftover
from offapi.serve.fine_tuning.job_store import FineTuningJob, JobStore
from offapi.training.run import METRICS, PLAN

LOG = logging.getLogger("offapi.serve")
LOOK_SECONDS = 0.2  # between two looks at a running command


class Interrupted(Exception):
    """The job was cancelled, or the server ends."""


class CommandFailed(Exception):
    """A command of the job ended with an error."""

    def __init__(self, error: dict[str, str]) -> None:
        self.error = error
        super().__init__(error["code"])


class JobRunner:
    """Trains the queued jobs of `store` in their order, and gives each model to `models`."""

    def __init__(
        self, store: JobStore, backend: str, context: int | None, models: FineTunedModels
    ) -> None:
        self.store, self.backend, self.context, self.models = store, backend, context, models
        self._wake = threading.Condition()
        self._stopping = False
        self._doing: str | None = None
        self._thread = threading.Thread(target=self._run, name="offapi-jobs")

    def start(self) -> None:
        """Take up what an earlier server left: its jobs are queued again, in their order."""
        for job in self.store.jobs():
            if job.is_open and job.status != "queued":
                self.store.update(job.id, status="queued", estimated_finish=None)
            elif job.status in ("cancelled", "failed"):
                clear_job(self.store.job_folder(job.id))
        self._thread.start()

    def notice(self) -> None:
        """Look for new jobs, or for one that was cancelled."""
        with self._wake:
            self._wake.notify_all()

    def cancel(self, id: str) -> bool:
        """Cancel a job; return False for one that has ended. Return when its process has ended."""
        if not self.store.update(id, status="cancelled", finished_at=int(time())):
            return False
        self.store.add_event(id, "Fine-tuning job cancelled")
        with self._wake:
            self._wake.wait_for(lambda: self._doing != id)
        clear_job(self.store.job_folder(id))
        return True

    def close(self) -> None:
        """Stop the training at a checkpoint, and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._wake:
                self._doing = None
                self._wake.notify_all()
                while (job := self._next()) is None and not self._stopping:
                    self._wake.wait()
                if self._stopping or job is None:
                    return
                self._doing = job.id
            self._do(job)

    def _next(self) -> FineTuningJob | None:
        return next((job for job in self.store.jobs() if job.status == "queued"), None)

    def _do(self, job: FineTuningJob) -> None:
        """Do a job to its end, or to an interruption."""
        folder = self.store.job_folder(job.id)
        try:
            end_leftover(folder)
            self._train(job, folder)
            self._finish(job, folder)
        except Interrupted:
            pass  # a cancelled job's folder is cleared, another is taken up at the next start
        except CommandFailed as error:
            self._fail(job, error.error)
        except OffapiError as error:
            what = f"{error.where}: {error.what}" if error.where else error.what
            self._fail(job, {"code": error.code, "message": what, "next": error.next_step})
        except ApiError as error:
            self._fail(job, {"code": str(error.code), "message": error.message, "next": ""})
        except Exception as error:
            LOG.error("a fine-tuning job failed: %s", type(error).__name__)
            what = f"The job could not be done: {type(error).__name__}."
            self._fail(job, {"code": "server_error", "message": what, "next": ""})

    def _train(self, job: FineTuningJob, folder: Path) -> None:
        store = self.store
        resumes = (folder / job_recipe.RUN).exists()
        store.update(job.id, status="validating_files")
        said = "The training continues." if resumes else "Validating training file"
        store.add_event(job.id, said)
        if command := job_recipe.infer_task(job, folder):
            self._command(job, folder, command, lambda: None)
            store.add_event(job.id, "The task was inferred from the examples.")
        command = job_recipe.prepare_training(job, folder, self.backend, self.context)
        progress = _Progress(store, job, folder / job_recipe.RUN)
        self._command(job, folder, command, progress.look)
        progress.look()

    def _command(
        self, job: FineTuningJob, folder: Path, words: list[str], look: Callable[[], None]
    ) -> None:
        """Run a command to its end. Raise Interrupted or CommandFailed."""
        self._check(job)
        process = JobProcess(folder, words)
        try:
            while not process.ended(LOOK_SECONDS):
                look()
                self._check(job)
        except BaseException:
            process.stop()
            raise
        if not process.succeeded:
            raise CommandFailed(process.error())

    def _check(self, job: FineTuningJob) -> None:
        if self._stopping or not self.store.job(job.id).is_open:
            raise Interrupted

    def _finish(self, job: FineTuningJob, folder: Path) -> None:
        self._check(job)
        run = folder / job_recipe.RUN
        plan = orjson.loads((run / PLAN).read_bytes())
        last = orjson.loads((run / METRICS).read_bytes().splitlines()[-1])
        self.models.add(job, folder)
        with self.store.new_file() as content:
            content.write_bytes(_csv(run / METRICS))
            content.chmod(0o600)
            result = self.store.add_file(content, "step_metrics.csv", "fine-tune-results")
        done = self.store.update(
            job.id,
            status="succeeded",
            finished_at=int(time()),
            estimated_finish=None,
            steps=plan["steps"],
            train_loss=last["loss"],
            trained_tokens=plan["tokens"] * job.epochs,
            result_files=(result.id,),
        )
        if not done:  # it was cancelled in the last moment
            self.models.remove(job)
            self.store.delete_file(result.id)
            raise Interrupted
        self.store.add_event(job.id, f"New fine-tuned model created: {job.model_name}")
        self.store.add_event(job.id, "The job has successfully completed")

    def _fail(self, job: FineTuningJob, error: dict[str, str]) -> None:
        message = " ".join(part for part in (error["message"], error["next"]) if part)
        of_validation = job_recipe.VAL in message or job_recipe.VALIDATION in message
        shown = {
            "code": error["code"],
            "message": message,
            "param": "validation_file" if of_validation else "training_file",
        }
        changes: dict[str, Any] = {"error": shown, "finished_at": int(time())}
        if self.store.update(job.id, status="failed", estimated_finish=None, **changes):
            self.store.add_event(job.id, message, "error")
            clear_job(self.store.job_folder(job.id))


class _Progress:
    """What a training has written so far, as events and as the time it will end."""

    def __init__(self, store: JobStore, job: FineTuningJob, run: Path) -> None:
        self.store, self.job, self.run = store, job, run
        steps = (each["data"]["step"] for each in store.events(job.id) if each["data"])
        self.last = max(steps, default=0)  # reported before
        self.began: tuple[int, float] | None = None  # the first step seen, and when
        self.steps: int | None = None
        self.read = 0  # bytes of the metrics

    def look(self) -> None:
        """Report what is new."""
        if self.steps is None:
            with suppress(OSError):
                self.steps = orjson.loads((self.run / PLAN).read_bytes())["steps"]
                self.store.update(self.job.id, status="running", steps=self.steps)
        new = [row for row in self._new_rows() if row["step"] > self.last]
        for row in new:
            step, loss = row["step"], row["loss"]
            data = {"step": step, "total_steps": self.steps, "train_loss": loss}
            said = f"Step {step}/{self.steps}: training loss={loss:.2f}"
            self.store.add_event(self.job.id, said, "info", data)
        if new and self.steps is not None:
            self._expect(new[-1]["step"], self.steps)

    def _new_rows(self) -> list[dict[str, Any]]:
        path = self.run / METRICS
        if self.steps is None or not path.exists():
            return []
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self.read:
                self.read = 0  # cut back to the checkpoint that the training resumed from
            file.seek(self.read)
            data = file.read()
        whole = data.rfind(b"\n") + 1
        self.read += whole
        return [orjson.loads(line) for line in data[:whole].splitlines()]

    def _expect(self, step: int, steps: int) -> None:
        """Note when the training will end, from how long its steps took."""
        self.last, now = step, time()
        if self.began is None:
            self.began = (step, now)
        elif step > self.began[0]:
            each = (now - self.began[1]) / (step - self.began[0])
            self.store.expect(self.job.id, int(now + each * (steps - step)) + 1)


def _csv(path: Path) -> bytes:
    metrics = map(orjson.loads, path.read_bytes().splitlines())
    rows = [f"{row['step']},{row['loss']},{row['tokens']:.0f},{row['lr']}" for row in metrics]
    return ("\n".join(("step,train_loss,train_tokens,learning_rate", *rows)) + "\n").encode()
