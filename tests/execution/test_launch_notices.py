"""Notices of a launch: trials that cannot join a cohort, and names and data that were given in part."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import hpo
from hpo.datasets import DatasetSource
from hpo.datasets.memory_data import save_data
from hpo.errors import RequestError, StudyConflictError
from hpo.execution.launch import plan_launch
from hpo.study import Study, StudyStorage
from hpo.study.slots import fixed_trials
from tests.data import small_npz
from tests.helpers import run_hpo

GRID = {"optimizer": ["adam", "lbfgs"], "epochs": [1, 2], "widths": ["4", "5"]}


def told(folder: Path) -> dict[str, str]:
    """Return a data set whose task is said, so that no notice is on that."""
    return {"path": str(small_npz(folder / "small.npz")), "task": "classification"}


def notices(folder: Path, sampler: str = "grid", **parameters: object) -> tuple[str, ...]:
    data = told(folder)
    trials = None if sampler == "grid" else 7
    plan = plan_launch(
        None, name="one", dataset=data, sampler=sampler, trials=trials, parameters={**GRID, **parameters}
    )
    return plan.notices


def test_a_grid_says_how_many_trials_use_lbfgs(tmp_path: Path) -> None:
    assert notices(tmp_path) == ("4 of 8 trials use lbfgs, which trains one model at a time, not in a cohort",)


def test_a_random_studys_trials_are_counted_exactly(tmp_path: Path) -> None:
    data = told(tmp_path)
    plan = plan_launch(None, name="one", dataset=data, sampler="random", trials=7, parameters=GRID)
    count = [params["optimizer"] for params in fixed_trials(plan.definition, 0, 7)].count("lbfgs")
    assert 0 < count < 7
    (notice,) = plan.notices
    assert notice.startswith(f"{count} of 7 trials use lbfgs")


def test_an_adaptive_study_does_not_know_how_many(tmp_path: Path) -> None:
    assert notices(tmp_path, "tpe") == ("trials with lbfgs train one model at a time, not in a cohort",)


def test_nothing_is_said_without_such_trials(tmp_path: Path) -> None:
    assert notices(tmp_path, optimizer=["adam", "sgd"]) == ()
    assert notices(tmp_path, "tpe", optimizer=["adam", "sgd"]) == ()


def test_a_missing_package_of_an_optimizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert notices(tmp_path, optimizer=["adam", "schedule_free_adamw"]) == ()
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (notice,) = notices(tmp_path, optimizer=["adam", "schedule_free_adamw"])
    assert notice == (
        "where a model trains alone, schedule_free_adamw needs the package schedulefree, which is missing here: "
        "pip install 'torch-hpo[schedulefree]'"
    )


def test_launch_prints_it_before_it_begins(tmp_path: Path) -> None:
    data = small_npz(tmp_path / "small.npz")
    (tmp_path / "one.toml").write_text(
        f'dataset = "{data}"\ntask = "classification"\nsampler = "grid"\n'
        '[parameters]\nwidths = "4"\nepochs = 1\noptimizer = ["lbfgs", "sgd"]\n'
    )
    line = "note: 1 of 2 trials use lbfgs, which trains one model at a time, not in a cohort\n"
    for more in (["--dry-run"], ["--workers", "0"]):
        done = run_hpo("launch", "./one.toml", *more, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert done.stderr.startswith(line)
    again = run_hpo("launch", "one", "--workers", "0", cwd=tmp_path)
    assert again.stderr.startswith(line)
    without = run_hpo("launch", "./one.toml", "--set", "optimizer=sgd", "--name", "two", "--dry-run", cwd=tmp_path)
    assert without.stderr == ""


def test_data_that_changed_are_found_before_a_worker_starts(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("a,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(60)))
    launch = ["launch", "--dataset", "d.csv", "--label", "y", "quickstart", "--name", "data", "--workers", "0"]
    assert run_hpo(*launch, cwd=tmp_path).returncode == 0
    path.write_text("a,y\n" + "".join(f"{i % 9},{i % 2}\n" for i in range(60)))
    done = run_hpo("launch", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert "d.csv: is not the file that the study was made with" in done.stderr
    assert "worker" not in done.stderr.splitlines()[-1]


def test_a_call_with_data_alone_is_the_quickstart_under_the_name_of_the_file(tmp_path: Path) -> None:
    storage, data = f"sqlite:///{tmp_path / 'none.db'}", str(small_npz(tmp_path / "small.npz"))
    plan = plan_launch(None, storage, dataset=data)
    assert plan.name == "small"
    assert plan.notices[:2] == (
        "study small: named after the data; give it another name with name=…",
        "no study, space or parameters are given: it is the template quickstart",
    )
    template = plan_launch("quickstart", storage, dataset=data)
    assert (plan.definition, plan.budget) == (template.definition, template.budget)
    own = plan_launch(None, storage, dataset=data, parameters={"learning_rate": [0.1, 0.2]})
    assert (own.name, len(own.definition.space.varied)) == ("small", 1)
    with pytest.raises(RequestError, match="needs a name"):
        plan_launch(None, storage, parameters={"learning_rate": [0.1, 0.2]})


def test_data_of_a_session_have_no_name_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HPO_HOME", str(tmp_path))
    random = np.random.default_rng(0)
    data = save_data((random.random((60, 4)), random.random(60)))
    assert plan_launch(None, f"sqlite:///{tmp_path / 'none.db'}", dataset=data).name == "quickstart"


def test_a_study_of_other_data_keeps_its_name_and_the_new_one_has_the_next(tmp_path: Path) -> None:
    storage, random = f"sqlite:///{tmp_path / 'hpo.db'}", np.random.default_rng(0)
    first, second = ((random.random((60, 4)), random.random(60)) for _ in range(2))

    def name(data: Any, study: str | None = None, **keys: Any) -> str:
        plan = plan_launch(study, storage, dataset=save_data(data), **keys)
        created = plan.create(storage)
        notice = f"study {created.name}: named so because study quickstart has other data"
        assert (notice in str(plan.notices)) == (created.name == "quickstart-2")
        return created.name

    assert [name(first), name(second), name(first), name(second)] == ["quickstart", "quickstart-2"] * 2
    assert name(second, "quickstart") == "quickstart-2"
    with pytest.raises(StudyConflictError, match="quickstart-2' exists with another definition"):
        name(second, "quickstart", parameters={"epochs": 3})
    with pytest.raises(StudyConflictError, match="quickstart' exists with another definition"):
        name(second, "quickstart", name="quickstart")


@pytest.mark.parametrize(
    ("samples", "keys", "said"), [(60, {}, True), (700, {}, False), (60, {"folds": 5}, False), (60, {"seeds": 2}, True)]
)
def test_few_samples_for_one_split_are_said(tmp_path: Path, samples: int, keys: dict[str, Any], said: bool) -> None:
    random = np.random.default_rng(0)
    data = save_data((random.random((samples, 4)), random.random(samples)))
    plan = plan_launch("quickstart", f"sqlite:///{tmp_path / 'none.db'}", dataset=data, **keys)
    line = "48 training samples are few for one validation split; folds = 5 chooses by all of them"
    assert (line in plan.notices) == said
    assert ("few for one" in str(plan.notices)) == said


def test_options_of_data_in_memory_are_those_of_a_study_file(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    days = [f"2024-{1 + i // 28:02}-{1 + i % 28:02}" for i in range(120)]
    frame = pl.DataFrame({"day": days, "a": random.random(120), "demand": random.integers(0, 90, 120)})
    storage = f"sqlite:///{tmp_path / 'hpo.db'}"
    launch = partial(hpo.launch, storage=storage, workers=0)
    launch(dataset=frame, label="demand", time="day", task="regression", name="a")
    source = Study(StudyStorage(storage), "a").definition.dataset.source
    assert source == DatasetSource(label=("demand",), time="day", task="regression")
    launch(dataset=(random.random((50, 2)), random.permutation(50)), task="regression", name="b")
    assert Study(StudyStorage(storage), "b").definition.dataset.task == "regression"
    with pytest.raises(RequestError, match="time: of which data"):
        launch("quickstart", time="day")
