"""A task folder made from one's own rows, summed up: on the console and in its README."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from offapi.text.display import plural

NAMED = 5  # rows left out that are listed


@dataclass(frozen=True)
class FolderSummary:
    """What was read and inferred. `logged`: the rows are chats of a log; `text`: so are answers."""

    folder: Path
    source: str
    rows: int
    facts: tuple[str, ...]
    unsure: tuple[str, ...]
    left_out: tuple[tuple[str, str], ...]
    sizes: tuple[int, int, int]  # rows to learn from, to validate on, to test on
    examples: int
    candidate: bool  # held-out answers are a log's, to be confirmed
    logged: bool
    chats: bool
    text: bool

    @property
    def train(self) -> str:
        """The recipe to begin with."""
        if self.logged:
            return "filtered_sft"
        return "sft" if self.sizes[1] else "distill"

    def lines(self) -> list[str]:
        """Return the summary, sentence by sentence."""
        train, val, test = self.sizes
        lines = [f"Read {plural(self.rows, 'row')} from {self.source}."]
        lines += [f"{fact[0].upper()}{fact[1:].removesuffix('.')}." for fact in self.facts]
        if self.left_out:
            named = "; ".join(f"{id}: {why}" for id, why in self.left_out[:NAMED])
            more = f"; and {len(self.left_out) - NAMED} more" if len(self.left_out) > NAMED else ""
            rows = plural(len(self.left_out), "row")
            lines.append(f"Left out {rows}, kept in left-out.jsonl: {named}{more}.")
        lines += [f"Unsure: {note}." for note in self.unsure]
        if not val + test:
            return [*lines, f"{plural(train, 'document')} to label, in train.jsonl."]
        split = f"Split: {train} to learn, {val} to validate on, {test} to test on"
        return [*lines, f"{split}; near-duplicates stay together."]

    def as_dict(self) -> dict[str, object]:
        """Return what `--json` adds."""
        train, val, test = self.sizes
        rows = {"read": self.rows, "train": train, "val": val, "test": test}
        rows["left_out"] = len(self.left_out)
        return {"rows": rows, "inferred": self.facts, "unsure": self.unsure,
                "left_out": dict(self.left_out), "commands": self.commands()}  # fmt: skip

    def commands(self) -> list[str]:
        """Return the next commands."""
        run = f"runs/{self.train.replace('_', '-')}/adapter"
        commands = ["offapi models add demo", f"offapi train {self.folder / self.train}.toml"]
        if self.sizes[2]:
            commands.append(
                f"offapi eval --task {self.folder / 'task.py'} --data {self.folder / 'test.jsonl'}"
                f" --adapter {run}"
            )
        return commands

    def next_steps(self) -> list[str]:
        """Return what a person should do, in order."""
        steps = ["Read `task.py`: instructions, fields, checks. Change what is wrong."]
        if self.candidate:
            steps.append(
                "Read `val.jsonl` and `test.jsonl`: their `gold` is what the log answered, a"
                " candidate. Correct it and set `confirmed` to true: until then accuracy means how"
                " often the student says what the log says."
            )
        elif not self.sizes[1]:
            steps.append(
                "Write `val.jsonl`: fifty documents with `gold`, the answer that you know is right."
            )
        if self.text:
            steps.append("Write a check for each thing that a good answer must or must not say.")
        return steps


def write_readme(summary: FolderSummary, files: Sequence[str]) -> str:
    """Return the README of the folder."""
    about = {
        "task.py": "the task: instructions, format, checks, worked examples",
        "train.jsonl": "the documents to learn from",
        "traces.jsonl": "the logged chats to learn from",
        "val.jsonl": "held-out rows that every recipe scores at its end",
        "test.jsonl": "held-out rows to measure on, once",
        "left-out.jsonl": "rows that were not used, each with its reason",
    }
    about |= {name: "the names that a field may have" for name in files if name.endswith(".txt")}
    rows = [f"| `{name}` | {about.get(name, 'a recipe')} |" for name in files]
    lines = [f"- {line}" for line in summary.lines()]
    steps = [f"{i}. {step}" for i, step in enumerate(summary.next_steps(), start=1)]
    commands = [f"    {command}" for command in summary.commands()]
    comparing = _comparing(summary) if "compare.toml" in files else []
    parts = [
        [f"# {summary.folder.name}"],
        ["Written by `offapi init`. What it rests on:"],
        lines,
        ["Do this next:"],
        steps,
        ["Then train and measure; it runs as it is, too:"],
        commands,
        *comparing,
        ["| file | what it is |", "|---|---|", *rows],
    ]
    return "\n\n".join(map("\n".join, parts)) + "\n"


def _comparing(summary: FolderSummary) -> list[list[str]]:
    recipe = " --recipe filtered_sft" if summary.logged else ""
    compare, curve = (
        f"    offapi {name} {summary.folder / 'compare.toml'}" for name in ("compare", "curve")
    )
    return [
        ["Which recipe pays, and whether more rows would help:"],
        [f"{compare} --dry-run", f"{curve}{recipe} --dry-run"],
    ]
