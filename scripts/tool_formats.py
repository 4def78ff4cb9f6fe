"""Print how chat templates write calls of tools, as the table of docs/agents.md has it.

Usage: .venv/bin/python scripts/tool_formats.py TEMPLATE.jinja...

Each template gets a tokenizer of bytes, whose special tokens are those that it names, so no model
is needed. Left out: what a model does with its template.
"""

from __future__ import annotations

import re
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

import tool_templates

from offapi.chat.chat import Chat
from offapi.chat.tool_format import ToolFormat
from offapi.chat.tool_trials import TOOLS
from offapi.errors import OffapiError

SPECIAL = re.compile(
    r'<\|?[\w"/]*\|[\w"/]*>|<[\w]+_of_turn>|<\w+_function_\w+>|<escape>|\[[A-Z_]+\]'
)
ENDS = (  # tokens at which generation stops, as the families' generation_config.json names them
    *("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<turn|>", "<|tool_response>", "<end_of_turn>"),
    *("<start_function_response>", "<|return|>", "<|call|>", "<|endoftext|>"),
)


def main(paths: list[str]) -> None:
    """Print a row for each template."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = tool_templates.loaded(Path(folder))
        print(
            "| template | calls | several in a turn | rewrites earlier turns |\n|---|---|---|---|"
        )
        for path in sorted(map(Path, paths)):
            print(f"| {path.stem} | {row(loaded, path.read_text('utf-8'))} |")


def row(loaded: Chat, template: str) -> str:
    """Return the cells after the template's name."""
    special = sorted({*SPECIAL.findall(template), "<|im_end|>"})
    ends = [token for token in special if token in ENDS]
    chat = tool_templates.chat_of(loaded, tool_templates.Form(template, special, ends))
    chat.tokenizer.bos_token, chat.tokenizer.eos_token = "<|turn|>", ends[0]
    try:
        form = ToolFormat.of(chat, TOOLS)
    except OffapiError as error:
        return f"none: {error.what} | | "
    answers = {True: "yes", False: "no"}
    return f"{form.name} | {answers[form.several]} | {answers[form.rewrites_history]}"


if __name__ == "__main__":
    main(sys.argv[1:])
