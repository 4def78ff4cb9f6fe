"""The model card: README.md of an exported folder, written from what export.json says.

Left out: whatever is not in those facts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from offapi.export.part import ExportedPart
from offapi.stats.interval import Interval
from offapi.text.display import plural

Facts = Mapping[str, Any]


def card_text(facts: Facts, parts: Sequence[ExportedPart]) -> str:
    """Return the card as Markdown."""
    sections = [
        _front(facts),
        _opening(facts, parts),
        _compared(facts),
        _origin(facts),
        _figures(facts),
        _calibration(facts),
        "\n".join(["## Limits", "", *(f"- {limit}" for limit in facts["limits"])]),
    ]
    return "\n\n".join(filter(None, sections)) + "\n"


def _front(facts: Facts) -> str:
    """Return the title, after the lines that model hubs read."""
    base, run = facts["base"], facts["run"]
    known = {"base_model": base["name"], "license": base["license"]}
    hub = [f"{name}: {orjson.dumps(value).decode()}" for name, value in known.items() if value]
    what = f"trained with the recipe `{run['recipe']}` on" if run else "as it is:"
    return "\n".join(
        [
            *("---", *hub, "---", "", f"# {facts['name']}", ""),
            f"A language model, {what} `{base['name']}`, exported by offapi {facts['offapi']}"
            f" (`--to {facts['to']}`).",
        ]
    )


def _opening(facts: Facts, parts: Sequence[ExportedPart]) -> str:
    lines = ["## How to open it", "", "`OUT` is this folder."]
    if any("BASE" in part.how_to_open for part in parts):
        base = facts["base"]
        lines[-1] += (
            f" `BASE` is a folder with the base model `{base['name']}`; on other weights the"
            " adapter means nothing."
        )
    for part in parts:
        fence = "python" if "import" in part.how_to_open else "sh"
        lines += ["", f"The {part.what}, with {part.tool}:", "", f"```{fence}", part.how_to_open]
        lines.append("```")
    return "\n".join(lines)


def _compared(facts: Facts) -> str:
    """Return what the check found, and what quantisation costs."""
    lines = [
        *("## Compared with the run", ""),
        *("| part | opened by | same greedy tokens | largest difference | mean | allowed |",),
        "|---|---|---|---|---|---|",
    ]
    for part in facts["parts"]:
        found = part["check"]
        allowed = f"{found['tolerance']:g} ({'mean' if found['quantised'] else 'largest'})"
        numbers = (found["largest_difference_nats"], found["mean_difference_nats"])
        largest, mean = (f"{number:.2g}" for number in numbers)
        greedy = f"{found['greedy_equal']} of {plural(found['prompts'], 'prompt')}"
        row = (part["what"], part["tool"], greedy, largest, mean, allowed)
        lines.append(f"| {' | '.join(row)} |")
    lines += ["", "Differences of log-probabilities are in nats, both sides in float32."]
    if bits := facts["trained_in_bits"]:
        lines += _other_bits(bits)
    for part in facts["parts"]:
        lines += _lost(part)
    return "\n".join(lines)


def _other_bits(found: Facts) -> list[str]:
    largest, mean = found["largest_difference_nats"], found["mean_difference_nats"]
    return [
        *("", f"The adapter was trained on the base in {found['bits']} bits. On the base as it"),
        f"is stored, log-probabilities differ by {mean:.2g} nats, {largest:.2g} at most.",
    ]


def _lost(part: Facts) -> list[str]:
    if part["accuracy"] is None:
        return ["", "What it costs in accuracy was not measured."] if part["bits"] else []
    data = part["accuracy"]["data"]
    lines = [
        *("", f"Accuracy of the {part['what']} on {plural(data['documents'], 'document')}"),
        f"(`{data['file']}`, SHA-256 `{data['sha256']}`), in percent with 95% intervals:",
        *("", "| | before | after | difference, in points |", "|---|---|---|---|"),
    ]
    for name, row in part["accuracy"]["rows"].items():
        before, after, difference = (Interval(**row[key]) for key in row)
        shown = (name, before.percent(), after.percent(), difference.points())
        lines.append(f"| {' | '.join(shown)} |")
    return lines


def _origin(facts: Facts) -> str:
    base, run = facts["base"], facts["run"]
    licence = base["license"] or "not stated in its folder; ask where you got it"
    lines = [
        *("## Where it comes from", "", f"- Base model: `{base['name']}`, licence: {licence}"),
        f"- SHA-256 of the base's weights: `{base['sha256']}`",
    ]
    if facts["adapter"]:
        lines.append(f"- SHA-256 of the adapter's weights: `{facts['adapter']['sha256']}`")
    if not run:
        return "\n".join(lines)
    lines += [
        f"- {name}: `{each['file']}`, SHA-256 `{each['sha256']}`"
        for name, each in run["files"].items()
        if name != "model"
    ]
    lines.append(f"- Trained on {run['backend'] or 'an unknown backend'}, begun {run['created']}")
    config = orjson.dumps(run["config"], option=orjson.OPT_INDENT_2).decode()
    lines += ["", f"The keys of the recipe `{run['recipe']}`:", "", "```json", config, "```"]
    return "\n".join(lines)


def _figures(facts: Facts) -> str:
    figures = facts.get("figures")
    if not figures:
        return "## Figures\n\nThe run's accuracy was not measured." if facts["run"] else ""
    lines = [
        *("## Figures", "", f"Of the run, on {plural(figures['n'], 'validation document')}, in"),
        *("percent with 95% intervals:", "", "| | right |", "|---|---|"),
    ]
    rows = {**figures["fields"], "all fields": figures["all_fields"]}
    lines += [f"| {name} | {Interval(**row).percent()} |" for name, row in rows.items()]
    return "\n".join(lines)


def _calibration(facts: Facts) -> str:
    made = facts.get("calibration")
    if not made:
        return "## Calibration\n\nThe run was not calibrated." if facts["run"] else ""
    lines = [
        *("## Calibration", ""),
        f"Of each field's accepted answers at most {100 * made['error']:g}% are wrong, with"
        f" probability {1 - made['delta']:g}.",
        f"This holds for answers that offapi binds (`{made['constrain']}`) and measures, and not"
        " for free answers of other tools.",
    ]
    if gone := made["withdrawn"]:
        lines.append(f"The promise was withdrawn on {gone['when']}.")
    lines += ["", "| field | accepted | of documents | wrong |", "|---|---|---|---|"]
    rows = {name: field["values"] for name, field in made["fields"].items()}
    for name, row in {**rows, "all fields": made["whole"]}.items():
        lines.append(f"| {name} | {row['accepted']} | {row['documents']} | {row['wrong']} |")
    return "\n".join(lines)
