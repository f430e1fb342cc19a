"""Search spaces of Ray Tune: tables that grow, mutations, and settings of its searches."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, Range
from tests.study.foreign.files import IMPORT, read

MUTATED = (
    IMPORT
    + """
space = {"lr": tune.choice([0.1, 0.2]), "lambda": 0.9, "opt": {"beta": 0.8}, "size": tune.choice([1, 2]), "same": 3}
scheduler = tune.schedulers.PopulationBasedTraining(hyperparam_mutations={
    "lr": tune.loguniform(1e-5, 1e-1),
    "lambda": lambda: random.uniform(0.9, 1.0),
    "opt": {"beta": [0.8, 0.9]},
    "size": lambda: draw(),
    "same": [3],
    "new": tune.uniform(0, 1),
})
"""
)


@pytest.mark.parametrize(
    "space",
    [
        "tune.run(train, config=space, scheduler=scheduler)",
        "tune.Tuner('PPO', param_space=PPOConfig().training(lambda_=0.9, lr=tune.choice([0.1, 0.2]), "
        "opt={'beta': 0.8}, size=tune.choice([1, 2]), same=3))",
    ],
)
def test_a_mutation_replaces_what_a_parameter_begins_with_and_says_so(tmp_path: Path, space: str) -> None:
    found = {each.name: each for each in read(tmp_path, f"import random\n{MUTATED}{space}").parameters}
    assert sorted(found) == ["lambda", "lr", "new", "opt.beta", "same", "size"]
    assert found["lr"].domain == Range(1e-5, 0.1, log=True)
    assert found["lr"].note == (
        "begins with 0.1 or 0.2 there, and is changed within 1e-05 to 0.1 while a trial runs; the study searches the "
        "latter"
    )
    assert found["lambda"].note.startswith("begins with 0.9 there, and is changed within 0.9 to 1 while")
    assert found["opt.beta"].note.startswith("begins with 0.8 there, and is changed to 0.8 or 0.9 while")
    assert found["size"].domain == Choices((1, 2))
    assert found["size"].note.startswith("changed by lambda: draw() while a trial runs there")
    plain = "changed while a trial runs there; here a trial keeps its value"
    assert [found[name].note for name in ("same", "new")] == [plain, plain]


@pytest.mark.parametrize("imported", ["import numpy as np\n", ""])
def test_a_function_that_draws_is_a_domain(tmp_path: Path, imported: str) -> None:
    space = "config = {'units': tune.sample_from(lambda _: 2 ** np.random.randint(2, 5))}\n"
    assert read(tmp_path, IMPORT + imported + space).parameters[0].domain == Choices((4, 8, 16))
    other = f"{IMPORT}np = load()\n{space}"
    assert isinstance(read(tmp_path, other).parameters[0].domain, Computed)


GROWN = """
def train(config):
    config["seen"] = tune.uniform(0, 1)

def main(config):
    config = %s
    config["b"] = tune.choice([1, 2])
    config["in"]["c"] = tune.choice([1, 2])
    config.update({"d": tune.choice([1, 2])}, e=4)
    config.setdefault("a", 5)
    config.setdefault("f", 6)
    config |= {"g": {"grid_search": [1, 2]}}
    for key in NAMES:
        config[key] = tune.uniform(0, 7)
    tune.run(train, config=%s)
"""


@pytest.mark.parametrize(
    "table", ["{'a': tune.uniform(0, 1), 'in': {'b': 3}}", "dict(a=0.5, **{'in': {'b': 3}})", "{}"]
)
@pytest.mark.parametrize("given", ["config", "dict(config)", "make()"])
def test_what_is_added_to_a_table_is_of_the_same_space(tmp_path: Path, table: str, given: str) -> None:
    path = tmp_path / "theirs.py"
    path.write_text(IMPORT + GROWN % (table, given), encoding="utf-8")
    found = {each.name: each.domain for each in read_search(path, computed=True).parameters}
    begun = set() if table == "{}" else {"in.b"}
    assert set(found) == {"a", "b", "in.c", "d", "e", "f", "g", "key", *begun}
    assert found["a"] == {"{": Range(0, 1), "d": Constant(0.5)}[table[0]] if begun else Constant(5)
    assert found["g"] == Choices((1, 2))
    assert found["key"] == Computed(
        "tune.uniform(0, 7)", "its name (line 15) is known only when the file runs; write it there"
    )


MUTATIONS = "tune.schedulers.PB2(mode='max', hyperparam_bounds={'lr': [1e-5, 1e-1]})"


@pytest.mark.parametrize(
    ("call", "names"),
    [
        ("tune.run(train, config={'lr': 0.1, 'size': 3}, scheduler=%s)", ["lr", "size"]),
        ("tune.run(train, scheduler=%s)", ["lr"]),
        ("trainer.hyperparameter_search(lambda _: {'size': 3}, direction='maximize', scheduler=%s)", ["size", "lr"]),
        (
            "trainer.hyperparameter_search(hp_space=space, direction='maximize', scheduler=%s)\n"
            "def space(trial): return {'size': tune.choice([1, 2])}",
            ["size", "lr"],
        ),
        ("other = {'size': tune.choice([1, 2])}; tune.run(train, scheduler=%s)", ["size", "lr"]),
    ],
)
def test_mutations_are_no_space_of_their_own(tmp_path: Path, call: str, names: list[str]) -> None:
    search = read(tmp_path, IMPORT + call % MUTATIONS)
    assert [each.name for each in search.parameters] == names
    assert search.direction == "maximize"


def test_settings_of_rays_search_algorithm_are_read_or_named(tmp_path: Path) -> None:
    algorithm = (
        "HyperOptSearch(metric='loss', mode='min', n_initial_points=5, random_state_seed=3, gamma=0.2, "
        "points_to_evaluate=[{'x': 1}])"
    )
    search = read(tmp_path, f"{IMPORT}tune.run(f, config={{'x': tune.uniform(0, 1)}}, search_alg={algorithm})")
    assert (search.method, search.sampler_options, search.seed) == ("tpe", {"n_startup_trials": 5}, 3)
    assert "these settings of HyperOptSearch have no equivalent: gamma = 0.2" in search.notes
    points = "points_to_evaluate = [{'x': 1}] is left out; warm_start in the study file says which trials come first"
    assert points in search.notes


MAIN = """from ray import tune
def main({}):
    tune.run(train, config={{"x": tune.uniform(0, 1)}}, num_samples=samples)
"""


@pytest.mark.parametrize(
    ("arguments", "calls", "trials", "note"),
    [
        ("samples=10", "main(samples=50)", 50, ""),
        ("gpus, samples=10", "main(0, 50)", 50, ""),
        ("gpus, *, samples", "if __name__ == '__main__':\n    main(0, samples=5 * 10)", 50, ""),
        ("samples=10", "main(50)\nmain(samples=50)", 50, ""),
        ("samples=10", "main(50)\nmain(60)", 10, "; the file gives it 50 in line 4, 60 in line 5"),
        ("samples=10", "main(args.n)", 10, "; the file gives it args.n in line 4"),
        ("samples=10", "main(**options)", 10, "; the file gives it *options in line 4"),
        ("samples=10", "main()", 10, ""),
        ("samples=10", "", 10, ""),
    ],
)
def test_an_argument_is_what_the_calls_of_its_function_give_it(
    tmp_path: Path, arguments: str, calls: str, trials: int, note: str
) -> None:
    search = read(tmp_path, MAIN.format(arguments) + calls)
    assert search.trials == trials
    default = f"samples = 10 is taken from a default, in line 2{note}"
    assert [each for each in search.notes if "default" in each] == ([default] if trials == 10 else [])


def test_a_function_that_calls_itself_is_read_once(tmp_path: Path) -> None:
    search = read(tmp_path, MAIN.format("samples=10") + "    main(samples=samples + samples)\n")
    assert search.trials == 10


TIMEOUT = "trial_timeout = 600 in the study file fails a trial after so many seconds"
EPOCHS = "and its pruner counts epochs here, by its own defaults"


@pytest.mark.parametrize(
    ("scheduler", "pruner", "note"),
    [
        (
            "ASHAScheduler(time_attr='time_total_s', max_t=600, grace_period=60)",
            {"name": "asha", "reduction_factor": 4},
            f"scheduler ASHAScheduler counts time_total_s (max_t = 600, grace_period = 60) there, {EPOCHS}; {TIMEOUT}",
        ),
        (
            "HyperBandScheduler(time_attr='timesteps_total', max_t=9000)",
            {"name": "hyperband", "reduction_factor": 3},
            f"scheduler HyperBandScheduler counts timesteps_total (max_t = 9000) there, {EPOCHS}",
        ),
        (
            "MedianStoppingRule(min_samples_required=2)",
            {"name": "median", "n_startup_trials": 2},
            f"scheduler MedianStoppingRule counts time_total_s there, {EPOCHS}",
        ),
        (
            "ASHAScheduler(max_t=9, grace_period=2)",
            {"name": "asha", "min_resource": 2, "reduction_factor": 4},
            "its scheduler ends a trial after 9 iterations; if these are epochs, give epochs = 9",
        ),
    ],
)
def test_a_scheduler_that_counts_no_epochs_is_not_read_as_if_it_did(
    tmp_path: Path, scheduler: str, pruner: object, note: str
) -> None:
    call = f"tune.run(f, config={{'x': tune.uniform(0, 1)}}, num_samples=3, scheduler=tune.schedulers.{scheduler})"
    search = read(tmp_path, IMPORT + call)
    assert (search.pruner, search.notes) == (pruner, (note,))


def test_seconds_that_end_a_trial_name_its_timeout(tmp_path: Path) -> None:
    call = "tune.run(f, config={'x': tune.uniform(0, 1)}, num_samples=3, stop={'time_total_s': 600})"
    assert read(tmp_path, IMPORT + call).notes == (f"stop: time_total_s = 600 ends a trial there; {TIMEOUT}",)
