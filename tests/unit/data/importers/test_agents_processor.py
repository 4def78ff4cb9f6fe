"""The tracing processor in the real OpenAI Agents SDK, whose agents talk to a scripted model.

What the model's server was sent and answered is compared with the imported traces. Left out: tools
that run at the provider, and sessions kept there.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import textwrap
import warnings
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from fake_llm_server import Server, Turn

from offapi.cli.traces import command
from offapi.data import traces
from offapi.data.importers import agents_processor
from offapi.data.importers.formats import agents_sdk
from offapi.data.importers.shared import reasons
from offapi.network import guard

agents: Any = pytest.importorskip("agents")
openai: Any = pytest.importorskip("openai")

ARGUMENTS = (
    '{"city":  "Zürich \\u00e9 \\"q\\" 北京 😀\\n", "n": 12345678901234567890, "x": 1.10, "unit":'
    " null}"
)
SEEN = '{"a":  1.10}\n\t"é\u2028😀"  '
SCRIPTS: Mapping[str, list[Turn]] = {
    "weather": [
        Turn(calls=[("w1", "look", ARGUMENTS)], thinking="I look."),
        Turn("Rain."),
        Turn("Let me see.", [("w2", "look", '{"city":"X"}')]),
        Turn("Sun."),
    ],
    "handoff": [
        Turn(calls=[("h1", "transfer_to_expert", "{}")]),
        Turn(calls=[("h2", "look", '{"city": "Y"}')]),
        Turn("The expert says."),
    ],
    "failing": [
        Turn(calls=[("f1", "fail", '{"city":"Z"}')]),
        Turn(calls=[("f2", "fail", '{"city":')]),
        Turn("It failed."),
    ],
    "parallel": [
        Turn(
            calls=[
                ("p1", "look", '{"city":"A"}'),
                ("p2", "fail", '{"city":"B"}'),
                ("p3", "look", '{"city":"C"}'),
            ]
        ),
        Turn("All seen."),
    ],
    "one": [Turn(calls=[("o1", "look", '{"city":"1"}')]), Turn("One.")],
    "two": [Turn(calls=[("t1", "look", '{"city":"2"}')]), Turn("Two.")],
}


def look(city: str, n: int = 0, x: float = 0.0, unit: str | None = None) -> str:
    """Look at the sky."""
    return SEEN


def fail(city: str) -> str:
    """Fail."""
    raise ValueError(f"no {city}")


async def converse(agent: Any, given: Any, stream: bool, group: str | None = None) -> Any:
    about = agents.RunConfig(group_id=group)
    if not stream:
        return await agents.Runner.run(agent, given, run_config=about)
    result = agents.Runner.run_streamed(agent, given, run_config=about)
    async for _ in result.stream_events():
        pass
    return result


async def run_all(url: str, model: str, stream: bool) -> None:
    """Run every script.

    A conversation of two turns, a handoff, failing and parallel calls, two runs at once.
    """
    client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
    about = {"model": getattr(agents, model)("scripted", openai_client=client)}
    about |= {"model_settings": agents.ModelSettings(max_tokens=4)}
    tools = [agents.function_tool(look, strict_mode=False), agents.function_tool(fail)]
    expert = agents.Agent(name="expert", instructions="You know.", tools=tools, **about)
    agent = agents.Agent(
        name="helper", instructions="You help.\nÜ", tools=tools, handoffs=[expert], **about
    )
    first = await converse(agent, "weather", stream, "talk")
    await converse(
        agent, [*first.to_input_list(), {"role": "user", "content": "And now?"}], stream, "talk"
    )
    for name in ("handoff", "failing", "parallel"):
        await converse(agent, name, stream)
    await asyncio.gather(*(converse(agent, name, stream) for name in ("one", "two")))
    await client.close()


def install(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Print the processor into a file and install it, as its description says.

    Return the file it writes.
    """
    printed = CliRunner().invoke(command, ["processor"]).stdout
    (folder / "agents_processor.py").write_text(printed, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(folder)
    monkeypatch.setenv(
        "OPENAI_API_KEY", "sk-nobody"
    )  # with a key the SDK's own export would be sent
    lines = (inspect.getdoc(agents_processor) or "").splitlines()
    exec(textwrap.dedent("\n".join(line for line in lines if line.startswith("    "))), {})
    return folder / "agent-traces.jsonl"


def imported(path: Path) -> list[traces.Trace]:
    """Return what `offapi traces import` makes of the file; nothing may be dropped."""
    out = path.with_name("traces.jsonl")
    done = CliRunner().invoke(
        command, ["import", "agents-sdk", str(path), "--out", str(out), "--json"]
    )
    assert json.loads(done.stdout)["dropped"] == {}
    return traces.read(out)


def as_calls(message: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    found = message.get("tool_calls") or ()
    return [(call["id"], call["function"]["name"], call["function"]["arguments"]) for call in found]


def check_request(body: Mapping[str, Any], trace: traces.Trace) -> None:
    """Check that the messages before the answer are those the server was sent."""
    *asked, _ = trace.messages
    if "messages" in body:
        assert asked == body["messages"]
        return
    given = (
        body["input"]
        if isinstance(body["input"], list)
        else [{"role": "user", "content": body["input"]}]
    )
    assert asked[0] == {"role": "system", "content": body["instructions"]}
    assert [message["content"] for message in asked if message["role"] == "user"] == [
        item["content"] for item in given if item.get("role") == "user"
    ]
    assert [call for message in asked for call in as_calls(message)] == [
        (item["call_id"], item["name"], item["arguments"])
        for item in given
        if item.get("type") == "function_call"
    ]
    assert [
        (message["tool_call_id"], message["content"])
        for message in asked
        if message["role"] == "tool"
    ] == [
        (item["call_id"], item["output"])
        for item in given
        if item.get("type") == "function_call_output"
    ]
    assert [tool["function"] for tool in trace.tools or ()] == [
        {name: value for name, value in tool.items() if name != "type"} for tool in body["tools"]
    ]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
def test_prompts_and_answers_come_back_unchanged(
    model: str, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the network guard on, since offapi is imported here, and nothing tried but loopback."""
    refused = guard.report()["refused"]
    path = install(tmp_path, monkeypatch)
    with Server(SCRIPTS) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        asyncio.run(run_all(server.url, model, stream))
    agents.flush_traces()
    assert guard.report()["refused"] == refused

    rows = imported(path)
    assert len(rows) == len(server.wire) == sum(map(len, SCRIPTS.values()))
    found = {
        (row.messages[1]["content"], sum(m["role"] == "assistant" for m in row.messages)): row
        for row in rows
    }
    asked: Counter[str] = Counter()
    for body, turn in server.wire:
        name = next(name for name, turns in SCRIPTS.items() if turn in turns)
        asked[name] += 1
        row = found[name, asked[name]]
        check_request(body, row)
        answer = row.messages[-1]
        assert (answer["content"], as_calls(answer)) == (turn.text, list(turn.calls))
        assert answer.get("reasoning_content", "") == turn.thinking
    groups = Counter(row.group for row in rows)
    assert groups["talk"] == 4
    assert sorted(groups.values()) == [2, 2, 2, 3, 3, 4]
    results = {
        m["tool_call_id"]: m["content"] for row in rows for m in row.messages if m["role"] == "tool"
    }
    assert (results["w1"], results["h1"]) == (SEEN, '{"assistant": "expert"}')
    assert all("error" in results[id] for id in ("f1", "f2", "p2"))


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("model", ["OpenAIChatCompletionsModel", "OpenAIResponsesModel"])
def test_an_answer_cut_off_or_not_recorded_is_not_used(
    model: str, stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = install(tmp_path, monkeypatch)

    async def ask(url: str) -> None:
        client = openai.AsyncOpenAI(base_url=url, api_key="none", max_retries=0)
        model_ = getattr(agents, model)("scripted", openai_client=client)
        agent = agents.Agent(
            name="a", model=model_, model_settings=agents.ModelSettings(max_tokens=3)
        )
        try:
            await converse(agent, "long", stream)
        except agents.exceptions.ModelBehaviorError:  # of Responses the SDK makes an error
            assert model == "OpenAIResponsesModel"
        kept_out = agents.RunConfig(trace_include_sensitive_data=False)
        await agents.Runner.run(agent, "secret", run_config=kept_out)
        await client.close()

    with Server({"long": [Turn("Once upon a", cut=True)], "secret": [Turn("Hush.")]}) as server:
        asyncio.run(ask(server.url))
    assert "Hush" not in path.read_text(encoding="utf-8")
    found = [row for line in path.open("rb") for row in agents_sdk.rows(json.loads(line))]
    cut = reasons.FAILED if model == "OpenAIResponsesModel" else reasons.CUT_OFF
    assert found == [cut, agents_sdk.NO_CONTENT]
