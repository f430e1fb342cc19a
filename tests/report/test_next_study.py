"""The next study: its file is read, its space holds the old one, and launched it does better."""

from __future__ import annotations

import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hpo.errors import RequestError
from hpo.report.checks.run import run_checks
from hpo.report.data.results import read_results
from hpo.report.next_study import suggest_study, write_suggestion
from hpo.study import Study
from hpo.study.input.study_file import parse_definition, read_study
from tests.data import small_npz
from tests.report.helpers import BASELINE, filled
from tests.report.test_checks import diverged_above
from tests.report.test_checks import study as simulated
from tests.study.helpers import make_study
from tests.workers import make_worker

LOW = {"low": 1e-6, "high": 1e-3, "log": True}


def test_the_next_study_is_read_widened_and_begun_from_the_best(tmp_path: Path) -> None:
    made = filled(tmp_path, trials=30, parameters={"epochs": 4, "learning_rate": LOW})
    path = write_suggestion(made, tmp_path / "next.toml")
    _, definition, budget = read_study(str(path))
    wide, old = definition.space.varied[0].domain, made.space.varied[0].domain
    assert wide.high > old.high  # type: ignore[attr-defined]
    assert wide.low == old.low  # type: ignore[attr-defined]
    assert definition.seed == 1
    best = read_results(made).top(3)
    assert [table["learning_rate"] for table in definition.warm_start] == [row.params["learning_rate"] for row in best]
    study = make_study(tmp_path, "again", parameters={"learning_rate": LOW}, warm_start=[{"learning_rate": 1e-4}])
    assert study.trials()[0].system_attrs["fixed_params"] == {"learning_rate": 1e-4}
    assert budget.trials == 30


def test_the_next_study_has_the_constraints_of_this_one(tmp_path: Path) -> None:
    bounds = ["parameter_count <= 100000"]
    results = read_results(filled(tmp_path, trials=12, constraints=bounds))
    assert tomllib.loads(suggest_study(results, []))["constraints"] == bounds


def test_around_a_narrow_peak_the_next_space_is_narrower() -> None:
    results = simulated(lambda v: 0.9 * math.exp(-abs(math.log10(v["learning_rate"]) + 2.5) * 8), count=20)
    text = suggest_study(results, run_checks(results))
    narrow, old = tomllib.loads(text)["parameters"]["learning_rate"], results.space.varied[0].domain
    assert old.low <= narrow["low"] < 10**-2.5 < narrow["high"] < old.high
    assert math.log(narrow["high"] / narrow["low"]) < 0.7 * math.log(old.high / old.low)
    best = [row.params["learning_rate"] for row in results.top(3)]
    assert [table["learning_rate"] for table in tomllib.loads(text)["warm_start"]] == best


def test_a_bound_is_moved_to_where_trials_are_not_lost() -> None:
    results = simulated(change=diverged_above)
    (found,) = [each for each in run_checks(results) if each.check == "infeasible"]
    assert " above the whole better half in learning_rate" in found.evidence
    table = tomllib.loads(suggest_study(results, run_checks(results)))["parameters"]
    better = [row.params["learning_rate"] for row in results.ranked[: len(results.ranked) // 2]]
    assert table["learning_rate"]["high"] == max(better) < 10**-2.4
    assert table["learning_rate"]["low"] == results.space.varied[0].domain.low
    assert table["warmup"] == {"low": 0.0, "high": 0.2}  # the best lies at the edge of stability


def test_trials_that_are_lost_anywhere_move_no_bound() -> None:
    results = simulated(change=lambda row: replace(row, state="FAIL", values=None) if row.number % 3 == 0 else row)
    (found,) = [each for each in run_checks(results) if each.check == "infeasible"]
    assert found.level == "warning"
    assert not found.toml


def test_a_conditional_space_keeps_its_baseline(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=40, baseline=BASELINE))
    path = tmp_path / "next.toml"
    path.write_text(suggest_study(results, run_checks(results)))
    _, definition, _ = read_study(str(path))
    assert definition.baseline == BASELINE


def test_other_content_is_not_overwritten(tmp_path: Path) -> None:
    made, path = filled(tmp_path), tmp_path / "next.toml"
    assert write_suggestion(made, path) == write_suggestion(made, path)
    path.write_text("mine")
    with pytest.raises(RequestError, match="other content"):
        write_suggestion(made, path)


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        ({"warm_start": [{"learning_rate": 0.5}]}, r"warm_start\[0\].*learning_rate"),
        ({"warm_start": [{"learning_rate": 1e-4}, {}]}, r"warm_start\[1\].*learning_rate"),
        ({"warm_start": 3}, "list of tables"),
        ({"warm_start": [{"learning_rate": each} for each in (1e-4, 2e-4, 3e-4)], "trials": 2}, "are 3 trials"),
        ({"warm_start": [{"depth": 1}], "sampler": "grid", "parameters": {"depth": [1, 2]}}, "grid"),
    ],
)
def test_a_wrong_warm_start_is_refused(tmp_path: Path, keys: dict[str, Any], says: str) -> None:
    with pytest.raises(RequestError, match=says):
        parse_definition({"parameters": {"learning_rate": LOW}, "sampler": "random", **keys}, "s", tmp_path)


def test_an_adaptive_study_begins_with_its_baseline_and_warm_starts(tmp_path: Path) -> None:
    keys = {"baseline": {"learning_rate": 1e-5}, "warm_start": [{"learning_rate": 1e-4}]}
    study: Study = make_study(tmp_path, "tpe", sampler="tpe", parameters={"learning_rate": LOW}, **keys)
    assert [t.system_attrs["fixed_params"]["learning_rate"] for t in study.trials()] == [1e-5, 1e-4]


def test_launched_the_next_study_does_better(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    data = small_npz(tmp_path / "small.npz")
    low = {"low": 1e-6, "high": 1e-3, "log": True}
    keys: dict[str, Any] = {"optimizer": "sgd", "learning_rate": low, "epochs": 2, "width": 16, "depth": 1}
    made = make_study(
        tmp_path, "low", dataset=str(data), objective="val_loss", parameters=keys, trials=12, record_steps=True
    )
    make_worker(made).run()
    results = read_results(made)
    assert any(f.check == "boundary" and f.level == "warning" for f in run_checks(results))
    name, definition, budget = read_study(str(write_suggestion(made, tmp_path / "next.toml")))
    assert definition.record_steps
    after = Study.create(made.storage, name, definition, budget)
    make_worker(after).run()
    best, before = read_results(after).best, results.best
    assert best is not None
    assert best.value is not None
    assert before is not None
    assert before.value is not None
    assert best.value < before.value
