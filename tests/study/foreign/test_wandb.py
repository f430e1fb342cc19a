"""Weights & Biases sweeps as studies, against what their documentation says of each distribution."""

from __future__ import annotations

import math
import shutil
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from scipy import stats

from hpo.config.trial_config import all_parameters
from hpo.errors import RequestError
from hpo.space import Space
from hpo.space.parse import parse
from hpo.study.foreign.fit import Fit, fit_domain
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportedStudy, ImportOptions, write_files
from hpo.study.foreign.wandb_distributions import DISTRIBUTIONS, read_distribution
from hpo.study.input.study_file import read_study
from hpo.study.slots import fixed_trials
from tests.helpers import run_hpo

FASHION = Path(__file__).parent / "fashion_sweep.yaml"
DRAWS = 4000
RNG = np.random.default_rng(0)


def imported(tmp_path: Path, *renames: str, **keys: Any) -> ImportedStudy:
    sweep = {"method": "random", "run_cap": 4, "metric": {"name": "val_accuracy", "goal": "maximize"}, **keys}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump(sweep, sort_keys=False), encoding="utf-8")
    return import_study(path, ImportOptions(renames=dict(each.split("=") for each in renames), dataset="mnist"))


def convert(name: str, spec: dict[str, Any]) -> Fit:
    """Return the domain of our parameter that a sweep's table gives it."""
    domain, note = read_distribution(spec)
    fit = fit_domain(all_parameters()[name], domain, {})
    return Fit(fit.literal, tuple(filter(None, (note, *fit.notes))))


def parameters(tmp_path: Path, *renames: str, **specs: Any) -> dict[str, Any]:
    return imported(tmp_path, *renames, parameters=specs).table["parameters"]


# The show.


def test_the_sweep_of_fashion_mnist_is_the_template(tmp_path: Path) -> None:
    shutil.copy(FASHION, tmp_path / "theirs.yaml")
    done = run_hpo("import-sweep", "theirs.yaml", "-o", "ours.toml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stderr.splitlines() == [
        "dataset = FashionMNIST -> dataset = fashion_mnist",
        "arch -> model (MLP -> mlp)",
        "num_hidden_layers -> depth",
        "hidden_layer_size -> width",
        "bs -> batch_size",
        "lr -> learning_rate",
        "activation_function -> activation (ReLU -> relu, logistic -> sigmoid)",
        "optimizer: SGD -> sgd, nag -> nesterov, RMSprop -> rmsprop, Adam -> adam, NAdam -> nadam",
        "weight_init -> init (Xavier -> xavier, random -> normal)",
        "metric val_acc -> val_accuracy",
        "note: program, project: they say how runs are started; here hpo launch and hpo worker do that",
        "10 of 10 parameters are kept",
        "look at it with:  hpo launch ./ours.toml --dry-run",
    ]
    name, theirs, budget = read_study(str(tmp_path / "ours.toml"))
    wanted, ours, of_ours = read_study("fashion_sweep")
    assert (name, budget) == (wanted, of_ours)
    assert ours.differences(theirs) == []
    assert fixed_trials(theirs, 0, 100) == fixed_trials(ours, 0, 100)
    again = run_hpo("import-sweep", "theirs.yaml", "-o", "ours.toml", "--rename", "optimizer.SGD=adamw", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr.splitlines()[-1].startswith("hpo: ours.toml: exists with other content")


# Distributions.

# What W&B draws, from its documentation's formula, for a parameter of ours that can hold it.
EXACT = {
    "int_uniform": ("width", {"min": 8, "max": 64}, lambda n: RNG.integers(8, 65, n)),
    "uniform": ("dropout", {"min": 0.0, "max": 0.5}, lambda n: RNG.uniform(0.0, 0.5, n)),
    "log_uniform": ("learning_rate", {"min": -9.2, "max": -2.3}, lambda n: np.exp(RNG.uniform(-9.2, -2.3, n))),
    "log_uniform_values": ("learning_rate", {"min": 1e-4, "max": 0.1}, lambda n: np.exp(log_draws(1e-4, 0.1, n))),
    "inv_log_uniform": ("learning_rate", {"min": 2.3, "max": 9.2}, lambda n: 1 / np.exp(RNG.uniform(2.3, 9.2, n))),
    "inv_log_uniform_values": (
        "learning_rate",
        {"min": 1e-4, "max": 0.1},
        lambda n: 1 / np.exp(-log_draws(1e-4, 0.1, n)),
    ),
}


def log_draws(low: float, high: float, count: int) -> np.ndarray:
    return RNG.uniform(math.log(low), math.log(high), count)


@pytest.mark.parametrize("name", EXACT)
def test_what_has_an_equivalent_is_the_same_distribution(name: str) -> None:
    parameter, numbers, draw = EXACT[name]
    found = convert(parameter, {"distribution": name, **numbers})
    assert not found.notes
    (ours,) = parse(parameter, found.literal, all_parameters())
    theirs = draw(DRAWS)
    slack = 1e-9 * ours.high
    assert all(ours.low - slack <= value <= ours.high + slack for value in theirs)
    mine = np.array([ours.at(u) for u in RNG.random(DRAWS)])
    assert stats.ks_2samp(theirs.astype(float), mine.astype(float)).pvalue > 0.001
    assert theirs.min() <= mine.min() * 1.2 + 0.01
    assert theirs.max() >= mine.max() * 0.8


@pytest.mark.parametrize(
    ("parameter", "low", "high", "q"),
    [
        ("dropout", 0.0, 0.5, 0.1),
        ("dropout", 0.04, 0.52, 0.1),
        ("dropout", 0.05, 0.5, 0.1),
        ("batch_size", 16, 256, 32),
        ("epochs", 5, 52, 10),
        ("momentum", 0.5, 0.95, 0.05),
        ("width", 20, 250, 16),
    ],
)
def test_a_quantized_range_holds_just_the_values_that_rounding_gives(
    parameter: str, low: float, high: float, q: float
) -> None:
    found = convert(parameter, {"distribution": "q_uniform", "min": low, "max": high, "q": q})
    (ours,) = parse(parameter, found.literal, all_parameters())
    theirs = np.round(RNG.uniform(low, high, DRAWS) / q) * q
    assert sorted({round(float(value), 9) for value in theirs}) == pytest.approx([float(v) for v in ours.points()])


def test_whole_numbers_on_a_logarithmic_scale_are_the_same_with_q_1() -> None:
    spec = {"distribution": "q_log_uniform_values", "min": 8, "max": 512, "q": 1}
    found = convert("width", spec)
    assert (found.literal, found.notes) == ({"low": 8, "high": 512, "log": True}, ())
    other = convert("width", {**spec, "q": 8})
    assert other.literal == found.literal
    assert "its steps of 8 on a logarithmic scale have no equivalent" in other.notes[0]


@pytest.mark.parametrize(
    ("spec", "literal", "words"),
    [
        (
            {"distribution": "normal", "mu": 0.3, "sigma": 0.1},
            {"low": 0.1, "high": 0.5},
            "normal(mu=0.3, sigma=0.1) has no",
        ),
        (
            {"distribution": "q_normal", "mu": 0.3, "sigma": 0.1, "q": 0.05},
            {"low": 0.1, "high": 0.5, "step": 0.05},
            "q_normal(mu=0.3, sigma=0.1, q=0.05) has no equivalent: 0.1 to 0.5 in steps of 0.05, evenly, replaces it",
        ),
        ({"distribution": "beta", "a": 2, "b": 5}, {"low": 0, "high": math.nextafter(1, 0)}, "beta(a=2, b=5) has no"),
        (
            {"distribution": "q_beta", "a": 2, "b": 5, "q": 0.1},
            {"low": 0, "high": 0.9, "step": 0.1},
            "q_beta(a=2, b=5, q=0.1) has no",
        ),
        (
            {"distribution": "log_normal", "mu": -2, "sigma": 0.5},
            {"low": 0.04979, "high": 0.3679, "log": True},
            "log_normal(",
        ),
        (
            {"distribution": "q_log_normal", "mu": -2, "sigma": 0.5, "q": 0.01},
            {"low": 0.05, "high": 0.37, "log": True},
            "replaces it; its steps of 0.01 on a logarithmic scale have no equivalent and are left out",
        ),
    ],
)
def test_what_has_none_is_replaced_and_named(spec: dict[str, Any], literal: dict[str, Any], words: str) -> None:
    found = convert("dropout", spec)
    assert found.literal == pytest.approx(literal)
    assert words in found.notes[0]


def test_every_distribution_is_known() -> None:
    assert set(DISTRIBUTIONS) - set(EXACT) == {
        "constant",
        "categorical",
        "categorical_w_probabilities",
        "q_uniform",
        "q_log_uniform",
        "q_log_uniform_values",
        "normal",
        "q_normal",
        "log_normal",
        "q_log_normal",
        "beta",
        "q_beta",
    }


def test_without_a_distribution_the_numbers_decide(tmp_path: Path) -> None:
    found = parameters(
        tmp_path,
        epochs={"value": 2},
        width={"values": [16, 32]},
        depth={"min": 1, "max": 3},
        dropout={"min": 0.0, "max": 0.5},
        learning_rate={"distribution": "log_uniform_values", "min": "1e-4", "max": 0.1},
        optimizer={"values": ["adam", "sgd"], "probabilities": [0.9, 0.1]},
    )
    assert Space(found) == Space(
        epochs=2,
        width=[16, 32],
        depth={"low": 1, "high": 3},
        dropout={"low": 0.0, "high": 0.5},
        learning_rate={"low": 1e-4, "high": 0.1, "log": True},
        optimizer=["adam", "sgd"],
    )


# The rest of a sweep.

# Nothing is left open.
NAMED = {"model": "mlp", "optimizer": "adam", "epochs": 9, "learning_rate": 0.01, "batch_size": 64, "depth": 1}
CHOSEN = {name: {"value": value} for name, value in NAMED.items()}


def test_nested_parameters_renames_and_what_is_unknown(tmp_path: Path) -> None:
    nested = {"optimizer": {"values": ["Adam", "Lion", "Lookahead"]}, "opt": {"parameters": {"lr": {"value": 0.01}}}}
    found = imported(
        tmp_path,
        "fc=width",
        "optimizer.Lion=adamw",
        "score=val_loss",
        metric={"name": "score", "goal": "minimize", "target": 0.1},
        parameters={**nested, "fc": {"values": [8, 16]}, "tokens": {"value": 3}},
    )
    assert found.table["parameters"] == {"optimizer": ["adam", "adamw"], "learning_rate": 0.01, "width": [8, 16]}
    assert (found.table["objective"], found.table["target"]) == ("val_loss", 0.1)
    assert found.mappings == [
        "optimizer: Adam -> adam, Lion -> adamw",
        "opt.lr -> learning_rate",
        "fc -> width",
        "metric score -> val_loss",
    ]
    assert found.notes == [
        "optimizer: without 'Lookahead': no equivalent among the values of optimizer; name one with --rename "
        "optimizer.VALUE=OURS",
        "tokens: left out: no equivalent; name one with --rename THEIRS=OURS",
        "the file leaves these open, and ours are used: model = mlp, epochs = 5, batch_size = 128, depth = 2; --set "
        "changes them",
    ]
    text = found.toml("sweep.yaml")
    assert all(f"# note: {note}" in text for note in found.notes)
    assert tomllib.loads(text)["parameters"]["width"] == [8, 16]


@pytest.mark.parametrize(
    ("early", "pruner", "note"),
    [
        (None, "none", None),
        ({"type": "hyperband", "min_iter": 2}, {"name": "asha", "min_resource": 2, "reduction_factor": 3}, None),
        (
            {"type": "hyperband", "max_iter": 27, "s": 2, "eta": 3},
            {"name": "asha", "min_resource": 3, "reduction_factor": 3},
            None,
        ),
        (
            {"type": "hyperband", "max_iter": 10, "s": 2},
            {"name": "asha", "min_resource": 1, "reduction_factor": 3},
            "1.11111",
        ),
        (
            {"type": "hyperband", "min_iter": 3, "eta": 2, "strict": True},
            {"name": "asha", "min_resource": 3, "reduction_factor": 2},
            "strict",
        ),
    ],
)
def test_early_termination(early: Any, pruner: Any, note: str | None, tmp_path: Path) -> None:
    keys = {} if early is None else {"early_terminate": early}
    found = imported(tmp_path, parameters={"width": {"values": [8, 16]}, **CHOSEN}, **keys)
    assert found.table["pruner"] == pruner
    assert [note in text for text in found.notes] == ([True] if note else [])


def test_methods_and_budgets(tmp_path: Path) -> None:
    width: dict[str, Any] = {"width": {"values": [8, 16]}, "epochs": {"values": [1, 2]}}
    grid = imported(tmp_path, method="grid", parameters=width)
    assert "trials" not in grid.table
    assert "a grid has as many trials as points" in grid.notes[0]
    width |= CHOSEN
    bayes = imported(tmp_path, method="bayes", run_cap=None, parameters=width)
    assert (bayes.table["sampler"], bayes.table["trials"]) == ("tpe", 60)
    assert len(bayes.notes) == 2
    found = imported(tmp_path, metric={"name": "val/acc", "goal": "minimize"}, parameters=width)
    assert found.table["objective"] == {"metric": "val_accuracy", "direction": "minimize"}


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"method": "hyperopt"}, "method = 'hyperopt': unknown method 'hyperopt'; valid: bayes, custom, grid, random"),
        (
            {"metric": {"name": "reward", "goal": "maximize"}},
            "only 0 of 1 .* --loop LOOP.py; 1 thing is refused: metric 'reward': is no metric of ours; name one with",
        ),
        (
            {"metric": {"name": "wer", "goal": "minimize"}},
            "1 thing is refused: metric 'wer': is no metric of ours; name one with --rename wer=OURS, or report it in",
        ),
        ({"metric": {"name": "acc", "target": 95}}, "1 thing is refused: target = 95: val_accuracy is at most 1 here"),
        ({"metric": {"name": "val_loss", "goal": "best"}}, "metric.goal = 'best': must be maximize or minimize"),
        ({"parameters": {"width": [8]}}, r"width: \[8\]: must be a table"),
        (
            {"parameters": {"width": {"min": 1}}},
            "width: .* gives neither value, nor values, nor min and max",
        ),
        ({"parameters": {"width": {"distribution": "gamma"}}}, "width: unknown distribution 'gamma'"),
        ({"parameters": {"dropout": {"min": 0.0, "max": "x"}}}, "dropout: max = 'x': must be a number"),
        (
            {"parameters": {"dropout": {"min": 0.0, "max": 2.5}, "lr": {"values": [0.1, 0.2]}}},
            "1 thing is refused: dropout: 0 to 2.5 is out of bounds, must be 0 <= x < 1",
        ),
        (
            {"parameters": {"lr": {"values": [0.1, 1]}, "base_lr": {"value": 1}}},
            "1 thing is refused: base_lr -> learning_rate: lr is learning_rate already; --rename one, or --leave-out",
        ),
        (
            {"parameters": {"width": {"values": [8, 9]}, "learning_rate": {"min": 0.0, "max": 1e300, "q": 1e-300}}},
            r"1 thing is refused: .*0 to 1e\+300 is too wide to draw from, or has too many steps",
        ),
        ({"parameters": {"width": {"value": 8}}}, "nothing would vary, so that all trials would be the same; write a"),
        (
            {"parameters": {"width": {"values": [8, 9]}, "tokens": {"value": 3}, "heads": {"values": [1, 2]}}},
            "only 1 of 3 parameters have a place here; write a training loop of your own, which has all of",
        ),
        ({"parameters": None}, "is no sweep: it needs a table `parameters`"),
        ({"early_terminate": {"type": "envelope"}}, "early_terminate = .* must be a table with type: hyperband"),
        ({"early_terminate": {"type": "hyperband"}}, "early_terminate: needs min_iter, or max_iter with s"),
        (
            {"early_terminate": {"type": "hyperband", "min_iter": 0}},
            "early_terminate.min_iter = 0: must be a whole number",
        ),
        (
            {"early_terminate": {"type": "hyperband", "eta": 999_999, "s": 99_999_999, "max_iter": 27}},
            "early_terminate.s = 99999999: must be a whole number, 1 to 64",
        ),
        (
            {"early_terminate": {"type": "hyperband", "eta": 10**12, "min_iter": 1}},
            "early_terminate.eta = 1000000000000",
        ),
        ({"early_terminate": {"type": "hyperband", "min_iter": 10**15}}, "early_terminate.min_iter = 1000000000000000"),
        ({"method": ["grid"]}, r"method = \['grid'\]: unknown method"),
        ({"parameters": {"width": {"distribution": ["normal"]}}}, "width: unknown distribution"),
        (
            {"parameters": {"lr": {"distribution": "log_uniform", "min": 0, "max": 1000}}},
            "lr: e to the power",
        ),
        (
            {"parameters": {"gradient_clip": {"distribution": "normal", "mu": 1e308, "sigma": 1e308}}},
            r"gradient_clip: normal\(mu=1e\+308, sigma=1e\+308\): reaches beyond all numbers",
        ),
        ({"paramaters": {}}, "unknown key 'paramaters'; did you mean 'parameters'"),
    ],
)
def test_mistakes_are_one_line(keys: dict[str, Any], line: str, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=rf"sweep\.yaml: {line}") as error:
        imported(tmp_path, **{"parameters": {"width": {"values": [8, 16]}}, **keys})
    assert "\n" not in str(error.value)


def test_what_is_written_is_not_written_over(tmp_path: Path) -> None:
    out, other = tmp_path / "study.toml", tmp_path / "loop.py"
    write_files({out: "a = 1"})
    write_files({out: "a = 1"})
    with pytest.raises(RequestError, match="exists with other content"):
        write_files({other: "", out: "a = 2"})
    assert not other.exists()
    with pytest.raises(RequestError, match="cannot be read: No such file"):
        import_study(tmp_path / "missing.yaml")
    (tmp_path / "bad.yaml").write_text("a: [", encoding="utf-8")
    with pytest.raises(RequestError, match=r"bad\.yaml: not valid YAML"):
        import_study(tmp_path / "bad.yaml")
    done = run_hpo("import", "bad.yaml", "--rename", "lr", cwd=tmp_path)
    assert (done.returncode, "--rename lr: write theirs=ours" in done.stderr) == (2, True)


# Loops.


def loop_text(folder: Path, *options: str) -> str:
    done = run_hpo("import", str(folder / "sweep.yaml"), "--loop", str(folder / "own_loop.py"), *options, cwd=folder)
    assert done.returncode == 0, done.stderr
    return (folder / "own_loop.py").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("parameters", "shared"),
    [
        ("epochs: {values: [4, 10]}\n  patience: {values: [2, 3]}", "epochs: int"),
        ("epochs: {values: [4, 10]}\n  patience: {values: [2, 3]}\n  env_id: {value: CartPole-v1}", "epochs_: int"),
    ],
)
def test_a_loop_ends_early_only_where_its_file_means_that(parameters: str, shared: str, tmp_path: Path) -> None:
    """A patience may be a schedule's, and the epochs of PPO are passes over a rollout."""
    (tmp_path / "sweep.yaml").write_text(
        f"method: random\nmetric: {{name: score, goal: maximize}}\nparameters:\n  {parameters}\n"
    )
    text = loop_text(tmp_path, "-o", str(tmp_path / "own.toml"))
    assert f"    {shared} = " in text
    assert "    patience_: int = " in text


@pytest.mark.parametrize("name", ["json.py", "class.py", "a-b.py", "loop.txt"])
def test_a_loop_has_a_name_that_can_be_imported(name: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text("method: random\nparameters:\n  a: {values: [1, 2]}\n")
    done = run_hpo("import", str(tmp_path / "sweep.yaml"), "--loop", str(tmp_path / name), cwd=tmp_path)
    assert done.returncode == 2
    assert "must be the path of a Python file whose name can be imported" in done.stderr
    assert not (tmp_path / name).exists()
