from __future__ import annotations

import itertools
import time
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from hpo.config.trial_config import TrialConfig
from hpo.errors import (
    DefinitionError,
    RegistryError,
    RequestError,
    StudyConflictError,
    StudyForeignError,
    StudyNotFoundError,
)
from hpo.storage import clock
from hpo.study import Budget, Study, StudyStorage
from hpo.study.input.study_file import parse_definition, parse_duration, parse_override, read_study
from hpo.study.peer_pruner import PeerPercentilePruner
from hpo.study.samplers import SAMPLERS
from tests.study.helpers import SPACE, holder, make_study, new_storage, sqlite_url


def run_all(study: Study, value: float = 0.5) -> list[TrialConfig]:
    """Claim everything, tell a value; configurations in the order of the claims."""
    configs = []
    while (claim := study.claim(holder())) is not None:
        configs.append(study.suggest_config(claim))
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value + claim.number / 1000])
    return configs


@pytest.mark.parametrize("sampler", ["random", "qmc"])
def test_fixed_slots_follow_from_the_definition_alone(tmp_path: Path, sampler: str) -> None:
    first = make_study(tmp_path, "a", sampler=sampler)
    second = make_study(tmp_path, "b", sampler=sampler)
    assert run_all(first) == run_all(second)
    assert [t.params for t in first.trials()] == [t.params for t in second.trials()]
    other = make_study(tmp_path, "c", sampler=sampler, seed=1)
    assert run_all(other) != run_all(make_study(tmp_path, "d", sampler=sampler))


def test_quasi_random_slots_are_more_even_than_random_ones(tmp_path: Path) -> None:
    from scipy.stats import qmc

    plane = {"learning_rate": {"low": 0.1, "high": 1.0}, "dropout": {"low": 0.0, "high": 0.9}}
    spread = {}
    for sampler in ("random", "qmc"):
        study = make_study(tmp_path, sampler, sampler=sampler, trials=64, parameters=plane)
        points = [[(c.learning_rate - 0.1) / 0.9, c.dropout / 0.9] for c in run_all(study)]
        spread[sampler] = qmc.discrepancy(np.clip(points, 0, 1))
    assert spread["qmc"] < spread["random"] / 3


def test_a_grids_budget_is_its_points_each_once(tmp_path: Path) -> None:
    table = {"epochs": [1, 2], "depth": {"low": 0, "high": 2}, "width": [32, 64]}
    study = make_study(tmp_path, sampler="grid", parameters=table, trials=10)
    configs = run_all(study)
    assert study.budget.trials == len(configs) == 10
    assert len({str(c.effective()) for c in configs}) == 10
    with pytest.raises(DefinitionError, match=r"trials = 11.*number of points, 10"):
        make_study(tmp_path, "other", sampler="grid", parameters=table, trials=11)


def test_an_extended_random_study_is_the_longer_study(tmp_path: Path) -> None:
    short = make_study(tmp_path, "short", trials=5)
    run_all(short)
    short.extend(Budget(trials=12))
    run_all(short)
    long = make_study(tmp_path, "long", trials=12)
    run_all(long)
    assert [t.params for t in short.trials()] == [t.params for t in long.trials()]
    short.extend(Budget(trials=3))
    assert short.budget.trials == 12


@pytest.mark.parametrize("sampler", [name for name, sampler in SAMPLERS.items() if not sampler.fixed and name != "gp"])
def test_adaptive_studies_end_at_their_budget_and_repeat(tmp_path: Path, sampler: str) -> None:
    params = []
    for name in ("a", "b"):
        study = make_study(tmp_path, name, sampler={"name": sampler}, trials=8, baseline={"optimizer": "sgd"})
        run_all(study)
        assert [t.number for t in study.trials()] == list(range(8))
        params.append([t.params for t in study.trials()])
    assert params[0] == params[1]
    assert len({str(p) for p in params[0]}) == 8  # a sampler that is made anew for each trial does not repeat itself


def test_gp_asks_and_is_told(tmp_path: Path) -> None:
    sampler = {"name": "gp", "n_startup_trials": 2}
    study = make_study(tmp_path, sampler=sampler, trials=4, parameters={"learning_rate": {"low": 0.001, "high": 0.1}})
    assert len(run_all(study)) == 4


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_the_baseline_is_trial_0_even_outside_the_space(tmp_path: Path, sampler: str) -> None:
    study = make_study(tmp_path, sampler=sampler, baseline={"optimizer": "nadam", "width": 64, "learning_rate": 0.02})
    config = run_all(study)[0]
    assert (config.optimizer, config.width, config.learning_rate, config.epochs) == ("nadam", 64, 0.02, 5)
    trial = study.trials()[0]
    assert trial.params == {"learning_rate": 0.02, "depth": 2, "width": 64}
    assert study.config_of(trial) == config


def test_stored_trials_give_back_their_configurations(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="tpe", baseline={"depth": 1})
    configs = run_all(study)
    assert [study.config_of(trial) for trial in study.trials()] == configs
    assert {config.seed for config in configs} == {0}


def test_what_others_enqueue_is_trained_and_marked(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=3)
    optuna.load_study(study_name="small", storage=sqlite_url(tmp_path)).enqueue_trial(
        {"optimizer": "sgd", "learning_rate": 0.01, "depth": 1, "width": 32, "momentum": 0.5}
    )
    configs = run_all(study)
    assert configs[3].momentum == 0.5
    assert [study.is_extra(n) for n in range(4)] == [False, False, False, True]
    study.extend(Budget(trials=5))
    assert len(run_all(study)) == 2
    assert [study.is_extra(n) for n in range(6)] == [False] * 3 + [True] + [False] * 2


def test_what_others_add_counts_toward_an_adaptive_budget(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler="tpe", trials=5)
    plain = optuna.load_study(study_name="small", storage=sqlite_url(tmp_path))
    plain.tell(plain.ask(), 0.1)
    assert len(run_all(study)) == 4
    assert study.remaining() == 0


def test_a_target_and_a_deadline_end_a_study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make_study(tmp_path, trials=10, target=0.503, timeout="1h")
    assert len(run_all(study)) == 4  # 0.5, 0.501, 0.502, 0.503
    assert "target 0.503" in str(study.stop_reason())
    study.extend(Budget(trials=10, target=0.9))
    assert study.budget == Budget(trials=10, timeout=3600, target=0.9)
    now = 1_000_000.0
    monkeypatch.setattr(StudyStorage, "read_clock", lambda _: now)
    study.start_clock()
    assert study.stop_reason() is None
    now += 3601
    assert study.stop_reason() == "its time is up"
    assert study.claim(holder()) is None
    study.start_clock()
    assert study.claim(holder()) is not None


def test_another_definition_is_refused_with_the_difference_and_the_ways_out(tmp_path: Path) -> None:
    make_study(tmp_path)
    with pytest.raises(StudyConflictError) as error:
        make_study(tmp_path, parameters={**SPACE, "width": [32, 128]}, seed=3)
    for word in (
        "parameters.width",
        "[32, 64]",
        "[32, 128]",
        "seed: stored 0, requested 3",
        "--name",
        "hpo delete small",
    ):
        assert word in str(error.value)
    make_study(tmp_path, trials=20)  # the budget is not part of the definition


def test_a_study_that_is_not_there_is_named_with_what_is(tmp_path: Path) -> None:
    storage = make_study(tmp_path).storage
    with pytest.raises(StudyNotFoundError, match=r"no study 'smal' in sqlite.*did you mean 'small'\? it holds: small"):
        Study(storage, "smal")
    optuna.create_study(storage=storage, study_name="plain")
    with pytest.raises(StudyForeignError, match="was made by another tool"):
        Study(storage, "plain").check_trainable()


def test_a_study_is_found_by_url_and_name_alone(tmp_path: Path) -> None:
    made = make_study(tmp_path, sampler={"name": "tpe", "n_startup_trials": 3}, pruner="median", timeout=60)
    found = Study(StudyStorage(sqlite_url(tmp_path)), "small")
    assert found.definition == made.definition
    assert found.budget == Budget(trials=12, timeout=60)
    assert isinstance(found.optuna_study.pruner, PeerPercentilePruner)
    assert found.optuna_study.pruner._percentile == 50


def test_a_study_of_unknown_things_names_their_module(tmp_path: Path) -> None:
    definition = make_study(tmp_path).definition.model_copy(update={"modules": {"model:resnet": "my_models"}})
    with pytest.raises(RegistryError, match="add --import my_models"):
        definition.check_registered()


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        ({"sampler": "tpee"}, "unknown sampler 'tpee'; did you mean 'tpe'"),
        ({"sampler": {"name": "tpe", "n_startup": 3}}, "did you mean 'n_startup_trials'"),
        ({"sampler": {"name": "tpe", "n_ei_candidates": "many"}}, "n_ei_candidates = 'many': must be int"),
        ({"sampler": {"name": "cmaes", "popsize": 1}}, "popsize = 1: must be at least 2"),
        ({"sampler": {"name": "cmaes", "popsize": 10**9}}, "popsize = 1000000000: must be at most 10,000"),
        ({"sampler": {"name": "tpe", "n_ei_candidates": 10**12}}, "n_ei_candidates = 1000000000000: must be at most"),
        ({"sampler": {"name": "tpe", "prior_weight": 1e300}}, "prior_weight = 1e+300: must be at most"),
        ({"pruner": {"name": "asha", "min_early_stopping_rate": 10**9}}, "min_early_stopping_rate = 1000000000: must"),
        ({"pruner": {"name": "hyperband", "reduction_factor": 10**12}}, "reduction_factor = 1000000000000: must be at"),
        ({"pruner": {"name": "hyperband", "max_resource": 10**400}}, "max_resource = 1000"),
        ({"pruner": {"name": "median", "interval_steps": -1}}, "interval_steps = -1: must be at least 1"),
        (
            {"pruner": {"name": "median", "compare_with": "peers"}},
            "compare_with = 'peers': must be 'reported' or 'finished'",
        ),
        ({"pruner": {"name": "asha", "promote": "yes"}}, "promote = 'yes': must be bool, not str"),
        ({"sampler": "random", "trials": 10**9}, "trials = 1000000000: must be a whole number from 1 to 1000000"),
        ({"sampler": "qmc", "trials": 10**9}, "trials = 1000000000"),
        ({"sampler": "tpe", "trials": 10**12}, "trials = 1000000000000"),
        (
            {"sampler": "grid", "parameters": {"width": {"low": 1, "high": 65536}, "epochs": {"low": 1, "high": 99}}},
            "the grid has more than 1,000,000 points",
        ),
        ({"parameters": {"epochs": 10**12}}, "epochs = 1000000000000: out of bounds"),
        ({"parameters": {"batch_size": 10**5000}}, "batch_size = a number of thousands of digits: out of bounds"),
        ({"parameters": {"patience": 1e300}}, "patience = 1e+300: out of bounds"),
        ({"timeout": "9" * 400 + "d"}, "timeout = '999"),
        ({"timeout": 10**5000}, "timeout = a number of thousands of digits"),
        ({"target": 10**400}, "target = 1000"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"target": float("nan")}, "target = nan"),
        ({"parameters": {"validation": 70000}}, "takes 70000 of 60000"),
        ({"parameters": {"validation": [1000, 1000.5]}}, "validation = 1000.5"),
        ({"parameters": {"model": "cnn"}, "dataset": "flat.npz"}, "needs images"),
        ({"baseline": {"optimizer": ["adam"]}}, "[baseline] optimizer = ['adam']"),
        ({"name": "../x"}, "name = '../x'"),
        ({"name": "-dash"}, "name = '-dash'"),
        ({"name": "x" * 81}, "up to 80"),
        ({"name": "a\nb"}, "name = 'a\\nb'"),
        ({"sampler": 3}, "give its name"),
        ({"pruner": "medan"}, "did you mean 'median'"),
        ({"pruner": {"name": "median", "warmup": 3}}, "unknown option of pruner 'median' 'warmup'"),
        ({"pruner": {"name": "percentile", "percentile": 200}}, "percentile"),
        ({"pruner": "median", "objective": ["val_accuracy", "parameter_count"]}, "single objective"),
        ({"sampler": "cmaes", "objective": ["val_accuracy", "parameter_count"]}, "takes one objective"),
        ({"objective": "accuracy"}, "unknown objective 'accuracy'; did you mean 'val_accuracy'"),
        ({"objective": {"metric": "val_loss", "direction": "down"}}, "unknown direction 'down'"),
        ({"objective": []}, "at least one metric"),
        ({"objective": ["val_loss", "val_loss"]}, "twice"),
        ({"dataset": "mnits"}, "did you mean 'mnist'"),
        ({"dataset": "nowhere.npz"}, "nowhere.npz"),
        ({"trials": 0}, "trials = 0"),
        ({"trials": 2.5}, "trials = 2.5"),
        ({"timeout": "soon"}, "timeout = 'soon'"),
        ({"target": "high"}, "target = 'high'"),
        ({"target": 0.9, "objective": ["val_accuracy", "val_loss"]}, "target"),
        ({"seed": -1}, "seed = -1"),
        ({"space": "mpl"}, "did you mean 'mlp'"),
        ({"parameters": 3}, "must be a table"),
        ({"baseline": {"optimizer": "adan"}}, "[baseline] optimizer = 'adan'"),
        ({"baseline": {"lr": 0.1}}, "[baseline] unknown parameter 'lr'"),
        ({"dateset": "mnist"}, "unknown key 'dateset'; did you mean 'dataset'"),
    ],
)
def test_mistakes_in_a_study_file_are_one_line(tmp_path: Path, keys: dict[str, Any], words: str) -> None:
    x, y = np.random.default_rng(0).random((40, 5), dtype=np.float32), np.arange(40) % 2
    np.savez(tmp_path / "flat.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(RequestError) as error:
        make_study(tmp_path, **keys)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_a_syntax_error_has_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text('dataset = "mnist"\ntrials = = 3\n')
    with pytest.raises(DefinitionError, match=r"bad\.toml: not valid TOML: .*line 2") as error:
        read_study(str(tmp_path / "bad.toml"))
    assert str(error.value).count("bad.toml") == 1


def test_a_space_may_be_a_file_beside_the_study(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("width = [8, 16]\nepochs = 3\n")
    (tmp_path / "study.toml").write_text('space = "./mine.toml"\n[parameters]\nepochs = 1\n')
    name, definition, budget = read_study(str(tmp_path / "study.toml"), {"depth": 1}, trials=4)
    assert (name, budget.trials) == ("study", 4)
    assert definition.parameters == {"width": {"choices": [8, 16]}, "epochs": {"value": 1}, "depth": {"value": 1}}


def test_python_and_toml_make_equal_definitions(tmp_path: Path) -> None:
    import hpo

    parameters = "learning_rate = { low = 0.001, high = 0.1, log = true }\nwidth = [8, 16]"
    toml = f'sampler = "qmc"\ntrials = 8\n[parameters]\n{parameters}\n'
    (tmp_path / "mine.toml").write_text(toml)
    space = hpo.Space(learning_rate=hpo.Float(0.001, 0.1, log=True), width=[8, 16])
    python = parse_definition({"name": "mine", "sampler": "qmc", "trials": 8, "space": space}, "mine", tmp_path)
    assert python == read_study(str(tmp_path / "mine.toml"))


@pytest.mark.parametrize(
    ("given", "seconds"), [("2h", 7200), ("1h30m", 5400), (90, 90), ("90", 90), ("1.5m", 90), ("1d", 86400)]
)
def test_durations(given: object, seconds: float) -> None:
    assert parse_duration(given) == seconds


@pytest.mark.parametrize("given", ["2x", "", "h", 0, -1, True, float("inf"), float("nan"), None, "-2h"])
def test_durations_that_are_none(given: object) -> None:
    with pytest.raises(DefinitionError):
        parse_duration(given)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("epochs=2", ("epochs", 2)),
        ("learning_rate=[0.1, 0.2]", ("learning_rate", [0.1, 0.2])),
        ("learning_rate={low=0.1,high=1}", ("learning_rate", {"low": 0.1, "high": 1})),
        ("optimizer=adam", ("optimizer", "adam")),
        ("widths=512-256", ("widths", "512-256")),
        ("widths=512", ("widths", "512")),
        ("widths=1024-12-10", ("widths", "1024-12-10")),
        ("batch_norm=true", ("batch_norm", True)),
    ],
)
def test_overrides(text: str, value: tuple[str, object]) -> None:
    assert parse_override(text) == value


def test_best_is_the_lowest_number_of_equals_in_either_direction(tmp_path: Path) -> None:
    for objective, expected in (("val_accuracy", 1), ("val_loss", 0)):
        study = make_study(tmp_path, objective, objective=objective, trials=4)
        for value in (0.1, 0.9, 0.9, 0.1):
            claim = study.claim(holder())
            assert claim is not None
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
        best = study.best()
        assert best is not None
        assert best.number == expected


def test_a_timeout_counts_from_the_first_claim_where_nobody_launched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000_000.0
    monkeypatch.setattr(StudyStorage, "read_clock", lambda _: now)
    study = make_study(tmp_path)
    study.start_clock()  # a launch before there was a timeout
    study.extend(Budget(trials=12, timeout=3600))
    assert study.claim(holder()) is not None
    now += 3601
    assert study.claim(holder()) is None


def test_a_trial_that_begins_anew_sets_its_constraints_anew(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    claim = study.claim(holder())
    assert claim is not None
    fixed = study.storage.get_trial(claim.id).system_attrs
    for value in (3.0, -1.0):
        study.rewind(claim, -1)
        assert study.storage.get_trial(claim.id).system_attrs == fixed
        claim.trial.set_constraint("memory", value)
    assert study.storage.get_trial(claim.id).constraints == claim.trial.constraints == {"memory": -1.0}


@pytest.mark.parametrize("ahead", [7200.0, -7200.0])
def test_a_timeout_is_the_same_for_machines_whose_clocks_differ(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    study = make_study(tmp_path, timeout="1h")
    wall = time.time
    with monkeypatch.context() as patch:
        patch.setattr(time, "time", lambda: wall() + ahead)
        study.start_clock()
    worker = Study(new_storage(tmp_path), "small")
    assert worker.seconds_left == pytest.approx(3600, abs=60)
    assert worker.stop_reason() is None
    uptime = clock.boot_seconds
    monkeypatch.setattr(clock, "boot_seconds", lambda: uptime() + 3700)
    assert worker.stop_reason() == "its time is up"


def test_left_counts_what_is_not_finished(tmp_path: Path) -> None:
    for sampler, steps in itertools.product(("random", "tpe"), (0, 2)):
        study = make_study(tmp_path, f"{sampler}{steps}", sampler=sampler, trials=5)
        for _ in range(steps):
            claim = study.claim(holder())
            assert claim is not None
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
        study.claim(holder())
        assert study.remaining() == 5 - steps


def test_an_adaptive_sampler_learns_from_what_has_finished_since_it_was_last_asked(tmp_path: Path) -> None:
    study = make_study(tmp_path, sampler={"name": "tpe", "n_startup_trials": 2})
    for i in range(5):
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        assert bool(claim.trial.relative_params) == (i >= 2)
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [i / 10])
