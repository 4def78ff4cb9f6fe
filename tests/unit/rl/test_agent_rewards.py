"""What an agent is rewarded for: its whole chat by the checks, or its environment's score."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from offapi.rl.reward import Asked, Fault, Judged, Rewarder
from offapi.task import load_task
from offapi.workers.supervised import CallNote

TASK = """
import offapi
from offapi.checks import Verdict, matches_gold

def find(name: str) -> str:
    \"\"\"Find a name.

    Args:
        name: What to find.
    \"\"\"
    return name

class World:
    tools = ()

def used(document, answer, context):
    offered = [tool["function"]["name"] for tool in context.tools]
    assert context.gold is None
    return Verdict(float(offered == ["find"] and bool(context.messages[2].get("tool_calls"))), "")

task = offapi.Task(
    name="t", instructions="Find.", match={"a": "text"},
    schema={"type": "object", "properties": {"a": {"type": "string"}}},
    checks=CHECKS, WORLD,
)
"""
CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"name": "x"}'}}
CHAT: tuple[dict[str, Any], ...] = (
    {"role": "system", "content": "Find."},
    {"role": "user", "content": "d"},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
    {"role": "tool", "tool_call_id": "1", "content": "x"},
    {"role": "assistant", "content": '{"a": "x"}'},
)
UNUSED = (*CHAT[:2], CHAT[4], *CHAT[3:])


USED = '{"used": (used, 1.0), "gold": (matches_gold, 1.0)}'


def judge(folder: Path, asked: Sequence[Asked], checks: str, world: str) -> list[Judged] | Fault:
    (folder / "task.py").write_text(TASK.replace("CHECKS", checks).replace("WORLD", world))
    with asyncio.Runner() as loop:
        return Rewarder(load_task(folder / "task.py"), CallNote(), loop).judge(asked)


def test_checks_see_the_whole_chat_and_the_tools(tmp_path: Path) -> None:
    asked = [Asked("r", "d", '{"a": "x"}', {"a": "x"}, chat) for chat in (CHAT, UNUSED)]
    checks = USED
    judged = judge(tmp_path, asked, checks, "tools=(find,)")
    assert isinstance(judged, list)
    assert [(one.reward, one.parts["used"], one.fields) for one in judged] == [
        (1.0, 1.0, {"gold.a": 1.0}),
        (0.0, 0.0, {"gold.a": 1.0}),
    ]


def test_an_environments_score_stands_in_for_the_checks(tmp_path: Path) -> None:
    asked = [Asked("r", "d", "{}", None, CHAT, score) for score in (2.5, 0.0)]
    judged = judge(tmp_path, asked, '{"gold": (matches_gold, 1.0)}', "environment=World")
    assert isinstance(judged, list)
    assert [(one.reward, one.rewarded) for one in judged] == [
        (2.5, {"environment": 2.5}),
        (0.0, {"environment": 0.0}),
    ]
    mixed = [Asked("r", "d", "{}", None, UNUSED, score) for score in (None, 0.5)]
    judged = judge(tmp_path, mixed, USED, "tools=(find,)")
    assert isinstance(judged, list)
    assert [one.reward for one in judged] == [0.0, 0.5]
    silent = judge(
        tmp_path,
        [Asked("r", "d", "{}", None, CHAT)],
        '{"gold": (matches_gold, 1.0)}',
        "environment=World",
    )
    assert isinstance(silent, Fault)
    assert silent.what == "the environment gave no score, and no check is rewarded."
