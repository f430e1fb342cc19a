"""Readers of other tools' files: values and bounds against formulas and the tools' own documents, and bad files."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import yaml

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.domains import quantized
from hpo.study.foreign.hydra_values import ChoiceSweep, IntervalSweep, RangeSweep, parse_value
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportOptions
from hpo.study.foreign.loop_file import import_loop
from hpo.study.foreign.python_source import UnreadableError, parse_source
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignDomain, ForeignSearch, Range

CORPUS = Path(__file__).parents[2] / "imports"


def read(tmp_path: Path, text: str, suffix: str = ".py") -> ForeignSearch:
    path = tmp_path / f"theirs{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def read_json(tmp_path: Path, document: Any) -> ForeignSearch:
    return read(tmp_path, json.dumps(document), ".json")


def refusal(tmp_path: Path, text: str, suffix: str = ".py") -> str:
    """Return what is said against a file, in one line that begins with the file."""
    with pytest.raises(RequestError) as error:
        read(tmp_path, text, suffix)
    beginning, _, message = str(error.value).partition(": ")
    assert beginning == str(tmp_path / f"theirs{suffix}")
    assert "\n" not in message
    return message


def points(domain: ForeignDomain) -> set[float]:
    match domain:
        case Constant(value):
            return {value}
        case Choices(values):
            return set(values)
        case Range(low, high, step=float() | int() as step):
            return {round(low + step * number, 9) for number in range(round((high - low) / step) + 1)}
        case Range(low, high, integer=True):
            return set(range(int(low), int(high) + 1))
    raise AssertionError(domain)


# Ranges that round.


@pytest.mark.parametrize(
    ("low", "high", "q"),
    [(0, 1, 0.25), (16, 128, 16), (0.1, 0.9, 0.25), (0, 10, 3), (1, 9, 4), (2, 2, 1), (0.3, 0.4, 1)],
)
def test_quantized_ranges_have_the_values_of_the_formula(low: float, high: float, q: float) -> None:
    """NNI documents quniform as clip(round(uniform(low, high) / q) * q, low, high)."""
    random.seed(0)
    drawn = {min(max(round(random.uniform(low, high) / q) * q, low), high) for _ in range(4000)}
    domain, note = quantized(low, high, q)
    assert points(domain) == {round(value, 9) for value in drawn}
    assert note == ""


def test_steps_of_a_logarithmic_scale_are_left_out_and_said() -> None:
    assert quantized(1, 64, 1, log=True) == (Range(1, 64, log=True, integer=True), "")
    domain, note = quantized(0.001, 0.1, 0.001, log=True)
    assert domain == Range(0.001, 0.1, log=True)
    assert note == "its steps of 0.001 on a logarithmic scale have no equivalent and are left out"


# NNI and KerasTuner.


def test_the_upper_bound_of_nnis_randint_is_exclusive(tmp_path: Path) -> None:
    space = {"a": {"_type": "randint", "_value": [1, 4]}, "b": {"_type": "uniform", "_value": [1, 4]}}
    domains = [parameter.domain for parameter in read_json(tmp_path, space).parameters]
    assert domains == [Range(1, 3, integer=True), Range(1.0, 4.0)]


def keras(kind: str, **config: Any) -> dict[str, Any]:
    hyperparameter = {"class_name": kind, "config": {"name": "x", "default": None, "conditions": [], **config}}
    return {"space": [hyperparameter], "values": {}}


@pytest.mark.parametrize(
    ("hyperparameter", "values"),
    [
        (keras("Int", min_value=6, max_value=13, step=3, sampling="linear"), {6, 9, 12}),
        (keras("Int", min_value=2, max_value=32, step=2, sampling="log"), {2, 4, 8, 16, 32}),
        (keras("Float", min_value=0, max_value=1, step=0.2, sampling="linear"), {0.0, 0.2, 0.4, 0.6, 0.8, 1.0}),
        (keras("Float", min_value=0.001, max_value=10, step=10, sampling="log"), {0.001, 0.01, 0.1, 1.0, 10.0}),
        # max + min - min * step ** i
        (keras("Int", min_value=1, max_value=8, step=2, sampling="reverse_log"), {8, 7, 5, 1}),
        (keras("Boolean"), {False, True}),
    ],
)
def test_keras_tuners_steps_are_those_of_its_documentation(
    tmp_path: Path, hyperparameter: dict[str, Any], values: set[float]
) -> None:
    [parameter] = read_json(tmp_path, hyperparameter).parameters
    assert points(parameter.domain) == values


# Hydra: what hydra-core 1.3.8 parses these texts to.


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1, 2 ,a b", ChoiceSweep((1, 2, "a b"))),
        ("choice(1e-4, 'x, y', true, null)", ChoiceSweep((1e-4, "x, y", True, None))),
        ("[a,b],[c]", ChoiceSweep((["a", "b"], ["c"]))),
        ("range(5)", RangeSweep(0, 5)),
        ("range(start=1, stop=9, step=2)", RangeSweep(1, 9, 2)),
        ("shuffle(range(1, 4))", RangeSweep(1, 4, shuffled=True)),
        ("interval(1, 5)", IntervalSweep(1.0, 5.0)),
        ("tag(log, int(interval(8, 128)))", IntervalSweep(8, 128, frozenset({"log"}))),
        ("str(1, 2)", ChoiceSweep(("1", "2"))),
        ("10_000", 10_000),
        ("00012", "00012"),
        ("http://a.b/c", "http://a.b/c"),
        (r"a\,b", "a,b"),
        ("{a: 1, b: [2]}", {"a": 1, "b": [2]}),
        ("'it\\'s'", "it's"),
    ],
)
def test_hydras_grammar(text: str, value: object) -> None:
    assert parse_value(text) == value
    parsed = parse_value(text)
    if isinstance(parsed, IntervalSweep):  # equal numbers are of several types
        assert type(parsed.start) is type(value.start)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "text", ["choice(", "range(1,2", "interval(1)", "nofunc(1)", "choice()", "glob(*)", "[" * 99, "a=b"]
)
def test_what_hydra_refuses_is_refused_in_a_line(text: str) -> None:
    with pytest.raises(RequestError) as error:
        parse_value(text)
    assert "\n" not in str(error.value)


def sweeper(name: str, **section: Any) -> str:
    return yaml.safe_dump({"defaults": [{"override hydra/sweeper": name}], "hydra": {"sweeper": section}})


def test_the_end_of_hydras_range_belongs_to_it_in_the_optuna_sweeper_alone(tmp_path: Path) -> None:
    params = {"n": "range(1, 4)"}
    grid = {"_target_": "optuna.samplers.GridSampler"}
    found = [
        read(tmp_path, sweeper(name, params=params, **more), ".yaml").parameters[0].domain
        for name, more in (("basic", {}), ("optuna", {}), ("optuna", {"sampler": grid}), ("ax", {}))
    ]
    assert list(map(points, found)) == [{1, 2, 3}, {1, 2, 3, 4}, {1, 2, 3}, {1, 2, 3}]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0), ("1E3", 1000.0), ("+1e3", 1000.0), ("-1e-3", -0.001), ("1_000e3", 1e6), ("1.e-3", 0.001),
        ("1.5E-5", 1.5e-5), (".5", 0.5), (".5e3", ".5e3"), (".5e-3", 0.0005), ("1_000", 1000), ("0x10", 16),
        ("0b11", 3), ("010", 8), ("1:30", 90), ("1_e3", "1_e3"), ("1e", "1e"), ("e3", "e3"), ("1e3x", "1e3x"),
        ("'1e3'", "1e3"), ("on", True), ("no", False), ("y", "y"), ("~", None), ("inf", "inf"), (".inf", math.inf),
    ],
)  # fmt: skip
def test_constants_of_hydra_are_what_omegaconf_makes_of_them(tmp_path: Path, text: str, value: object) -> None:
    """Compared with OmegaConf 2.4, whose numbers need no point before an exponent."""
    text = f"x: {text}\nz: ${{x}}\n{sweeper('basic', params={'y': '1, 2'})}"
    found = {each.name: each.domain for each in read(tmp_path, text, ".yaml").parameters}["x"]
    assert isinstance(found, Constant)
    assert (type(found.value), found.value) == (type(value), value)


# Python.


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of suggest_uniform and its like, which older files have
@pytest.mark.parametrize("name", ["branches", "layers"])
def test_optunas_parameters_are_those_that_optuna_gets(name: str) -> None:
    """Run the objective functions, and compare the parameters of each trial, their domains and their conditions."""
    file = CORPUS / "optuna" / f"{name}.py"
    scope: dict[str, Any] = {"__name__": name}
    exec(compile(file.read_text(encoding="utf-8"), file, "exec"), scope)
    search = read_search(file)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    study.optimize(scope["objective"], n_trials=60)
    unread = {"warmup"}  # its condition is about a range of real numbers, and said to be left out
    for trial in study.trials:
        existing = {
            each.name: each.domain
            for each in search.parameters
            if all(trial.params.get(parent) in values for parent, values in each.when.items())
        }
        assert set(trial.params) - unread == set(existing) - unread
        for parameter in trial.params:
            assert same(existing[parameter], trial.distributions[parameter]), parameter


def same(ours: ForeignDomain, theirs: Any) -> bool:
    match ours:
        case Choices(values):
            return values == theirs.choices
        case Range(low, high, log, step):
            usual = 1 if isinstance(theirs, optuna.distributions.IntDistribution) else None
            return (low, high, log, step or usual) == (theirs.low, theirs.high, theirs.log, theirs.step)
    return False


IMPORT = "from ray import tune\n"
RAY = IMPORT + "import numpy as np\nimport random\nspace = {'x': %s, 'y': tune.choice([1, 2])}\n"


@pytest.mark.parametrize(
    ("expression", "domain"),
    [
        ("tune.sample_from(lambda _: 2 ** np.random.randint(2, 5))", Choices((4, 8, 16))),
        ("tune.sample_from(lambda: random.randint(2, 4))", Range(2, 4, integer=True)),
        ("tune.sample_from(lambda _: 10 ** -np.random.uniform(1, 3))", Range(0.001, 0.1, log=True)),
        ("tune.sample_from(lambda _: 1 - np.random.uniform(0.25, 0.5))", Range(0.5, 0.75)),
        ("tune.sample_from(lambda spec: spec.config.y)", Computed("lambda spec: spec.config.y")),
        ("tune.choice([2 ** k for k in range(3)])", Choices((1, 2, 4))),
        ("tune.choice(list(np.linspace(0.1, 0.3, 3)))", Choices((0.1, 0.2, 0.3))),
        ("tune.choice(list(np.linspace(0, 0.5, 3)) + 2 * [1])", Choices((0.0, 0.25, 0.5, 1), (0.2, 0.2, 0.2, 0.4))),
        ("open('secret').read()", Computed("open('secret').read()")),
    ],
)
def test_expressions_of_python_are_read_and_not_run(tmp_path: Path, expression: str, domain: ForeignDomain) -> None:
    assert read(tmp_path, RAY % expression).parameters[0].domain == domain


@pytest.mark.parametrize(
    "expression",
    [
        "9 ** 9 ** 9", "'{:>999999999}'.format(1)", "'%999999999d' % 1", "list(range(10 ** 9))", "[0] * 10 ** 9",
        "'a' * 10 ** 9", "np.linspace(0, 1, 3) * 2", "np.array([1, 2]) + np.array([3, 4])",
        "-" * 50 + "x", "np.arange(0, 1, 1e-300)", "[[i for i in range(999)] for j in range(999)]", "(-8) ** 0.5",
        "__import__('os').getcwd()",
    ],
)  # fmt: skip
def test_expressions_that_are_too_large_or_call_anything_are_not_evaluated(expression: str) -> None:
    source = parse_source(f"import numpy as np\nx = {expression}")
    with pytest.raises(UnreadableError):
        source.evaluate(source.assigned["x"])


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
        ("trainer.hyperparameter_search(hp_space=lambda _: {'size': 3}, scheduler=%s)", ["size", "lr"]),
        (
            "trainer.hyperparameter_search(hp_space=lambda _: {'size': tune.choice([1, 2])}, scheduler=%s)",
            ["size", "lr"],
        ),
        ("other = {'size': tune.choice([1, 2])}; tune.run(train, scheduler=%s)", ["size", "lr"]),
    ],
)
def test_mutations_are_no_space_of_their_own(tmp_path: Path, call: str, names: list[str]) -> None:
    search = read(tmp_path, IMPORT + call % MUTATIONS)
    assert [each.name for each in search.parameters] == names
    assert search.direction == "maximize"


def test_a_search_of_hugging_face_has_its_own_names_for_rays_settings(tmp_path: Path) -> None:
    call = "trainer.hyperparameter_search(hp_space=lambda _: {'x': tune.uniform(0, 1)}, direction='maximize'%s)"
    searches = [read(tmp_path, IMPORT + call % more) for more in (", n_trials=8", "")]
    assert [(each.trials, each.direction) for each in searches] == [(8, "maximize"), (20, "maximize")]


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        (".yaml", sweeper("basic", params={"opt": "adam,sgd", "opt.n": "1,2", "opt.net": "a,b", "opt.net.n": "1,2"})),
        (".yaml", sweeper("basic", params={"opt/net": "a,b", "opt.net._value_": "1,2", "opt.n": "1,2", "opt": "a"})),
        (".yaml", "method: grid\nparameters: {opt: {values: [a, b]}, opt.lr: {values: [1, 2]}}"),
        (".yaml", "method: grid\nparameters: {opt.lr: {values: [1, 2]}, opt: {parameters: {lr: {values: [3, 4]}}}}"),
        (".py", IMPORT + "space = {'opt': tune.choice(['a', 'b'])}\nspace['opt']['lr'] = tune.choice([1, 2])"),
        (".py", "def f(t):\n    t.suggest_categorical('opt', ['a', 'b'])\n    t.suggest_int('opt.lr', 1, 3)"),
    ],
)  # fmt: skip
def test_a_parameter_may_be_a_table_of_others_in_a_loop(tmp_path: Path, suffix: str, text: str) -> None:
    path = tmp_path / f"theirs{suffix}"
    path.write_text(text, encoding="utf-8")
    scope: dict[str, Any] = {"__name__": "their_loop"}
    exec(import_loop(path, tmp_path / "their_loop.py", ImportOptions()).loop.partition("@hpo.training_loop")[0], scope)
    values = {name: number for number, name in enumerate(scope["PATHS"])}
    assert len(values) == len(read_search(path).parameters)
    written = scope["as_written"](SimpleNamespace(**values))
    assert scope["as_parameters"](written) == values


def test_a_nested_choice_of_nni_has_its_name_where_nni_has_it(tmp_path: Path) -> None:
    scope: dict[str, Any] = {"__name__": "their_loop"}
    loop = import_loop(CORPUS / "nni" / "nested.json", tmp_path / "their_loop.py", ImportOptions()).loop
    exec(loop.partition("@hpo.training_loop")[0], scope)
    values = {"network": "deep", "network_layers": 3, "network_block": "slim", "network_block_size_2": 8, "lr": 0.1}
    written = {"network": {"_name": "deep", "layers": 3, "block": {"_name": "slim", "size": 8}}, "lr": 0.1}
    assert scope["as_written"](SimpleNamespace(**values, network_block_size=64)) == written
    assert scope["as_parameters"](written) == values


def test_hydras_params_come_before_its_search_space(tmp_path: Path) -> None:
    space = {name: {"type": "int", "low": 1, "high": 3} for name in ("a.b", "c")}
    text = sweeper("optuna", params={"+a.b": "range(4, 6)", "d": "1,2"}, search_space=space)
    found = {each.name: points(each.domain) for each in read(tmp_path, text, ".yaml").parameters}
    assert found == {"a.b": {4, 5, 6}, "c": {1, 2, 3}, "d": {1, 2}}


@pytest.mark.parametrize(
    ("constants", "dataset"),
    [
        ({"data": {"dataset": "mnist", "_target_": "mine.Data"}}, "mnist"),
        ({"data": {"name": "MNIST"}}, "mnist"),
        ({"dataset": "mnist"}, "mnist"),
        ({"model": {"dataset": "mnist"}}, None),
        ({"data": {"_target_": "mine.Data"}}, None),
        ({"data": {"name": "mnist"}, "dataset": "cifar10"}, None),
    ],
)
def test_a_data_set_is_known_in_the_tables_of_data_alone(
    tmp_path: Path, constants: dict[str, Any], dataset: str | None
) -> None:
    path = tmp_path / "theirs.yaml"
    path.write_text(sweeper("basic", params={"depth": "1,2"}) + yaml.safe_dump({"epochs": 1, **constants}), "utf-8")
    if dataset is None:
        with pytest.raises(ImportRefusedError) as error:
            import_study(path, ImportOptions())
        assert "name it with --dataset" in " ".join([*error.value.lines, str(error.value)])
    else:
        assert import_study(path, ImportOptions()).table["dataset"] == dataset


REST = "these settings of its sweeper have no equivalent: "


@pytest.mark.parametrize(
    ("name", "section", "options", "notes"),
    [
        ("optuna", {"sampler": {"_target_": "optuna.samplers.TPESampler", "seed": 1, "n_startup_trials": 5}},
         {"n_startup_trials": 5}, [f"{REST}sampler.seed = 1"]),
        ("optuna", {"sampler": {"_target_": "optuna.samplers.NSGAIISampler", "population_size": 8, "seed": None}},
         {"population_size": 8}, []),
        ("optuna", {"max_failure_rate": 0.2, "n_jobs": 2, "storage": None, "mine": {"deep": 3}},
         {}, [f"{REST}max_failure_rate = 0.2, mine.deep = 3"]),
        ("optuna", {"custom_search_space": "mine.add"},
         {}, ["custom_search_space: 'mine.add' may add parameters there, and is not read"]),
        ("ax", {"ax_config": {"early_stop": {"minimize": True}, "experiment": {"parameter_constraints": ["x <= y"]}}},
         {}, [f"{REST}ax_config.early_stop.minimize = True, "
              "ax_config.experiment.parameter_constraints = ['x <= y']"]),
        ("nevergrad", {"optim": {"budget": 3, "noisy": True, "num_workers": 2}}, {}, [f"{REST}optim.noisy = True"]),
        ("basic", {"max_batch_size": 3, "mine": 1}, {}, [f"{REST}mine = 1"]),
    ],
)  # fmt: skip
def test_every_setting_of_a_sweeper_is_read_or_named(
    tmp_path: Path, name: str, section: dict[str, Any], options: dict[str, Any], notes: list[str]
) -> None:
    search = read(tmp_path, sweeper(name, params={"x": "1,2"}, **section), ".yaml")
    assert search.sampler_options == options
    assert [note for note in search.notes if note.startswith((REST, "custom"))] == notes


def test_the_objective_of_ax_has_its_name(tmp_path: Path) -> None:
    config = {"experiment": {"objective_name": "val_loss", "minimize": False}, "max_trials": 3}
    search = read(tmp_path, sweeper("ax", params={"x": "1,2"}, ax_config=config), ".yaml")
    assert (search.metric, search.direction, search.notes) == ("val_loss", "maximize", ())


def test_settings_of_rays_search_algorithm_are_read_or_named(tmp_path: Path) -> None:
    algorithm = (
        "HyperOptSearch(metric='loss', mode='min', n_initial_points=5, random_state_seed=3, points_to_evaluate=[])"
    )
    search = read(tmp_path, f"{IMPORT}tune.run(f, config={{'x': tune.uniform(0, 1)}}, search_alg={algorithm})")
    assert (search.method, search.sampler_options) == ("tpe", {"n_startup_trials": 5})
    assert (
        "these settings of HyperOptSearch have no equivalent: random_state_seed = 3, points_to_evaluate = []"
        in search.notes
    )


# Bad files.


@pytest.mark.parametrize(
    ("suffix", "text", "message"),
    [
        (".py", IMPORT + "space = {'x': tune.uniform(0, 1)", "line 2: is no valid Python: '{' was never closed"),
        (".py", IMPORT + "(" * 5000, "line 2: is no valid Python: too many nested parentheses"),
        (".py", IMPORT + "x = {'a': tune.choice([1, 2]), **x, **x}", "its tables are parts of each other too often"),
        (".py", IMPORT + "x = {'a': tune.choice([1, 2])}\n" + "x.update(x)\n" * 3, "its tables are parts"),
        (".py", IMPORT, "has no search space of Ray Tune"),
        (".py", RAY % "tune.choice(load())", "x: tune.choice(load()) (line 4) is known only when the file runs"),
        (".py", RAY % "tune.uniform(1)", "x: tune.uniform(1) (line 4): takes lower, upper"),
        (".py", RAY % "tune.loguniform(0, 1)", "x: tune.loguniform(0, 1) (line 4): 0 to 1: a logarithmic scale begins"),
        (".py", RAY % "1" + "z = {'z': tune.uniform(0, 1)}", "has 2 search spaces (lines 4, 5); leave one in the file"),
        (".py", "def f(trial): return trial.suggest_int('n', low(), 3)", "(line 1) is known only when the file runs"),
        (".json", '{"a": {"_type": "mutable_layer", "_value": [1]}}', "a: _type: "),
        (".json", '{"a": {"_type": "randint", "_value": [3, 3]}}', "a: from 3 to below 3: there is no whole number"),
        (".json", '{"space": [{"class_name": "Int"}]}', "space[0] = "),
        (".yaml", sweeper("basic", params={"x": "interval(0, 1)"}), "x: 'interval(0, 1)': the basic sweeper takes no "),
        (".yaml", "apiVersion: kubeflow.org/v1beta1\nkind: Experiment\nspec: {nasConfig: {}}", "spec.nasConfig: "),
        (".yaml", "searchSpaceFile: ../missing.json\n", "missing.json: cannot be read: No such file or directory"),
        (".yaml", "a: 1\n", "is none of the files that can be imported"),
    ],
)  # fmt: skip
def test_a_bad_file_is_refused_in_a_line(tmp_path: Path, suffix: str, text: str, message: str) -> None:
    assert message in refusal(tmp_path, text, suffix)


def test_all_parameters_that_are_wrong_are_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError) as error:
        read_json(tmp_path, {name: {"_type": "randint", "_value": [5, 1]} for name in "ab"})
    assert [line.partition(":")[0] for line in error.value.lines] == ["a", "b"]
    assert str(error.value).endswith("2 parameters cannot be read, each on a line above")


@pytest.mark.parametrize(
    ("suffix", "text", "name", "expression"),
    [
        (".py", RAY % "tune.choice(load())", "x", "tune.choice(load())"),
        (".py", RAY % "tune.uniform(0, high())", "x", "tune.uniform(0, high())"),
        (".py", "def f(t):\n    t.suggest_int('n', low(), 3)\n    t.suggest_int('m', 1, 3)", "n", "low(), 3)"),
        (".yaml", sweeper("nevergrad", params={"n": {"init": 2, "log": True}, "m": [1]}), "n", "{init: 2, log: true}"),
    ],
)  # fmt: skip
def test_values_that_only_the_other_tool_knows_are_refused_left_out_or_stand_in_the_loop(
    tmp_path: Path, suffix: str, text: str, name: str, expression: str
) -> None:
    assert refusal(tmp_path, text, suffix).startswith(f"{name}: ")
    path = tmp_path / f"theirs{suffix}"
    assert name in [each.name for each in read_search(path, [name]).parameters]
    loop = import_loop(path, tmp_path / "their_loop.py", ImportOptions())
    assert expression in loop.loop
    assert any(note.startswith(f"{name}: ") for note in loop.notes)


def test_what_is_wrong_may_be_left_out_but_not_of_a_loop(tmp_path: Path) -> None:
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({name: {"_type": "randint", "_value": [5, 1]} for name in "ab"}), encoding="utf-8")
    with pytest.raises(RequestError, match=r"theirs\.json: b: from 5 to below 1"):
        read_search(path, ["a"])
    with pytest.raises(RequestError, match="2 parameters cannot be read"):
        import_loop(path, tmp_path / "their_loop.py", ImportOptions())


def test_all_that_is_wrong_with_an_experiment_is_named_at_once(tmp_path: Path) -> None:
    spec = {
        "objective": {"type": "most", "goal": "high"},
        "algorithm": {"algorithmName": "random"},
        "parameters": [{"name": "a"}, {"name": "b"}],
        "maxTrialCount": 0,
    }
    assert _named(tmp_path, {"apiVersion": "kubeflow.org/v1beta1", "kind": "Experiment", "spec": spec}) == [
        *("a", "b", "spec.objective.type = 'most'", "spec.objective.goal = 'high'", "spec.maxTrialCount = 0"),
    ]
    space = {name: {"_type": "randint", "_value": [5, 1]} for name in "ab"}
    tuner = {"name": "TPE", "classArgs": {"optimize_mode": "most"}}
    assert _named(tmp_path, {"searchSpace": space, "tuner": tuner, "maxTrialNumber": 0}) == [
        *("a", "b", "tuner", "maxTrialNumber = 0"),
    ]
    sweep = {
        "method": "best",
        "metric": {"name": "loss", "goal": "maximise"},
        "run_cap": 0,
        "early_terminate": {"type": "median"},
        "parameters": {"a": {"min": 1}, "b": {"parameters": {"c": {"values": []}}}, "d": {"value": 1, "mean": 2}},
    }
    assert _named(tmp_path, sweep) == [
        *("a", "b.c", "d", "metric.goal = 'maximise'", "method = 'best'"),
        *("run_cap = 0", "early_terminate = {'type'"),
    ]


def _named(tmp_path: Path, document: dict[str, Any]) -> list[str]:
    """Return what the lines of a refusal begin with."""
    with pytest.raises(ImportRefusedError) as error:
        read_json(tmp_path, document)
    return [line.partition(":")[0] for line in error.value.lines]


def test_a_database_needs_no_import(tmp_path: Path) -> None:
    path = tmp_path / "study.db"
    optuna.create_study(storage=f"sqlite:///{path}")
    with pytest.raises(RequestError, match=f"hpo list --storage sqlite:///{path}"):
        read_search(path)
