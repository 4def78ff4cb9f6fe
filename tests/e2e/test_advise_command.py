"""`offapi advise` as a user runs it: flags, questions in a terminal, measured files, mistakes."""

from __future__ import annotations

import os
import pty
import subprocess
from pathlib import Path

import orjson
import pytest
from recipe_folder import apart, environment, offapi, start, told

TRACES = ("--narrow=yes", "--volume=400000", "--traces=5000", "--scorable=yes", "--terms=allowed")
QUESTIONS = 17


def in_terminal(*words: str, typed: str, cwd: Path) -> tuple[int, str]:
    """Run the installed command in a terminal, type `typed`; return exit code and output."""
    main, end = pty.openpty()
    process = subprocess.Popen(start(*words), stdin=end, stdout=end, stderr=end, cwd=cwd)
    os.close(end)
    os.write(main, typed.encode())
    shown = b""
    while True:
        try:
            more = os.read(main, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not more:
            break
        shown += more
    os.close(main)
    return process.wait(timeout=30), shown.decode(errors="replace")


def test_advice_for_people_and_for_programs(tmp_path: Path) -> None:
    people = offapi("advise", *TRACES, "--svg=way.svg", cwd=tmp_path)
    assert (people.returncode, people.stdout) == (0, "")
    for message in (
        "Recommendation: Graded",
        "Alternative:",
        "These answers would change the recommendation:",
        "rule of thumb",
        "Start with:",
    ):
        assert message in people.stderr
    assert people.stderr.startswith("Recommendation: "), "the verdict comes first"
    assert "━▶ [" not in people.stderr
    charted = offapi("advise", *TRACES, "--chart", cwd=tmp_path)
    assert charted.stderr.startswith(people.stderr.partition("Flowchart:")[0])
    assert "━▶ [" in charted.stderr
    assert (tmp_path / "way.svg").read_text().startswith("<svg ")
    found = told(offapi("advise", *TRACES, "--json", cwd=tmp_path))
    assert (found["road"], found["decided_by"], len(found["commands"])) == ("graded", "traces", 3)
    assert found["answers"]["volume"] == 400000


def test_every_question_in_a_terminal_can_be_skipped(tmp_path: Path) -> None:
    code, shown = in_terminal(
        "advise", "--volume=400000", typed="yes\n" + "\n" * (QUESTIONS - 2), cwd=tmp_path
    )
    assert code == 0, shown
    assert f"{QUESTIONS - 1} questions; Enter skips one" in shown
    assert "Do not train yet: collect first" in shown
    code, shown = in_terminal(
        "advise", typed="perhaps\nno\n" + "\n" * (QUESTIONS - 1), cwd=tmp_path
    )
    assert code == 0, shown
    assert "must be one of yes, no" in shown
    assert "Recommendation: Do not train." in shown


def test_a_terminal_closed_during_the_questions(tmp_path: Path) -> None:
    code, shown = in_terminal("advise", typed="\x04", cwd=tmp_path)
    assert code == 130
    assert "Traceback" not in shown


@pytest.mark.parametrize("flag", ["--json", "--no-input"])
def test_nothing_is_asked_when_a_program_reads(tmp_path: Path, flag: str) -> None:
    code, shown = in_terminal("advise", "--narrow=no", flag, typed="", cwd=tmp_path)
    assert code == 0
    assert "Enter skips" not in shown


def test_the_estimate_of_cost_is_used(tmp_path: Path) -> None:
    """At these prices a million requests pay, twenty thousand do not."""
    flags = [
        "--input-tokens=1000",
        "--output-tokens=100",
        "--price-in=3",
        "--price-out=15",
        "--seconds=0.2",
        "--json",
    ]
    for requests, recipe in (("1000000", "sft"), ("20000", "api")):
        (tmp_path / "cost.json").write_text(
            offapi("cost", f"--requests={requests}", *flags, cwd=tmp_path).stdout
        )
        found = told(
            offapi("advise", "--labels=900", "--measured=cost.json", "--json", cwd=tmp_path)
        )
        assert (found["road"], found["answers"]["volume"]) == (recipe, float(requests))
        volume = next(one for one in found["thresholds"] if one["name"] == "volume")
        assert volume["source"].startswith("measured: cost.json, break-even on a machine ")
        assert 20_000 < volume["value"] < 200_000


def test_growth_that_pays_favours_training(tmp_path: Path) -> None:
    flags = (
        "--requests=60000 --growth=0.08 --horizon-months=36 --input-tokens=1500 --output-tokens=150"
        " --price-in=2"
    )
    done = offapi("cost", *flags.split(), "--price-out=8", "--seconds=0.3", "--json", cwd=tmp_path)
    (tmp_path / "cost.json").write_text(done.stdout)
    assert told(done)["verdict"] == "pays"
    found = told(offapi("advise", "--labels=900", "--measured=cost.json", "--json", cwd=tmp_path))
    assert (found["road"], found["answers"]["volume"]) == ("sft", 60_000.0)


def test_a_flag_overrides_what_was_measured(tmp_path: Path) -> None:
    told_before = {
        "take": "sft",
        "rows": {"sft": {}, "teacher": {"report": {"all_fields": {"mean": 0.5}}}},
    }
    (tmp_path / "compare.json").write_bytes(orjson.dumps(told_before))
    words = ["advise", "--measured=compare.json", "--json"]
    assert told(offapi(*words, cwd=tmp_path))["answers"] == {
        "measured": "sft",
        "teacher_quality": 0.5,
    }
    found = told(offapi(*words, "--teacher-quality=90%", cwd=tmp_path))
    assert (found["answers"]["teacher_quality"], found["decided_by"]) == (0.9, "measured")


def test_it_imports_no_numbers(tmp_path: Path) -> None:
    done = apart(
        "advise", *TRACES, "--json", env=environment(PYTHONPROFILEIMPORTTIME="1"), cwd=tmp_path
    )
    assert told(done)["road"] == "graded"
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "offapi.advise.engine" in imported
    assert not imported & {"numpy", "scipy", "transformers", "torch", "mlx.core"}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "no question is answered"),
        (["--narrow=maybe"], 2, "must be one of yes, no"),
        (["--target=95"], 2, "0 to 1"),
        (["--volume=-5"], 2, "0 or more"),
        (["--narow=yes"], 2, "No such option"),
        (["--narrow=yes", "--svg=no/way.svg"], 2, "the folder does not exist"),
        (["--narrow=yes", "--measured=none.json"], 1, "cannot be read"),
        (["--narrow=yes", "--measured=odd.json"], 1, "does not hold a comparison"),
    ],
)
def test_mistakes_are_reported_and_nothing_is_written(
    tmp_path: Path, words: list[str], code: int, message: str
) -> None:
    (tmp_path / "odd.json").write_text("{}")
    done = offapi("advise", *words, "--json", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (code, "")
    error = orjson.loads(done.stderr)
    assert message in error["message"]
    assert error["next"]
    assert [path.name for path in tmp_path.iterdir()] == ["odd.json"]
