"""The command line: what is listed, what is loaded, how failures are shown, what goes where."""

from __future__ import annotations

import errno
import json
import os
import pty
import select
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest

from offapi import cli
from offapi.cli.output import Output, options
from offapi.errors import (
    BackendError,
    ConfigError,
    DataError,
    GateFailed,
    ModelError,
    NetworkBlocked,
    RunError,
)

HEAVY = (
    "torch",
    "mlx",
    "transformers",
    "peft",
    "numpy",
    "scipy",
    "rich",
    "httpx2",
    "rapidfuzz",
    "msgspec",
    "psutil",
)


def loaded_after(code: str) -> set[str]:
    """Return the heavy packages that a fresh interpreter has imported after `code`."""
    code += f"\nimport sys; print(*({HEAVY!r} & sys.modules.keys()), sep=',', file=sys.stderr)"
    code = code.replace(f"{HEAVY!r} &", f"set({HEAVY!r}) &")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(done.stderr.split()[-1].split(",")) if done.stderr.split() else set()


Fake = Callable[[Callable[..., Any]], None]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Make a function that takes an Output into the command `offapi try`."""

    def add(function: Callable[..., Any]) -> None:
        tried = click.command()(options(function))
        monkeypatch.setitem(cli.COMMANDS, "try", "Try.")
        monkeypatch.setitem(sys.modules, "offapi.cli.try", SimpleNamespace(command=tried))

    return add


def raising(error: BaseException) -> Callable[[Output], None]:
    def fail(output: Output) -> None:
        output.say("started")
        raise error

    return fail


def test_help_lists_every_command_and_loads_none() -> None:
    assert loaded_after("from offapi import cli; assert cli.run(['--help']) == 0") == set()
    assert loaded_after("import offapi") == set()
    done = subprocess.run(
        [sys.executable, "-c", "from offapi.cli import main; main()", "-h"], capture_output=True
    )
    for name, line in cli.COMMANDS.items():
        assert f"{name} ".encode() in done.stdout
        assert line.encode() in done.stdout


def test_the_check_for_heavy_modules_can_fail() -> None:
    assert loaded_after("import rich") == {"rich"}


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_a_commands_own_help_agrees_and_stays_light(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command: click.Command = import_module(f"offapi.cli.{name}").command
    assert command.get_short_help_str(limit=200) == cli.COMMANDS[name]
    assert cli.run([name, "--help"]) == 0
    assert f"offapi {name}" in capsys.readouterr().out.split("Example", 1)[1]
    heavy = loaded_after(f"from offapi import cli; assert cli.run(['{name}', '--help']) == 0")
    assert heavy.isdisjoint({"torch", "mlx", "transformers", "peft", "scipy"})


def test_no_command_is_left_off_the_list() -> None:
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")} - {
        "__init__",
        "output",
        "transcript",
        "backend_option",
        "constrain_option",
        "endpoint_teacher",
        "label_agent",
        "quantize_option",
        "template_option",
        "traces_purge",
    }
    assert modules == set(cli.COMMANDS)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["tain"], "Did you mean 'train'?"),
        (["init"], "Missing argument"),
        (["init", "x", "--jsn"], "--json"),
        (["--nothing"], "No such option"),
        (["demo", "--backend=troch"], "unknown backend 'troch'. Did you mean 'torch'?"),
        (["train", "r.toml", "--backend=jax"], "unknown backend 'jax'. Known: mlx, torch."),
        (["eval", "--task=t.py", "--data=d.jsonl", "--backend=jax"], "Known: mlx, torch."),
        (
            ["label", "--task=t", "--data=d", "--teacher=local:m", "--out=o", "--backend=jax"],
            "Known: mlx, torch.",
        ),
    ],
)
def test_usage_errors_exit_2_and_name_the_nearest(
    arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert says in err
    assert "next: See `offapi" in err


def test_an_unknown_model_is_a_usage_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OFFAPI_HOME", str(tmp_path / "home"))
    assert cli.run(["init", str(tmp_path / "task")]) == 0
    (task, data), out = (
        (f"{tmp_path}/task/{name}" for name in ("task.py", "val.jsonl")),
        str(tmp_path / "out.jsonl"),
    )
    asked = [f"--task={task}", f"--data={data}", f"--out={out}"]
    for words in (
        ["eval", *asked, "--model=nowhere"],
        ["label", *asked, "--teacher=local:nowhere"],
        ["train", str(tmp_path / "task" / "sft.toml"), "--set=model=nowhere"],
        ["models", "verify", "nowhere"],
    ):
        capsys.readouterr()
        assert cli.run(words) == 2, words
        assert "no model 'nowhere'" in capsys.readouterr().err
    assert not Path(out).exists()


def test_usage_errors_are_json_with_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["tain", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert json.loads(err)["code"] == "usage"


def test_bare_offapi_shows_its_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run([]) == 2
    assert "Commands:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (
            DataError.at("bad row", path="a.jsonl", line=3, field="id", next_step="Fix it."),
            1,
            "data",
        ),
        (ModelError("gone", next_step="Fix it."), 1, "model"),
        (BackendError("gone", next_step="Fix it."), 1, "backend"),
        (RunError("locked", next_step="Fix it."), 1, "run"),
        (NetworkBlocked("refused", next_step="Fix it."), 1, "network"),
        (ConfigError("bad key", where="r.toml, line 2", next_step="Fix it."), 2, "config"),
        (GateFailed("too bad", next_step="Fix it."), 3, "gate"),
        (KeyboardInterrupt("Fix it."), 130, "interrupted"),
        (OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/full"), 1, "os"),
        (ZeroDivisionError("a fault"), 1, "unexpected"),
        (MemoryError(), 1, "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB."), 1, "memory"),
        (
            RuntimeError(
                "[metal::malloc] Attempting to allocate 9 bytes which is greater than ..."
            ),
            1,
            "memory",
        ),
    ],
)
def test_errors_say_what_where_next(
    error: BaseException,
    exit_code: int,
    code: str,
    command: Fake,
    capsys: pytest.CaptureFixture[str],
) -> None:
    command(raising(error))
    assert cli.run(["try"]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    assert "error: " in err
    assert "next: " in err
    assert "Traceback" not in err
    assert cli.run(["try", "--json"]) == exit_code
    out, err = capsys.readouterr()
    assert out == ""
    shown = json.loads(err)
    assert set(shown) == {"code", "message", "next"}
    assert shown["code"] == code
    assert shown["next"]
    if isinstance(error, DataError):
        assert shown["message"] == "a.jsonl, line 3, field 'id': bad row"


def test_a_lack_of_memory_says_what_to_lower(
    command: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    torch = pytest.importorskip("torch")
    command(lambda *_: torch.empty(10**15))
    assert cli.run(["try"]) == 1
    err = capsys.readouterr().err
    assert "the memory is full" in err
    assert "limits.train_tokens" in err


def test_an_interrupt_says_how_to_resume(command: Fake, capsys: pytest.CaptureFixture[str]) -> None:
    command(raising(KeyboardInterrupt("offapi train r.toml --resume")))
    assert cli.run(["try"]) == 130
    assert "next: offapi train r.toml --resume" in capsys.readouterr().err


def test_the_debug_variable_shows_the_traceback(
    command: Fake, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command(raising(ZeroDivisionError("a fault")))
    assert cli.run(["try"]) == 1
    err = capsys.readouterr().err
    assert "unexpected ZeroDivisionError: a fault" in err
    assert "OFFAPI_DEBUG=1" in err
    monkeypatch.setenv("OFFAPI_DEBUG", "1")
    assert cli.run(["try"]) == 1
    assert "Traceback" in capsys.readouterr().err


def talk(output: Output) -> None:
    output.say("words")
    with output.progress("working", 3) as advance:
        for done in range(1, 4):
            advance(done, "note")
            time.sleep(0.02)
    output.table(["name", "size"], [["a", 1], ["[b]", 22]])
    output.result({"a": 1})


def test_people_read_stderr_and_programs_stdout(
    command: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    command(talk)
    assert cli.run(["try"]) == 0
    out, err = capsys.readouterr()
    assert out == ""
    lines = [line.rstrip() for line in err.splitlines()]
    assert lines == [
        "words",
        "working ...",
        "working: 3/3, note",
        "name  size",
        "a     1",
        "[b]   22",
    ]
    assert cli.run(["try", "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"a": 1}
    assert out.count("\n") == 1
    assert err == ""


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """Return what `talk`, run as a command, writes to a terminal on stderr."""
    here = str(Path(__file__).parent)
    code = (
        f"import sys, click; sys.path.insert(0, {here!r}); from types import SimpleNamespace as"
        " N\nimport test_cli as t; from offapi import cli; from offapi.cli.output import"
        " options\ncli.COMMANDS['try'] = ''; sys.modules['offapi.cli.try'] ="
        " N(command=click.command()(options(t.talk)))\nsys.exit(cli.run(['try', *sys.argv[1:]]))"
    )
    ours, theirs = pty.openpty()
    inherited = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        env={**inherited, "TERM": "xterm", **environment},
    )
    os.close(theirs)
    seen = b""
    while select.select([ours], [], [], 20)[0]:
        try:
            piece = os.read(ours, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not piece:
            break
        seen += piece
    os.close(ours)
    assert child.wait(20) == 0, seen
    return seen.decode()


def test_a_terminal_gets_a_bar_and_plain_gets_none() -> None:
    assert "\x1b[" in on_a_terminal()
    for plain in (on_a_terminal("--plain"), on_a_terminal(NO_COLOR="1")):
        assert "\x1b" not in plain
        assert "working: 3/3, note" in plain


EVIL = "a\x1b[2Jb\u202ec\x9b1\x07\r\ud800"
SAFE = "a\ufffd[2Jb\ufffdc\ufffd1\ufffd\ufffd\ufffd"


def test_nothing_that_is_shown_steers_the_terminal(
    command: Fake, capsys: pytest.CaptureFixture[str]
) -> None:
    def show(output: Output) -> None:
        output.say(EVIL)
        output.table(("name",), [(EVIL,)])
        with output.progress(EVIL, 1) as advance:
            advance(1, EVIL)
        raise DataError(EVIL, where=f"{EVIL}\n   next: obey", next_step=EVIL)

    command(show)
    assert cli.run(["try"]) == 1
    err = capsys.readouterr().err
    assert err.count(SAFE) == 8
    assert not {"\x1b", "\u202e", "\x9b", "\x07", "\r", "\ud800"} & set(err)
    assert "\n   next: obey" not in err
    assert cli.run(["try", "--json"]) == 1
    assert not {"\x1b", "\u202e", "\x9b", "\x07", "\r"} & set(capsys.readouterr().err)


def test_a_file_name_and_an_id_are_shown_safely(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = tmp_path / "a\x1b]0;title\x07\u202e.jsonl"
    (tmp_path / "task.py").write_text(TASK)
    assert cli.run(["grade", f"--task={tmp_path}/task.py", f"--traces={missing}"]) == 1
    trace = {"id": "r\x1b[2J\u2066", "document": "one", "recorded_label": {"a": "x"}}
    (tmp_path / "t.jsonl").write_text(json.dumps(trace) + "\n")
    words = [f"--task={tmp_path}/task.py", f"--traces={tmp_path}/t.jsonl", "--show", "1"]
    assert cli.run(["grade", *words, f"--out={tmp_path}/out.jsonl"]) == 0
    err = capsys.readouterr().err
    assert "title" in err
    assert "r\ufffd[2J\ufffd" in err
    assert not {"\x1b", "\x07", "\u202e", "\u2066"} & set(err)


TASK = """
import os, sys
print("loading")
os.write(1, b"in C")
os.system("echo started")
import offapi
from offapi.checks import is_json
task = offapi.Task(
    name="t",
    instructions="Read.",
    schema={"type": "object", "properties": {"a": {"type": "string"}}},
    match={"a": "text"},
    checks={"json": (is_json, 1.0)},
)
"""


@pytest.mark.parametrize("json_", [True, False])
def test_what_a_task_file_prints_leaves_the_object_alone(tmp_path: Path, json_: bool) -> None:
    (tmp_path / "task.py").write_text(TASK)
    (tmp_path / "t.jsonl").write_text('{"id":"1","document":"x","recorded_label":{"a":"x"}}\n')
    words = ["grade", "--task=task.py", "--traces=t.jsonl", *(["--json"] if json_ else [])]
    code = f"import sys; from offapi.cli import main; sys.argv[1:] = {words!r}; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    if json_:
        assert json.loads(done.stdout)["rows"] == 1
        for printed in ("loading", "in C", "started"):
            assert printed in done.stderr


def test_a_command_leaves_no_core_dump() -> None:
    code = "import atexit, sys, resource; from offapi.cli import main\n"
    code += "atexit.register(lambda: print(*resource.getrlimit(resource.RLIMIT_CORE)))\n"
    code += "most = resource.getrlimit(resource.RLIMIT_CORE)[1]\n"
    code += "resource.setrlimit(resource.RLIMIT_CORE, (most, most))\n"
    code += "sys.argv[1:] = ['--version']\nmain()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.splitlines()[-1].split()[0] == "0"


@pytest.mark.parametrize(
    ("error", "said", "step"),
    [
        (OSError(errno.EMFILE, "Too many open files"), "too many open files.", "ulimit -n"),
        (PermissionError(errno.EPERM, "Not permitted", "/x/.lock"), "not permitted", "forbids"),
        (OSError(errno.ENOLCK, "No locks available", "/x"), "no locks", "local disk"),
        (OSError(errno.ESTALE, "Stale file handle", "/x"), "stale file handle", "disk"),
        (RuntimeError("Could not determine home directory."), "no home folder", "OFFAPI_HOME"),
    ],
)
def test_the_systems_errors_have_words_and_a_step(
    command: Fake, capsys: pytest.CaptureFixture[str], error: Exception, said: str, step: str
) -> None:
    command(raising(error))
    assert cli.run(["try"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert step in err
    assert "unexpected" not in err


def test_memory_advice_names_no_key_that_a_command_does_not_have(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failing = click.command()(options(raising(MemoryError())))
    for name, lowers in (("label", False), ("models", False), ("train", True)):
        monkeypatch.setitem(sys.modules, f"offapi.cli.{name}", SimpleNamespace(command=failing))
        assert cli.run([name]) == 1
        assert ("limits.train_tokens" in capsys.readouterr().err) is lowers
