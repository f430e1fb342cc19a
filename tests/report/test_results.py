from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hpo.errors import RequestError
from hpo.report.data.results import read_results
from hpo.report.data.summary import study_summary
from hpo.report.data.trial_table import trial_table
from tests.report.helpers import BASELINE, add_foreign, filled
from tests.study.helpers import holder, make_study

MIXED = ("COMPLETE", "COMPLETE", "PRUNED", "FAIL", "diverged", "RUNNING")


def test_counts_and_failures(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, states=MIXED, trials=12))
    assert results.counts == {"COMPLETE": 4, "PRUNED": 4, "FAIL": 2, "RUNNING": 2, "WAITING": 0}
    assert results.failures == {"error": 2, "diverged": 2}
    assert results.remaining_trials == 2
    assert [row.number for row in results.trials] == list(range(12))
    assert results.trials[3].message is not None
    assert results.trials[3].message.startswith("ValueError")


def test_best_is_the_studys_best_and_top_is_in_order(tmp_path: Path) -> None:
    study = filled(tmp_path, states=MIXED, trials=24)
    results = read_results(study)
    best = study.best()
    assert best is not None
    assert results.best is not None
    assert results.best.number == best.number
    values = [row.value for row in results.top(5)]
    assert values == sorted(values, key=lambda value: -(value or 0))
    assert all(row.state == "COMPLETE" for row in results.top(5))


def test_smaller_is_better_where_the_objective_says_so(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, objective="parameter_count"))
    assert results.best is not None
    assert results.best.value == min(row.value for row in results.trials if row.value is not None)


def test_a_row_has_the_configuration_that_was_trained(tmp_path: Path) -> None:
    study = filled(tmp_path, baseline=BASELINE, trials=6)
    results = read_results(study)
    for trial, row in zip(study.trials(), results.trials, strict=True):
        assert row.config == study.config_of(trial)
        assert len(row.epochs) == 4
        assert row.best_epoch == 4
        assert row.baseline == (row.number == 0)


def test_waiting_trials_have_their_fixed_parameters(tmp_path: Path) -> None:
    results = read_results(make_study(tmp_path))
    assert all(row.state == "WAITING" and row.config is not None for row in results.trials)
    assert results.best is None
    assert results.started_at is None


def test_settings_have_one_name_for_alternatives(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=20))
    for row in results.trials:
        settings = results.settings(row)
        assert "learning_rate" in settings
        assert ("momentum" in settings) == (settings["optimizer"] == "momentum")


def test_pareto_front(tmp_path: Path) -> None:
    study = filled(tmp_path, objective=["val_accuracy", "parameter_count"], pruner="none", trials=20)
    results = read_results(study)
    assert {row.number for row in results.front} == {t.number for t in study.optuna_study.best_trials}
    assert results.best == results.front[0]
    assert [row["number"] for row in study_summary(results)["front"]] == [row.number for row in results.front]


def test_trials_of_others_are_shown_without_a_configuration(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=4)
    add_foreign(study, {"colour": "red", "number": 7}, 0.999)
    results = read_results(study)
    row = results.trials[4]
    assert row.extra
    assert row.config is None
    assert results.best == row
    told = trial_table(results)[4]
    assert told["colour"] == "red"
    assert told["number"] == 4
    assert told["parameter number"] == 7


def test_table_is_flat_and_even(tmp_path: Path) -> None:
    rows = trial_table(read_results(filled(tmp_path, states=MIXED, trials=12)))
    assert len({tuple(row) for row in rows}) == 1
    assert all(value is None or isinstance(value, str | int | float) for row in rows for value in row.values())
    assert list(rows[0])[:3] == ["number", "state", "val_accuracy"]


def test_summary_is_valid_json(tmp_path: Path) -> None:
    study = filled(tmp_path, states=MIXED, trials=12, baseline=BASELINE)
    for host in range(3):
        study.storage.register_worker(study.id, holder(f"host-{host}"))
    summary = study_summary(read_results(study))
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    running = [row["number"] for row in trial_table(read_results(study)) if row["state"] == "RUNNING"]
    assert running
    assert sorted(number for worker in summary["workers"] for number in worker["trials"]) == running
    for worker in summary["workers"]:
        assert (worker["host"], worker["gone"]) == ("here", False)
        assert (worker["epoch"], worker["epochs"]) == ((2, 4) if worker["trials"] else (0, 0))
    assert {row["state"] for row in summary["failed"]} <= {"FAIL", "PRUNED"}
    assert not summary["unattended"]
    assert summary["baseline"]["number"] == 0
    assert summary["best"]["config"]["epochs"] == 4


def test_unknown_number_is_answered_with_the_range(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=4))
    with pytest.raises(RequestError, match="no trial 9; its trials are 0 to 3"):
        results.trial(9)


@pytest.mark.integration
def test_reading_imports_nothing_heavy() -> None:
    modules = ["write", "data.results", "export_config", "chapters.order", "figures.overview"]
    heavy = "('torch', 'plotly', 'sklearn', 'scipy', 'jinja2', 'yaml')"
    imports = "import sys, " + ", ".join(f"hpo.report.{module}" for module in modules)
    code = f"{imports}; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
