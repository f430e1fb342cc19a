"""Studies whose parameters exclude defaults of ours, such as a seed that must be 1, 2 or 3."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

import hpo
from hpo.config import registry
from hpo.errors import RequestError
from hpo.execution.evaluate import plan_evaluations
from hpo.execution.launch import plan_launch
from hpo.study import Study
from tests.helpers import run_hpo
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

LOOP = """
import hpo
import torch
from pydantic import BaseModel

class Mine(BaseModel):
    {name}: {kind} = {domain}

@hpo.training_loop("mine", parameters=Mine, uses=["epochs"], reports={{"reward": "maximize"}})
def mine(trial):
    for epoch in trial.epochs():
        trial.report(reward=torch.rand(()) + epoch)
"""
# Ours are 0, 128, 5, 0.001 and adam.
EXCLUDING = {
    "seed": ("int", "hpo.Categorical([1, 2, 3])"),
    "split_seed": ("int", "hpo.Categorical([1, 2])"),
    "batch_size": ("int", "hpo.Categorical([3, 7])"),
    "epochs": ("int", "hpo.Int(1, 3)"),
    "learning_rate": ("float", "hpo.Float(0.5, 0.9)"),
    "optimizer": ("str", 'hpo.Categorical(["sgd", "lbfgs"])'),
}


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def create(folder: Path, text: str) -> Study:
    """Create a study, and open it as another process does."""
    (folder / "study.toml").write_text(text)
    new_storage(folder)
    study = plan_launch(str(folder / "study.toml"), sqlite_url(folder)).create(sqlite_url(folder))
    return Study(study.storage, study.name)


def launch(folder: Path, text: str) -> Study:
    """Create and train a study."""
    study = create(folder, text)
    make_worker(study).run()
    return study


@pytest.mark.parametrize("name", EXCLUDING)
def test_a_loop_may_declare_a_domain_without_our_default(name: str, tmp_path: Path) -> None:
    kind, domain = EXCLUDING[name]
    (tmp_path / "mine.py").write_text(LOOP.format(name=name, kind=kind, domain=domain))
    exec(compile((tmp_path / "mine.py").read_text(), "mine.py", "exec"), {"__name__": "mine"})
    study = launch(tmp_path, 'objective = "reward"\nsampler = "random"\ntrials = 6\n[parameters]\nmodel = "mine"\n')
    row = study.space.table[name]
    assert row.domain is not None
    trained = [getattr(study.config_of(trial), name) for trial in study.trials()]
    assert [trial.params[name] for trial in study.trials()] == trained
    assert len(set(trained)) > 1
    assert all(map(row.domain.allows, trained))
    for arguments in (("show", "study"), ("report", "study"), ("reproduce", "study", "1", "--import", "mine")):
        done = run_hpo(*arguments, cwd=tmp_path, OPTUNA_STORAGE=sqlite_url(tmp_path))
        assert done.returncode == 0, done.stderr


class Seeded(BaseModel):
    seed: int = hpo.Categorical([1, 2, 3])
    rate: float = hpo.Float(0, 1)


def register(**options: Any) -> str:
    name = f"seeded_{next(COUNT)}"
    hpo.training_loop(name, parameters=Seeded, reports={"reward": "maximize"}, **options)(
        lambda trial: trial.config.rate + trial.config.seed
    )
    return name


COUNT = itertools.count()
HEAD = 'objective = "reward"\nsampler = "random"\ntrials = 4\n'


def test_the_study_s_own_seed_counts_where_the_loop_allows_it(tmp_path: Path) -> None:
    (tmp_path / "inside").mkdir()
    name = register()
    outside = launch(tmp_path, f'{HEAD}[parameters]\nmodel = "{name}"\n')
    assert outside.definition.baseline_config(outside.space).seed == 1  # the loop's default
    inside = launch(tmp_path / "inside", f'{HEAD}seed = 2\n[parameters]\nmodel = "{name}"\n')
    assert inside.definition.baseline_config(inside.space).seed == 2


def test_a_baseline_needs_no_seed(tmp_path: Path) -> None:
    study = launch(tmp_path, f'{HEAD}[parameters]\nmodel = "{register()}"\n[baseline]\nrate = 0.25\n')
    assert [study.config_of(study.trials()[0]).rate, study.config_of(study.trials()[0]).seed] == [0.25, 1]


def test_an_evaluation_says_that_the_loop_allows_no_fresh_seeds(tmp_path: Path) -> None:
    study = launch(tmp_path, f'dataset = "mnist"\n{HEAD}[parameters]\nmodel = "{register()}"\n')
    with pytest.raises(RequestError, match=r"needs fresh seeds, from 4, but model .* must be 1 or 2 or 3; declare"):
        plan_evaluations(study, 1, 1)


def test_defaults_that_do_not_go_with_the_constants_make_no_study_unreadable(tmp_path: Path) -> None:
    text = 'dataset = "mnist"\ntrials = 1\n[parameters]\nmodel = "vit"\nheads = 3\nwidth = [30, 60]\n'  # ours is 128
    study = create(tmp_path, text)
    assert study.definition.baseline_config(study.space).width == 30
