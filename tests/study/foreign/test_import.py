"""Imports that say everything that they change, of the words of a sweep."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo.errors import ImportRefusedError, RequestError
from hpo.study.foreign.import_study import import_study
from hpo.study.foreign.imported import ImportedStudy, ImportOptions

CORE = {"model": "mlp", "optimizer": "adam", "epochs": 4, "learning_rate": 0.01, "batch_size": 64, "depth": 1}


def imported(tmp_path: Path, *renames: str, dataset: str = "mnist", keys: Any = None, **values: Any) -> ImportedStudy:
    """Import a sweep of parameters that leaves nothing else open: a table is a specification, and a list has values."""
    specs = {
        name: value if isinstance(value, dict) else {"values" if isinstance(value, list) else "value": value}
        for name, value in ({**CORE, "width": [8, 16]} | values).items()
        if value is not ...
    }
    sweep = {"method": "random", "run_cap": 4, "metric": {"name": "val_accuracy", "goal": "maximize"}, **(keys or {})}
    path = tmp_path / "sweep.yaml"
    path.write_text(yaml.safe_dump({**sweep, "parameters": specs}, sort_keys=False), encoding="utf-8")
    return import_study(path, ImportOptions(renames=dict(each.split("=") for each in renames), dataset=dataset))


def test_a_file_that_leaves_nothing_open_has_no_notes(tmp_path: Path) -> None:
    assert imported(tmp_path).notes == []


@pytest.mark.parametrize(
    ("spec", "note"),
    [
        ({"min": 0.0, "max": 0.9}, None),
        ({"min": 0.5, "max": 1.0}, "dropout: 0.5 to 1 becomes 0.5 to 0.9999995, for it must be 0 <= x < 1"),
        ({"min": -0.1, "max": 0.5}, "dropout: -0.1 to 0.5 becomes 0 to 0.5, for it must be 0 <= x < 1"),
        (
            {"min": 0, "max": 1, "q": 0.25, "distribution": "q_uniform"},
            "dropout: 0 to 1 becomes 0 to 0.75, for it must be 0 <= x < 1",
        ),
    ],
)
def test_every_end_that_differs_is_said(tmp_path: Path, spec: dict[str, Any], note: str | None) -> None:
    assert imported(tmp_path, dropout=spec).notes == ([note] if note else [])


def test_ends_that_are_no_whole_numbers_are_said(tmp_path: Path) -> None:
    found = imported(tmp_path, batch_size={"min": 15.5, "max": 64.2})
    assert found.table["parameters"]["batch_size"] == {"low": 16, "high": 64}
    assert found.notes == ["batch_size: only its whole numbers, 16 to 64"]


def test_the_distribution_that_replaces_another_is_cut_in_a_line_of_its_own(tmp_path: Path) -> None:
    found = imported(tmp_path, learning_rate={"distribution": "beta", "a": 2, "b": 5})
    assert found.table["parameters"]["learning_rate"]["low"] == 1e-6
    assert found.notes[1] == "learning_rate: 0 to 1 becomes 1e-06 to 1, for it must be 0 < x <= 1000"


@pytest.mark.parametrize(
    ("without", "values", "default"),
    [
        ("learning_rate", {}, "learning_rate = 0.001"),
        ("learning_rate", {"optimizer": "adagrad"}, "learning_rate = 0.01"),
        ("learning_rate", {"lr": {"min": -5, "max": -1}}, "learning_rate = 0.001"),
        ("batch_size", {}, "batch_size = 128"),
        ("depth", {}, "depth = 2"),
        ("width", {"dropout": [0.1, 0.2]}, "width = 128"),
        ("depth", {"model": "cnn", "width": ..., "channels": [8, 16], "conv_layers": 1}, "dense_width = 64"),
        ("dropout", {"dropout": "high"}, "dropout = 0.0"),
        ("gradient_clip", {"clipvalue": 0.5}, "gradient_clip = 0.0"),
    ],
)
def test_every_default_that_matters_is_said(tmp_path: Path, without: str, values: Any, default: str) -> None:
    found = imported(tmp_path, **({without: ...} | values))
    assert found.notes[-1] == f"the file leaves these open, and ours are used: {default}; --set changes them"


def test_the_default_objective_is_named(tmp_path: Path) -> None:
    found = imported(tmp_path, keys={"metric": None})
    assert found.notes == ["it has no metric; the study's is val_accuracy, the default, to maximize"]


def test_every_value_with_another_text_is_printed(tmp_path: Path) -> None:
    found = imported(
        tmp_path,
        dropout=[None, 0.5],
        schedule=[None, "cosine"],
        final_learning_rate_ratio=0.1,
        precision=[32, "bf16"],
        optimizer=["adam", "Adam", "AdamW"],
        learning_rate="1e-2",
    )
    assert found.mappings == [
        "optimizer: Adam -> adam, AdamW -> adamw",
        "dropout: None -> 0.0",
        "schedule: None -> constant",
        "precision: 32 -> float32, bf16 -> bfloat16",
    ]
    assert "optimizer: 'Adam': equal to others of its values, which are likelier there, and not here" in found.notes


def test_data_sets_that_are_not_searched_are_said_and_not_kept(tmp_path: Path) -> None:
    one = imported(tmp_path, dataset="sklearn:digits", data_name="cifar10")
    assert one.kept == one.total
    found = imported(tmp_path, dataset="sklearn:digits", data_name=["mnist", "cifar10"])
    assert (found.kept, found.total) == (one.kept - 1, one.total)
    assert found.notes == [
        "data_name: left out: ['mnist', 'cifar10'] are not searched; --dataset names the one data set"
    ]


@pytest.mark.parametrize("rename", ["nosuch=width", "widht=width", "optimizer.LAMB=adamw", "nosuch.adam=adamw"])
def test_a_rename_of_nothing_is_refused(tmp_path: Path, rename: str) -> None:
    with pytest.raises(RequestError, match=f"--rename {rename}: the file has no such parameter, metric, or value"):
        imported(tmp_path, rename)


@pytest.mark.parametrize(
    ("rename", "key"),
    [("fc=width", "fc"), ("opt.adam=adamw", "opt"), ("optimizer.adam=adamw", "opt"), ("net.fc=width", "net.fc")],
)
def test_a_rename_names_a_parameter_its_last_part_or_a_value(tmp_path: Path, rename: str, key: str) -> None:
    words = {"fc": [8, 16], "net.fc": [8, 16], "opt": ["adam", "sgd"]}
    ours = "optimizer" if key == "opt" else "width"
    renames = [rename, "opt=optimizer"] if key == "opt" else [rename]
    assert imported(tmp_path, *renames, **{ours: ..., key: words[key]}).table["parameters"][ours]


@pytest.mark.parametrize(
    ("word", "value", "reason"),
    [
        ("nesterov", True, "--rename optimizer.sgd=nesterov where the file names sgd, else --set optimizer=nesterov"),
        ("betas", [[0.9, 0.98], [0.9, 0.999]], "--set beta1=… --set beta2=…"),
        ("lr_decay", 0.9, "0.9 is no schedule of ours, which is a text"),
        ("augment", True, "True is no augment of ours, which is a text"),
        ("bn", "true", "'true' is no batch_norm of ours, which is true or false; write true without quotes"),
        ("l2", [4, 256], "l2: left out: no equivalent"),
        ("l2", [1e-4, 1e-2], "a penalty l2 * w**2 has twice the gradient of weight_decay"),
    ],
)
def test_the_reason_says_what_was_tried_and_what_to_do(tmp_path: Path, word: str, value: Any, reason: str) -> None:
    assert reason in imported(tmp_path, **{word: value}).notes[0]


def test_a_share_beside_another_may_be_one_of_all_data(tmp_path: Path) -> None:
    assert imported(tmp_path, val_split=0.1).table["parameters"]["validation"] == 0.1
    found = imported(tmp_path, val_split=0.1, train_split=0.8)
    assert "validation" not in found.table["parameters"]
    assert "val_split: left out: beside train_split it may be a share of all data" in "; ".join(found.notes)


def test_values_that_are_left_out_are_named_and_not_the_parameter(tmp_path: Path) -> None:
    found = imported(tmp_path, dropout=[0.0, 0.2, 1.0, "high"])
    assert found.notes == [
        "dropout: without 1.0: out of bounds, must be 0 <= x < 1",
        "dropout: without 'high': no dropout of ours, which is a number",
    ]


def test_a_number_of_another_unit_is_refused_with_the_parameters_that_have_it(tmp_path: Path) -> None:
    with pytest.raises(ImportRefusedError, match="--rename warmup=warmup_epochs or --rename warmup=warmup_steps"):
        imported(tmp_path, warmup=5)
