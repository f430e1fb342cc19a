"""The examples, as their first lines say; and what only they can show."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.config import registry
from hpo.execution.evaluate import plan_evaluations
from hpo.integrations.lightning import TrialCallback
from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import read_study
from hpo.study.operations.stack_notes import read_stack_notes
from tests.helpers import ROOT, hpo
from tests.integrations.test_examples import OBJECTIVES
from tests.workers import make_worker

EXAMPLES = ROOT / "examples"
NAMES = sorted(path.stem for path in EXAMPLES.glob("*.toml"))
BY_TWO_WORKERS = ("resnet", "tabular")  # the others in this process, which has imported torch already


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copied = Path(shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__")))
    monkeypatch.syspath_prepend(str(copied))
    for name in NAMES:
        monkeypatch.delitem(sys.modules, name, raising=False)
    return copied


def launched(folder: Path, example: str, **keys: object) -> Study:
    """The study of an example, with nothing trained yet."""
    registry.import_modules([example])
    return Study.create(
        StudyStorage(f"sqlite:///{folder / 'hpo.db'}"), *read_study(str(folder / f"{example}.toml"), **keys)
    )


def check(study: Study, path: Path) -> None:
    trials = study.trials()
    assert [trial.number for trial in trials] == list(range(tomllib.loads(path.read_text(encoding="utf-8"))["trials"]))
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best().values[0] > (0.5 if "resnet" in path.name else 0.8)  # of coloured digits it sees few


def test_there_is_a_study_for_each_example() -> None:
    assert NAMES == ["lightning_loop", "plain_pytorch", "resnet", "stacked_loop", "streaming", "tabular"]
    assert sorted(path.stem for path in EXAMPLES.glob("*.py")) == sorted([*NAMES, *OBJECTIVES])


@pytest.mark.parametrize("name", NAMES)
def test_it_runs(name: str, folder: Path) -> None:
    if name == "streaming":
        subprocess.run([sys.executable, "streaming.py"], cwd=folder, check=True)
    if name in BY_TWO_WORKERS:
        url = f"sqlite:///{folder / 'hpo.db'}"
        done = hpo("launch", f"./{name}.toml", "--import", name, "--storage", url, "--workers", "2", cwd=folder)
        assert done.returncode == 0, done.stderr
    study = launched(folder, name)
    make_worker(study).run()  # which after two workers has nothing left to do
    check(study, folder / f"{name}.toml")
    if name == "stacked_loop":
        assert [note.at_once for note in read_stack_notes(study)] == [4, 4]  # half of the trials of each width
        (evaluation,) = plan_evaluations(study, top=1, seeds=1)
        make_worker(evaluation).run()
        assert [trial.state.name for trial in evaluation.trials()] == ["COMPLETE"] * 2
        assert all(trial.user_attrs["test_accuracy"] > 0.8 for trial in evaluation.trials())


def test_a_lightning_trial_goes_on_from_lightnings_own_checkpoint(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shorter = {"trials": 1, "sets": {"epochs": 3}}
    whole = launched(folder, "lightning_loop", name="whole", **shorter)
    make_worker(whole).run()
    values = [epoch["val_loss"] for epoch in whole.storage.read_epochs(whole.id)[whole.trials()[0]._trial_id]]

    halted = launched(folder, "lightning_loop", name="halted", **shorter)
    epochs: list[int] = []
    reporting = TrialCallback.on_train_epoch_end

    def counted(self, trainer, module) -> None:
        epochs.append(trainer.current_epoch)
        reporting(self, trainer, module)

    monkeypatch.setattr(TrialCallback, "on_train_epoch_end", counted)
    make_worker(halted, should_stop=lambda: len(epochs) == 2, checkpoint_every=3600).run()
    assert epochs == [0, 1]
    assert halted.trials()[0].state == TrialState.WAITING
    make_worker(halted).run()
    assert epochs == [0, 1, 2]  # none is trained again
    rows = halted.storage.read_epochs(halted.id)[halted.trials()[0]._trial_id]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["val_loss"] for row in rows] == values  # in the order that the samples would have had
