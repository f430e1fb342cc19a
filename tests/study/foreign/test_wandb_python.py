"""Sweeps of Weights & Biases in Python files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hpo.errors import RequestError
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Computed, Constant, ForeignSearch

SWEEP = """import wandb
config = {"method": "random", "parameters": {"lr": {"values": [0.1, 0.2]}, "n": {"value": 1}}}
"""
RUN = "wandb.sweep(config, project='x')\n"


def read(folder: Path, text: str) -> ForeignSearch:
    path = folder / "search.py"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def domains(search: ForeignSearch) -> dict[str, Any]:
    return {each.name: each.domain for each in search.parameters}


LR, N = Choices((0.1, 0.2)), Constant(1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (SWEEP + RUN, {"lr": LR, "n": N}),
        (SWEEP + "id = wandb.sweep(sweep=config)", {"lr": LR, "n": N}),
        (SWEEP.replace("import wandb\n", ""), {"lr": LR, "n": N}),
        ("from wandb import sweep\n" + SWEEP + "sweep(config)", {"lr": LR, "n": N}),
        (SWEEP + "config['parameters']['n'] = {'value': 2}\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "config['parameters']['n']['value'] = 2\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "config['parameters'].update(m={'value': 2})\n" + RUN, {"lr": LR, "n": N, "m": Constant(2)}),
        (SWEEP + "config['parameters'].update({'n': {'value': 2}})\n" + RUN, {"lr": LR, "n": Constant(2)}),
        (SWEEP + "del config['parameters']['n']\n" + RUN, {"lr": LR}),
        (SWEEP + "config['parameters'].pop('n')\n" + RUN, {"lr": LR}),
        (SWEEP + "more = {'value': 3}\nconfig['parameters']['n'] = more\nmore['value'] = 4\n" + RUN,
         {"lr": LR, "n": Constant(4)}),
        ("p = dict(n=dict(value=1))\nimport wandb\nwandb.sweep(dict(method='grid', parameters={**p, 'lr': {'values': "
         "[0.1, 0.2]}}))", {"n": N, "lr": LR}),
        (SWEEP + "config['parameters']['n'] = {'value': args.n}\n" + RUN, {"lr": LR, "n": Computed("args.n")}),
        # A name that is an argument elsewhere.
        (SWEEP + "config['parameters']['n'] = {'value': 2}\ndef train(config): pass\n" + RUN,
         {"lr": LR, "n": Constant(2)}),
        ("import wandb\ndef make():\n    return {'method': 'grid', 'parameters': {'n': {'value': 1}}}\n"
         "wandb.sweep(make())", {"n": N}),
    ],
)  # fmt: skip
def test_a_table_is_read_with_what_is_added_to_it(tmp_path: Path, text: str, expected: dict[str, object]) -> None:
    assert domains(read(tmp_path, text)) == expected


def test_other_keys_are_read_as_those_of_a_yaml_file(tmp_path: Path) -> None:
    lines = "config['metric'] = {'name': 'loss', 'goal': 'minimize'}\nconfig['run_cap'] = 7\nconfig['name'] = 'mine'\n"
    search = read(tmp_path, SWEEP + lines + RUN)
    assert (search.metric, search.direction, search.trials, search.name) == ("loss", "minimize", 7, "mine")


def test_the_count_of_agents_is_the_number_of_trials_where_the_sweep_has_none(tmp_path: Path) -> None:
    agent = "wandb.agent(id, train, count=5)\n"
    search = read(tmp_path, SWEEP + RUN + agent)
    assert search.trials == 5
    assert "wandb.agent has count = 5 in each process; here it is that of all trials" in search.notes
    search = read(tmp_path, SWEEP + RUN + "wandb.agent(id, train, None, None, 5)\nwandb.agent(id, train, count=7)\n")
    assert search.trials == 12
    assert "count = 5 (line 4) and count = 7 (line 5): here 12 trials in all" in search.notes
    assert read(tmp_path, SWEEP + RUN + agent + "wandb.agent(id, count=args.n)").notes == (
        "count = 5 (line 4) and count = args.n (line 5): known only when the file runs",
    )


@pytest.mark.parametrize(("cap", "trials"), [(3, 3), (7, 5)])
def test_the_smaller_of_a_cap_and_of_agents_counts_is_the_number_of_trials(
    tmp_path: Path, cap: int, trials: int
) -> None:
    search = read(tmp_path, SWEEP + f"config['run_cap'] = {cap}\n" + RUN + "wandb.agent(id, train, count=5)\n")
    assert search.trials == trials
    expected = f"run_cap = {cap} and count = 5 (line 5): the smaller, {trials}, is the number of trials here"
    assert expected in search.notes


def test_an_addition_under_a_condition_is_said(tmp_path: Path) -> None:
    search = read(tmp_path, SWEEP + "other = {}\nif X:\n    config['method'] = 'grid'\n    other['a'] = 1\n" + RUN)
    assert search.method == "grid"
    assert [note for note in search.notes if "condition" in note] == [
        "`config['method'] = 'grid'` in line 5 is read as if its condition always held"
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (SWEEP + "config['parameters']['n'] = {'values': load()}\n" + RUN,
         "parameters.n: load() (line 3) is known only when the file runs; write its values there"),
        (SWEEP + "config['method'] = args.method\n" + RUN, "method: args.method (line 3) is known only when the file"),
        (SWEEP + "config['parameters'][name] = {'value': 1}\n" + RUN, "the key name (line 3) is known only when"),
        ("import wandb\nwandb.sweep(yaml.safe_load(open('sweep.yaml')))",
         "the sweep, yaml.safe_load(open('sweep.yaml')) (line 2), is known only when the file runs"),
        ("import wandb\nwandb.sweep({'method': 'grid'})", "the sweep, {'method': 'grid'} (line 2), is known only when"),
        (SWEEP + "b = {'method': 'grid', 'parameters': {}}\nwandb.sweep(b)\n" + RUN, "has 2 sweeps (lines 2, 3)"),
        ("# wandb.sweep(config)\n", "has no sweep of Weights & Biases: no table with `method` and `parameters`"),
        (SWEEP.replace("random", "best") + RUN, "method = 'best': unknown method 'best'"),
    ],
)  # fmt: skip
def test_a_sweep_that_cannot_be_read_is_refused_in_a_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(RequestError) as error:
        read(tmp_path, text)
    assert str(error.value).startswith(f"{tmp_path / 'search.py'}: {message}")


@pytest.mark.parametrize(
    "line",
    [
        "config['parameters'] = {'a': config, 'b': config}",
        "config['parameters'].update(config)\nconfig.update(config['parameters'])",
        "config['parameters'] = p\np = {**q, **q}\nq = {**p, **p}",
    ],
)
def test_a_table_that_holds_itself_ends(tmp_path: Path, line: str) -> None:
    with pytest.raises(RequestError):
        read(tmp_path, f"{SWEEP}{line}\n{RUN}")
