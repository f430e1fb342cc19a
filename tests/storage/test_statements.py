"""How many SQL statements a trial costs: 7 parameters, 10 reports, TPE and the median pruner."""

from __future__ import annotations

from pathlib import Path
from unittest import mock

import optuna
import pytest
import sqlalchemy as sa
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.trial import TrialState, create_trial

from hpo.execution import heartbeat
from hpo.storage import optimize_leases, write_behind
from hpo.storage.leased_storage import ATTEMPT
from hpo.study import Budget, Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from tests.data import small_npz
from tests.stack import Stack
from tests.statements import FLAT, REPORTS, Statements
from tests.study.helpers import new_storage, sqlite_url
from tests.workers import make_worker

MOST = 25
MOST_OF_A_COHORT = 10
# What a cohort shares does not vary.
SHARING = {**FLAT, "batch_size": 64}
STARTUP, MEASURED, FILLED = 10, 30, 70
NEVER = 3600.0  # seconds


@pytest.fixture(autouse=True)
def _stopped_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only what is done counts: on a slow machine more is written because a second, or a heartbeat's pause, is over."""
    monkeypatch.setattr(write_behind, "STALE", NEVER)
    monkeypatch.setattr(heartbeat, "LONGEST_PAUSE", NEVER)
    monkeypatch.setattr(optimize_leases, "LEASE", NEVER)
    monkeypatch.setattr(optimize_leases, "RENEWAL", NEVER)


def objective(trial: optuna.trial.Trial) -> float:
    x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", -1, 1)
    rate, decay = trial.suggest_float("rate", 1e-4, 1e-1, log=True), trial.suggest_float("decay", 1e-6, 1e-2, log=True)
    depth, width = trial.suggest_int("depth", 1, 4), trial.suggest_int("width", 16, 512, log=True)
    value = x + y * y + rate + decay + depth / width + len(trial.suggest_categorical("activation", ["relu", "tanh"]))
    for step in range(1, REPORTS + 1):
        trial.report(value / step, step)
        trial.should_prune()  # but never is: all trials shall have all reports
    return value


def fill(url: str, name: str, count: int) -> None:
    """Add finished trials like those of the study, as another process would."""
    storage = StudyStorage(url)
    study = optuna.load_study(study_name=name, storage=storage)
    models = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for n in range(count):
        model, state = models[n % len(models)], states[n % len(states)]
        trial = create_trial(
            state=state,
            value=None if state == TrialState.FAIL else model.value,
            params=model.params,
            distributions=model.distributions,
            intermediate_values=model.intermediate_values,
        )
        study.add_trial(trial)
    storage.engine.dispose()


def optimize(study: optuna.Study, statements: Statements, trials: int) -> float:
    """Statements per trial."""
    return statements.per(trials, lambda: study.optimize(objective, n_trials=trials))


def check(early: float, late: float) -> None:
    assert early <= MOST, f"{early:.1f} statements per trial, later {late:.1f}"
    assert late == pytest.approx(early, abs=1)


def test_a_trial_of_plain_optuna_shows_that_the_count_counts(tmp_path: Path) -> None:
    storage = RDBStorage(sqlite_url(tmp_path))
    study = optuna.create_study(storage=storage, sampler=TPESampler(seed=0), pruner=optuna.pruners.MedianPruner())
    statements = Statements(storage.engine)
    optimize(study, statements, STARTUP)
    assert optimize(study, statements, MEASURED) > 150


def test_a_transaction_of_one_statement_counts_two(storage: StudyStorage) -> None:
    statements = Statements(storage.engine)
    with storage.engine.begin() as connection:
        if connection.dialect.name == "sqlite":
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        connection.execute(sa.text("SELECT 1"))
    assert statements.count == 2


def test_plain_optimize_costs_few_statements_however_many_trials_there_are(storage: StudyStorage, any_url: str) -> None:
    study = optuna.create_study(
        study_name="flat", storage=storage, sampler=TPESampler(seed=0), pruner=optuna.pruners.MedianPruner()
    )
    statements = Statements(storage.engine)
    optimize(study, statements, STARTUP)
    early = optimize(study, statements, MEASURED)
    fill(any_url, "flat", FILLED)
    late = optimize(study, statements, MEASURED)
    trials = study.trials
    assert [trial.number for trial in trials] == list(range(STARTUP + MEASURED + FILLED + MEASURED))
    assert all((len(trial.params), len(trial.intermediate_values)) == (7, REPORTS) for trial in trials)
    check(early, late)


def test_a_worker_costs_few_statements_however_many_trials_there_are(
    storage: StudyStorage, any_url: str, tmp_path: Path
) -> None:
    # A pruner asks the storage for the same before it has seen enough trials; here it never has, so that all trials
    # have all reports.
    pruner = {"name": "median", "n_startup_trials": 1000}
    dataset = str(small_npz(tmp_path / "small.npz"))
    table = {"dataset": dataset, "trials": MEASURED, "sampler": "tpe", "pruner": pruner, "parameters": FLAT}
    name, definition, budget = parse_definition(table, "small", tmp_path)
    study = Study.create(storage, name, definition, budget)
    statements = Statements(storage.engine)
    early = statements.per(MEASURED, lambda: make_worker(study, cohort=1, lease=4 * NEVER).run())
    fill(any_url, name, FILLED)
    study.extend(Budget(trials=MEASURED + FILLED + MEASURED))
    late = statements.per(MEASURED, lambda: make_worker(study, cohort=1, lease=4 * NEVER).run())
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(MEASURED + FILLED + MEASURED))
    assert all((len(trial.params), len(trial.intermediate_values)) == (7, REPORTS) for trial in trials)
    check(early, late)


def test_the_fits_of_a_trial_cost_two_statements_and_their_race_two_a_leader(tmp_path: Path) -> None:
    counts = []
    for name, keys in (("one", {}), ("folds", {"folds": 4, "pruner": {"name": "wilcoxon", "n_warmup_steps": 0}})):
        (folder := tmp_path / name).mkdir()
        table = {"dataset": str(small_npz(folder / "small.npz", 120)), "trials": 12, "sampler": "random", **keys}
        parsed = parse_definition({**table, "parameters": {**FLAT, "epochs": 2}}, "small", folder)
        study = Study.create(new_storage(folder), *parsed)
        statements = Statements(study.storage.engine)
        counts.append(statements.per(12, lambda: make_worker(study, cohort=1, lease=4 * NEVER).run()))  # noqa: B023
    assert {len(fits) for fits in study.storage.read_fits(study.id).values()} == {4}
    one, folds = counts
    assert folds <= one + 4, f"{folds:.1f} statements per trial, of one fit {one:.1f}"


@pytest.mark.parametrize("pruner", ["median", "asha"])
def test_a_pruner_costs_no_statements(pruner: str, tmp_path: Path) -> None:
    """Each time that a trial is trained: one that ASHA has paused, and promoted, is trained twice."""
    table = {"dataset": str(small_npz(tmp_path / "small.npz")), "trials": MEASURED, "sampler": "tpe", "pruner": pruner}
    name, definition, budget = parse_definition({**table, "parameters": FLAT}, "small", tmp_path)
    study = Study.create(new_storage(tmp_path), name, definition, budget)
    statements = Statements(study.storage.engine)
    make_worker(study, cohort=1, lease=4 * NEVER).run()
    trials = study.trials()
    attempts = sum(trial.user_attrs[ATTEMPT] for trial in trials)
    assert TrialState.PRUNED in {trial.state for trial in trials}
    assert (attempts > MEASURED) == (pruner == "asha")
    assert statements.count / attempts <= MOST


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_cohort_costs_few_statements_a_trial(storage: StudyStorage, tmp_path: Path, sampler: str) -> None:
    per_trial = []
    for cohort in (1, 8):
        table = {"dataset": str(small_npz(tmp_path / "small.npz")), "trials": 32, "sampler": sampler}
        name, definition, budget = parse_definition({**table, "parameters": SHARING}, f"cohorts-of-{cohort}", tmp_path)
        study = Study.create(storage, name, definition, budget)
        worker = make_worker(study, cohort=cohort, lease=4 * NEVER)
        statements = Statements(storage.engine)
        with mock.patch("hpo.execution.cohort_trainer.train", Stack()):
            per_trial.append(statements.per(32, worker.run))
        assert worker.finished == {"COMPLETE": 32}
    alone, together = per_trial
    assert together <= MOST_OF_A_COHORT, f"{together:.1f} statements per trial, alone {alone:.1f}"
    assert together < alone / 2
