"""The demo, in a smaller size, on the real model and on both backends."""

from dataclasses import asdict, replace
from pathlib import Path

import orjson
import pytest

from offapi import adapter
from offapi.cli.output import Output
from offapi.demo.run import RESULT, Sizes, open_folder, run
from offapi.errors import RunError
from offapi.models import Model

SMALL = Sizes(train=4, val=1, test=2, epochs=1.0)  # one step: what is learned is not the point


def test_from_model_to_student(tmp_path: Path, demo_model: Model, backend_name: str) -> None:
    outcome = run(backend_name, tmp_path, SMALL, Output(json=True))
    result = outcome.as_dict()
    assert list(result) == ["base", "teacher", "student", "run"]
    assert result["base"]["mean"] < 0.1 < result["teacher"]["mean"]
    for name in ("base", "teacher", "student"):
        assert set(result[name]) == {"n", "mean", "all_fields", "fields"}
        assert result[name]["n"] == SMALL.test
        assert set(result[name]["fields"]) == {"vendor", "date", "total"}
        assert all(0 <= i["low"] <= i["mean"] <= i["high"] <= 1 for i in result[name]["fields"].values())
    assert outcome.arms["student"].cost["prompt_tokens"] < 0.3 * outcome.arms["teacher"].cost["prompt_tokens"]
    folder = Path(result["run"])
    assert orjson.loads((folder / RESULT).read_bytes()) == result
    _, matrices = adapter.read(folder / "adapter")
    assert any(abs(matrix).max() > 0 for name, matrix in matrices.items() if "lora_B" in name)
    labels = (folder / "labels.jsonl").read_bytes().splitlines()
    assert len(labels) == SMALL.train
    assert open_folder(tmp_path, folder.name, {})[0].path.name == f"{folder.name}-2"  # a finished one is left alone


def test_an_unfinished_demo_is_not_gone_on_with_as_another(tmp_path: Path) -> None:
    first, _ = open_folder(tmp_path, "demo", {"demo": asdict(SMALL)})
    again, resume = open_folder(tmp_path, "demo", {"demo": asdict(SMALL)})
    assert resume
    assert again == first
    with again.lock(), pytest.raises(RunError, match=r"demo\.seed was 0"):
        again.resume({"demo": asdict(replace(SMALL, seed=1))})
