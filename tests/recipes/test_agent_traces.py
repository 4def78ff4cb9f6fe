"""An agent's traces are graded as a whole, learned, and the student scored in episodes of its own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import recipe_folder
from recipe_folder import SHOPS, told

TASK = """
import offapi
from offapi.checks import from_tools, no_repeated_calls, supported, tool_used


def look(shop: str) -> str:
    \"\"\"Look a shop up.

    Args:
        shop: Its name.
    \"\"\"
    return shop + " Ltd"


task = offapi.Task(
    name="letters",
    instructions="Name the shop.",
    schema={"type": "object", "properties": {"shop": {"type": "string"}}, "required": ["shop"]},
    checks={
        "used": (tool_used("look"), 1.0),
        "once": (no_repeated_calls, 1.0),
        "from_tools": (from_tools("shop"), 1.0),
        "supported": (supported, 1.0),
    },
    match={"shop": "text"},
    tools=(look,),
    max_turns=2,
    max_answer_tokens=20,
)
"""


def trace(i: int, *, calls: int, answer: str, result: str = "{shop} Ltd") -> dict[str, Any]:
    """Return an agent's trace that calls `look` so often for the document's shop."""
    shop = SHOPS[i % len(SHOPS)] + chr(ord("a") + i)
    messages: list[dict[str, Any]] = [
        {"role": "system", "content": "Name the shop."},
        {"role": "user", "content": f"from {shop}, no {i}"},
    ]
    for at in range(calls):
        arguments = orjson.dumps({"shop": shop}).decode()
        function = {"name": "look", "arguments": arguments}
        call = {"id": f"call0000{at}", "type": "function", "function": function}
        found = {"role": "tool", "tool_call_id": call["id"], "content": result.format(shop=shop)}
        messages += [{"role": "assistant", "content": "", "tool_calls": [call]}, found]
    said = orjson.dumps({"shop": answer.format(shop=shop)}).decode()
    messages.append({"role": "assistant", "content": said})
    parameters = {"type": "object", "properties": {"shop": {"type": "string"}}}
    tool = {"type": "function", "function": {"name": "look", "parameters": parameters}}
    return {"id": f"t{i}", "messages": messages, "tools": [tool]}


def test_traces_of_an_agent_are_graded_whole_and_learned(tmp_path: Path, backend_name: str) -> None:
    keys: dict[str, Any] = {"prompt": "trace", "control": False, "epochs": 1.0, "batch_size": 2}
    recipe = recipe_folder.lay_out(tmp_path, "filtered_sft", count=8, **keys)
    recipe.write_text(recipe.read_text().replace('data = "train.jsonl"', 'traces = "train.jsonl"'))
    (tmp_path / "task.py").write_text(TASK)
    right = [trace(i, calls=1, answer="{shop} Ltd") for i in range(4)]
    wrong = [
        trace(4, calls=0, answer="{shop} Ltd"),
        trace(5, calls=2, answer="{shop} Ltd"),
        trace(6, calls=1, answer="Nowhere"),
        trace(7, calls=1, answer="Nowhere", result="Error: there is no shop Nowhere"),
    ]
    recipe_folder.write_jsonl(tmp_path / "train.jsonl", right + wrong)

    words = ["grade", "--task=task.py", "--traces=train.jsonl", "--out=graded.jsonl", "--json"]
    told(recipe_folder.offapi(*words, cwd=tmp_path))
    graded = [orjson.loads(line) for line in (tmp_path / "graded.jsonl").read_bytes().splitlines()]
    assert [row["grade"]["score"] for row in graded] == [1.0] * 4 + [0.25, 0.875, 0.5, 0.25]
    reasons = {name: row["reason"] for name, row in graded[4]["grade"]["checks"].items()}
    assert reasons == {
        "used": "not used: look",
        "once": "no call is repeated",
        "from_tools": "not supported: shop",
        "supported": "not supported: shop",
    }

    done = recipe_folder.offapi("train", str(recipe), "--backend", backend_name)
    assert done.returncode == 0, done.stderr
    run = tmp_path / "runs" / "filtered-sft"
    assert orjson.loads((run / "grading.json").read_bytes())["kept"] == 4
    assert orjson.loads((run / "plan.json").read_bytes())["rows"] == 4
    report = orjson.loads((run / "report.json").read_bytes())
    lines = (run / "predictions.jsonl").read_bytes().splitlines()
    assert report["episodes"]["n"] == len(lines) == report["n"]
    first = orjson.loads(lines[0])
    assert [message["role"] for message in first["messages"][:3]] == ["system", "user", "assistant"]
    assert first["episode"]["turns"] >= 1
