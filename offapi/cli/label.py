"""`offapi label`: label documents with a teacher model; show the cost before and after."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from offapi.cli.backend_option import backend_option
from offapi.cli.constrain_option import constrain_option
from offapi.cli.endpoint_teacher import CONCURRENCY, FOR_ENDPOINTS, TIMEOUT, endpoint_of
from offapi.cli.label_agent import label_with_agent
from offapi.cli.output import Output, options
from offapi.cli.template_option import template_option
from offapi.errors import ConfigError, TeacherError
from offapi.text.display import plural

if TYPE_CHECKING:
    from offapi.task import Task
    from offapi.teachers.labelling import LabellingPlan, LabellingTally, LabellingWatch
    from offapi.teachers.labels_file import Label
    from offapi.teachers.teacher import Teacher


@click.command(short_help="Label documents with a teacher model.")
@click.option(
    "--task",
    "task_file",
    type=click.Path(path_type=Path),
    required=True,
    help="Task file (Python), whose instructions and examples the teacher gets.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    required=True,
    help="Documents to label: a JSONL file of documents or traces, or a folder of .txt files.",
)
@click.option(
    "--teacher",
    "spec",
    metavar="TEACHER",
    required=True,
    help="Model that labels: local:NAME (a local model), http://HOST:PORT/v1 or https://... (an endpoint"
    " for chat completions), or recorded (the `recorded_label` of each document). Of a task with tools also"
    " script:FILE, Python that writes each turn from the known answer.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Labels file (JSONL), or of a task with tools its traces. New ones are appended, and documents in"
    " it are not asked again.",
)
@click.option(
    "--shots",
    type=click.IntRange(0),
    metavar="N",
    help="Number of worked examples in the prompt.  [default: all the task has]",
)
@click.option(
    "--limit",
    type=click.IntRange(1),
    metavar="N",
    help="Label only the first N documents.  [default: all]",
)
@click.option(
    "--retry-failed",
    is_flag=True,
    help="Ask again for documents that failed before. Without it, they are skipped.",
)
@constrain_option()
@template_option
@backend_option("Library that runs a local:NAME teacher")
@click.option(
    "--model",
    metavar="NAME",
    help="Endpoint: name of the model to ask.  [default: the server's default model]",
)
@click.option(
    "--concurrency",
    type=click.IntRange(1),
    metavar="N",
    help=f"Endpoint: number of requests sent at the same time.  [default: {CONCURRENCY}]",
)
@click.option(
    "--timeout",
    type=click.FloatRange(0, min_open=True),
    metavar="SECONDS",
    help=f"Endpoint: timeout per request, in seconds.  [default: {TIMEOUT:g}]",
)
@click.option(
    "--price-in",
    type=click.FloatRange(0),
    metavar="DOLLARS",
    help="Endpoint: price per million prompt tokens, in dollars. Without prices, no cost is shown.",
)
@click.option(
    "--price-out",
    type=click.FloatRange(0),
    metavar="DOLLARS",
    help="Endpoint: price per million answer tokens, in dollars. Give both prices or neither.",
)
@click.option(
    "--max-cost",
    type=click.FloatRange(0),
    metavar="DOLLARS",
    help="Endpoint: stop before the total cost of the labels file exceeds this many dollars. It needs"
    " the prices. Without it, there is no limit.",
)
@click.option(
    "--api-key-env",
    metavar="VARIABLE",
    help="Endpoint: name of the environment variable that holds the API key. Without it, no key is"
    " sent.",
)
@click.option(
    "--teacher-terms-checked",
    "terms_checked",
    is_flag=True,
    help=(
        "Confirm that the provider's terms allow training on its answers; most forbid it. Required for"
        " a teacher outside this machine and its network."
    ),
)
@options
def command(
    output: Output,
    *,
    task_file: Path,
    data: Path,
    spec: str,
    out: Path,
    shots: int | None,
    limit: int | None,
    retry_failed: bool,
    **settings: Any,
) -> None:
    """Label documents with a teacher model, for a student to learn from with the recipe distill.

    Use it when a stronger model can do your task and you have documents without answers. Before the
    first request it shows the number of documents, the prompt tokens and, with prices, the cost.
    Answers are stored unchanged, failures with their reason; the recipe distill drops answers that
    fail the checks. Options marked "Endpoint:" apply only when the teacher is a URL.

    Run the same command again to resume. Exit code 3: stopped at --max-cost.

    \b
    Examples:
      offapi label --task task.py --data docs.jsonl --teacher local:demo --out labels.jsonl
      offapi label --task task.py --data docs.jsonl --teacher http://127.0.0.1:8080/v1 --out l.jsonl
    """
    from offapi.data.documents import say_left_out
    from offapi.data.rows import read_documents
    from offapi.task import load_task
    from offapi.teachers.failures import failure_step
    from offapi.teachers.labelling import label_documents
    from offapi.teachers.teacher import parse_teacher

    task, rows = load_task(task_file), read_documents(data)[:limit]
    say_left_out(output, data)
    if task.is_agent:
        label_with_agent(
            output,
            task,
            rows,
            spec,
            out,
            task_file=task_file,
            retry_failed=retry_failed,
            settings={"shots": shots, **settings},
        )
        return
    unused = [name for name in FOR_ENDPOINTS if settings[name] is not None]
    if parse_teacher(spec).kind != "endpoint" and unused:
        named = ", ".join("--" + name.replace("_", "-") for name in unused)
        raise ConfigError(
            f"{named} needs an endpoint.",
            next_step="Leave it out, or name a URL with --teacher.",
        )
    teacher = _teacher(spec, task, out, output, settings)
    with _watch(output, teacher) as watch:
        tally = label_documents(
            task, rows, teacher, out, shots=shots, retry_failed=retry_failed, watch=watch
        )
    if tally.failed and not tally.ok:
        reasons = ", ".join(tally.failed)
        hint = failure_step(next(iter(tally.failed)), teacher.name, task.max_answer_tokens)
        raise TeacherError(f"no document was labelled: {reasons}.", where=str(out), next_step=hint)
    _show_forms(output, tally, task)
    output.result(_as_json(tally))


def _teacher(spec: str, task: Task, out: Path, output: Output, settings: dict[str, Any]) -> Teacher:
    """Return the teacher named by `spec`. Raise, before anything is written, if it refuses."""
    from offapi.teachers.teacher import parse_teacher

    named = parse_teacher(spec)
    level = settings["constrain"]
    if named.kind != "local" and level != "off":
        raise ConfigError(
            f"--constrain {level} needs a local teacher: it masks the model's own tokens, which"
            " neither an endpoint nor a recorded answer gives.",
            next_step="Name a teacher local:NAME, or leave --constrain out.",
        )
    if named.kind != "local" and settings["template"]:
        raise ConfigError(
            "--template needs a local teacher: an endpoint writes its prompts itself.",
            next_step="Name a teacher local:NAME, or leave --template out.",
        )
    if named.kind == "recorded":
        from offapi.teachers.recorded import Recorded

        return Recorded()
    if named.kind == "local":
        from offapi.backend import default_backend
        from offapi.models import store
        from offapi.teachers.local import Local

        backend = settings["backend"] or default_backend()
        bound = None if level == "off" else (task, level)
        return Local(
            store.get(named.target),
            backend,
            task.max_answer_tokens,
            say=output.say,
            constrain=bound,
            template=settings["template"],
        )
    endpoint = endpoint_of(named.target, task, output, settings, schema=task.schema)
    capped = endpoint.price and endpoint.max_cost is not None
    return _within_cap(endpoint, out) if capped else endpoint


def _within_cap(endpoint: Any, out: Path) -> Teacher:
    """Return `endpoint` with the cost of the labels that are already in the file."""
    from dataclasses import replace

    from offapi.teachers.labels_file import read_labels

    earlier = read_labels(out).labels if out.is_file() else ()
    paid = sum(
        endpoint.price.of(label.usage) for label in earlier if label.teacher == endpoint.name
    )
    teacher: Teacher = replace(endpoint, paid=paid)
    return teacher


@dataclass
class _Shown:
    """What has been answered in this run so far."""

    done: int = 0
    failed: int = 0
    cost: float = 0.0

    def note(self) -> str:
        """Write failures and cost for the progress line."""
        parts = [f"{self.failed} failed"] if self.failed else []
        if self.cost:
            parts.append(f"${self.cost:.4f}")
        return ", ".join(parts)


@contextmanager
def _watch(output: Output, teacher: Teacher) -> Iterator[LabellingWatch]:
    """Show the plan, then progress, then the tally, however it ends."""
    from offapi.teachers.labelling import LabellingWatch

    shown, price = _Shown(), teacher.price
    bar: list[Callable[..., None]] = []
    with ExitStack() as stack:

        def planned(plan: LabellingPlan) -> None:
            _show_plan(output, teacher, plan)
            if plan.asks:
                bar.append(stack.enter_context(output.progress("labelling", plan.asks)))

        def answered(label: Label) -> None:
            shown.done += 1
            shown.failed += label.status == "failed"
            shown.cost += price.of(label.usage) if price else 0.0
            bar[0](shown.done, shown.note())

        def ended(tally: LabellingTally) -> None:
            stack.close()
            _show_tally(output, tally)

        yield LabellingWatch(planned, answered, ended, output.say)


def _show_plan(output: Output, teacher: Teacher, plan: LabellingPlan) -> None:
    kept = f" ({plan.ok} labelled before)" if plan.ok else ""
    output.say(
        f"{teacher.name} will label {plan.asks} of {plural(plan.documents, 'document')}{kept}."
    )
    if plan.failed:
        output.say(f"Skipped, since they failed before: {plan.failed}; --retry-failed asks again.")
    if not plan.asks:
        return
    money = (
        "" if plan.cost is None else f", up to about ${plan.cost:.4f}" if plan.cost else ", free"
    )
    output.say(f"About {plural(plan.prompt_tokens, 'prompt token')}{money}.")


def _show_tally(output: Output, tally: LabellingTally) -> None:
    output.say(
        f"{tally.ok} of {plural(tally.documents, 'document')} labelled"
        + (f", {tally.left} still to ask." if tally.left else ".")
    )
    for reason, count in tally.failed.items():
        output.say(f"  {count} failed: {reason}")
    money = f", ${tally.cost:.4f}" if tally.cost else ""
    tokens = f"{tally.usage.prompt_tokens} prompt and {plural(tally.usage.completion_tokens, 'answer token')}"
    output.say(
        f"This run: {plural(tally.asked, 'answer')}, {tokens}, {tally.seconds:.1f} s{money}."
    )
    output.say(f"Labels: {tally.path}")


def _show_forms(output: Output, tally: LabellingTally, task: Task) -> None:
    """Say what stood around the labels, how many cannot be used, and what failed most."""
    from offapi.checks.answer_forms import count_forms
    from offapi.teachers.failures import failure_step

    answers = [task.read_answer(label.output) for label in tally.labels if label.status == "ok"]
    for line in count_forms(answers).lines():
        output.say(line)
    if tally.failed:
        output.say(failure_step(next(iter(tally.failed)), tally.teacher, task.max_answer_tokens))


def _as_json(tally: LabellingTally) -> dict[str, Any]:
    """Return the object that `--json` prints."""
    return {
        "labels": str(tally.path),
        "teacher": tally.teacher,
        "documents": tally.documents,
        "ok": tally.ok,
        "failed": dict(tally.failed),
        "left": tally.left,
        "asked": tally.asked,
        "prompt_tokens": tally.usage.prompt_tokens,
        "completion_tokens": tally.usage.completion_tokens,
        "seconds": round(tally.seconds, 3),
        "cost_usd": tally.cost,
    }
