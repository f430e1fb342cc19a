"""One worker: what becomes of a trial that ends well, diverges, fails, or is interrupted."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import DataError, OutOfMemoryError, RegistryError, RequestError, RunError
from hpo.execution import cohort_trainer
from hpo.execution.deaths import MAX_DEATHS
from hpo.execution.stack_notes import StackNotes
from hpo.execution.worker import cores_per_worker
from hpo.storage.tables import LEASES
from hpo.study import Study, StudyStorage
from hpo.study.files.study_files import StudyFiles
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.stack_notes import describe_stacks, read_stack_notes
from hpo.study.operations.worker_status import read_worker_states, stop_workers
from tests.data import small_npz
from tests.study.helpers import holder, new_storage, sqlite_url
from tests.workers import make_worker

SMALL = {"widths": "8", "epochs": 3, "batch_size": 32, "learning_rate": {"low": 0.001, "high": 0.1, "log": True}}


@pytest.fixture(autouse=True)
def _entries(monkeypatch: pytest.MonkeyPatch) -> None:
    for kind in (registry.models, registry.datasets, registry.metrics):
        monkeypatch.setattr(kind, "_entries", dict(kind._entries))


def make(folder: Path, **keys: Any) -> Study:
    data = small_npz(folder / "small.npz")
    table = {"dataset": str(data), "trials": 4, "sampler": "random", "parameters": SMALL, **keys}
    name, definition, budget = parse_definition(table, "small", folder)
    return Study.create(new_storage(folder), name, definition, budget)


def test_every_trial_is_trained_and_told(tmp_path: Path) -> None:
    study = make(tmp_path)
    worker = make_worker(study)
    worker.run()
    assert worker.finished == {"COMPLETE": 4}
    epochs = study.storage.read_epochs(study.id)
    for trial in study.trials():
        rows = epochs[trial._trial_id]
        assert [row["epoch"] for row in rows] == [1, 2, 3]
        values = [row["val_accuracy"] for row in rows]
        assert trial.value == max(values)
        assert trial.intermediate_values == dict(enumerate(values, start=1))
        assert trial.user_attrs["best_epoch"] == values.index(max(values)) + 1
        assert trial.user_attrs["last_epoch"].startswith(f"epoch 3, train_loss {rows[-1]['train_loss']:.4g}, ")
        assert trial.user_attrs["parameter_count"] == 36 * 8 + 8 + 8 * 3 + 3
        assert trial.user_attrs["worker"] == worker.name


def test_the_order_of_trials_and_who_runs_them_changes_nothing(tmp_path: Path) -> None:
    values = []
    for name in ("a", "b"):
        folder = tmp_path / name
        folder.mkdir()
        study = make(folder)
        make_worker(study).run()
        values.append([(t.params, t.value) for t in study.trials()])
    assert values[0] == values[1]


def test_divergence_is_pruned_with_its_kind(tmp_path: Path) -> None:
    small_npz(tmp_path / "small.npz")
    monster = {
        "widths": "8",
        "epochs": 3,
        "optimizer": "sgd",
        "learning_rate": [1000.0],
        "activation": "relu",
        "depth": 16,
    }
    study = make_other(tmp_path, "monster", monster)
    make_worker(study).run()
    trial = study.trials()[0]
    assert trial.state == TrialState.PRUNED
    assert trial.user_attrs["failure"] == "diverged"
    assert study.remaining() == 0


def make_other(folder: Path, name: str, parameters: dict[str, Any], **keys: Any) -> Study:
    table = {"dataset": str(folder / "small.npz"), "trials": 1, "sampler": "random", "parameters": parameters, **keys}
    found, definition, budget = parse_definition(table, name, folder)
    return Study.create(new_storage(folder), found, definition, budget)


def test_a_bug_fails_its_trial_with_its_message_and_too_many_stop_the_worker(tmp_path: Path) -> None:
    @hpo.model("buggy")
    def buggy(config: Any, shape: Any, classes: int) -> Any:
        raise KeyError("no such layer")

    small_npz(tmp_path / "small.npz")
    study = make_other(tmp_path, "bugs", {"model": "buggy", "learning_rate": [0.1]}, trials=9)
    with pytest.raises(RunError, match=r"5 trials in a row failed.*KeyError: 'no such layer'"):
        make_worker(study).run()
    failed = [t for t in study.trials() if t.state == TrialState.FAIL]
    assert [t.number for t in failed] == [0, 1, 2, 3, 4]
    assert failed[0].user_attrs["failure"] == "error"
    assert "no such layer" in failed[0].user_attrs["message"]


def test_a_worker_that_puts_a_check_off_leaves_what_another_has_found(tmp_path: Path) -> None:
    @hpo.model("noted", uses=["width"])
    def noted(config: Any, shape: Any, classes: int) -> Any:
        raise NotImplementedError

    small_npz(tmp_path / "small.npz")
    study = make_other(tmp_path, "noted", {"model": "noted", "width": [4, 8]}, trials=4)
    late, early = StackNotes(study), StackNotes(study)
    configs = [TrialConfig(model="noted", width=width) for width in (4, 8)]
    late.note_delay(configs[0], "the time is up")  # so that it has read what others have noted
    member: Any = SimpleNamespace(config=configs[1], stack=2, alone=None, history=[{}], resumed_from=0)
    early.on_epoch(member, {})
    late.note_delay(configs[1], "the time is up")
    assert {note.at_once: note.why for note in read_stack_notes(study)} == {1: "the time is up", 2: None}
    early.note_check(configs[0], None)  # which says more than that the check was put off
    late.note_delay(configs[0], "the time is up")
    assert all(note.why is None for note in read_stack_notes(study))


def test_neither_imports_nor_other_processes_put_checks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    @hpo.model("timed", uses=["width"])
    def timed(config: Any, shape: Any, classes: int) -> Any:
        raise NotImplementedError

    def compute() -> None:
        end = time.thread_time() + 0.2
        while time.thread_time() < end:
            pass

    checks = {4: lambda: time.sleep(0.2), 8: compute, 16: lambda: None}
    monkeypatch.setattr(cohort_trainer, "FREE_CHECKS", 0.1)
    monkeypatch.setattr(cohort_trainer, "warm_up", compute)  # as imports do
    monkeypatch.setattr(cohort_trainer, "why_alone", lambda config, _: checks[config.width]())
    small_npz(tmp_path / "small.npz")
    study = make_other(tmp_path, "timed", {"model": "timed", "width": [4, 8, 16]}, trials=4)
    trials = make_worker(study).trials
    assert isinstance(trials, cohort_trainer.CohortTrainer)
    configs = [TrialConfig(model="timed", width=width) for width in checks]
    assert [trials._may_stack(config) for config in configs] == [True, True, False]


def test_what_keeps_a_model_out_of_stacks_is_noted_without_a_check(tmp_path: Path) -> None:
    def build(config: Any, shape: Any, classes: int) -> Any:
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))

    hpo.model("of_floats")(build)
    hpo.training_loop("unstacked", uses=["learning_rate"])(lambda trial: {"val_accuracy": 0.5})
    small_npz(tmp_path / "small.npz")
    found = {}
    for name, more in (("of_floats", {"optimizer": ["lbfgs", "sgd"]}), ("unstacked", {})):
        parameters = {"model": name, "learning_rate": [0.1, 0.01], **more}
        parameters |= {} if name == "unstacked" else {"epochs": 1}
        study = make_other(tmp_path, name, parameters, trials=4 if more else 2, sampler="grid")
        make_worker(study).run()
        found |= describe_stacks(read_stack_notes(study))
    assert "one at a time (optimizer lbfgs): lbfgs looks at a batch several times in a step" in found["of_floats"]
    assert found["unstacked"] == "one at a time: its loop does not ask for stacks (stack=True)"


def test_a_model_that_fails_takes_no_other_out_of_the_cohort(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    from torch import Tensor, nn

    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise RuntimeError("broken")
            return super().forward(x)

    @hpo.model("broken")
    def broken(config: Any, shape: Any, classes: int) -> Any:
        return nn.Sequential(nn.Flatten(), Broken(36, classes))

    caplog.set_level("INFO")
    small_npz(tmp_path / "small.npz")
    parameters = {"model": ["broken", "mlp"], "width": 8, "learning_rate": [0.1, 0.01], "epochs": 2}
    study = make_other(tmp_path, "two", parameters, sampler="tpe", trials=4)
    make_worker(study, cohort=4).run()
    states = {(str(trial.params["model"]), trial.state.name) for trial in study.trials()}
    assert states == {("broken", "FAIL"), ("mlp", "COMPLETE")}
    assert "a cohort of 4 trials; each of its models is trained by itself: broken" in caplog.text
    assert "a cohort of 2 trials; each is trained alone: broken" in caplog.text
    assert caplog.text.count("an error ended") == 2
    notes = {note.model: note.why for note in read_stack_notes(study)}
    assert notes == {"broken": "it cannot be computed in a stack: RuntimeError: broken"}


def test_data_that_is_not_what_it_was_costs_no_trial(tmp_path: Path) -> None:
    study = make(tmp_path)
    small_npz(tmp_path / "small.npz", samples=100)
    with pytest.raises(DataError, match="is not the file that the study was made with"):
        make_worker(study).run()
    (tmp_path / "small.npz").unlink()
    with pytest.raises(DataError, match="not found"):
        make_worker(study).run()
    assert {t.state for t in study.trials()} == {TrialState.WAITING}


def test_an_own_data_set_that_is_not_registered_names_its_module(tmp_path: Path) -> None:
    reference = make(tmp_path).definition.dataset.model_copy(update={"name": "plants", "module": "my_things"})
    definition = make(tmp_path).definition.model_copy(update={"dataset": reference})
    with pytest.raises(RegistryError, match="add --import my_things"):
        definition.check_registered()


def test_out_of_memory_is_tried_once_more_then_pruned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, trials=1)
    tries = []

    def no_memory(*_: Any, **__: Any) -> Any:
        tries.append(1)
        raise OutOfMemoryError("the device has 1 MiB")

    monkeypatch.setattr("hpo.execution.cohort_trainer.train", no_memory)
    make_worker(study).run()
    trial = study.trials()[0]
    assert len(tries) == 2
    assert (trial.state, trial.user_attrs["failure"]) == (TrialState.PRUNED, "out_of_memory")


class StopIn:
    """Asks to stop at a step of a trial's epoch, and from then on."""

    def __init__(self, study: Study, number: int, epochs: int) -> None:
        self.study, self.number, self.epochs, self.asked = study, number, epochs, False

    def __call__(self) -> bool:
        if not self.asked:
            trial = next((t for t in self.study.trials() if t.number == self.number), None)
            running = trial is not None and trial.state == TrialState.RUNNING
            self.asked = running and len(trial.intermediate_values) >= self.epochs  # type: ignore[union-attr]
        return self.asked


def checkpoints(study: Study) -> list[str]:
    return [path.name for path in StudyFiles(study).checkpoint(0).parent.glob("*.pt*")]


def test_an_interrupted_trial_goes_on_under_its_number_to_the_same_result(tmp_path: Path) -> None:
    outcomes = []
    for name, stop in (("whole", False), ("interrupted", True)):
        study = make_other_with_data(tmp_path, {**SMALL, "epochs": 5, "dropout": 0.2}, name, sampler="tpe", trials=2)
        if stop:
            make_worker(study, StopIn(study, number=1, epochs=2), cohort=1).run()
            assert [t.state for t in study.trials()] == [TrialState.COMPLETE, TrialState.WAITING]
            assert len(study.trials()[1].intermediate_values) == 2
            assert checkpoints(study) == ["1.pt"]
        make_worker(study).run()
        assert study.remaining() == 0
        rows = study.storage.read_epochs(study.id)
        outcomes.append([(t.params, t.value, t.intermediate_values, len(rows[t._trial_id])) for t in study.trials()])
        assert checkpoints(study) == []
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("damage", [Path.unlink, lambda path: path.write_bytes(b"not a checkpoint")])
def test_without_its_checkpoint_a_trial_begins_anew_and_says_so(
    tmp_path: Path, damage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    study = make_other_with_data(tmp_path, {**SMALL, "epochs": 5}, trials=1)
    make_worker(study, StopIn(study, number=0, epochs=3), cohort=1).run()
    damage(StudyFiles(study).checkpoint(0))
    make_worker(study).run()
    assert "trial 0 begins anew" in caplog.text
    [trial] = study.trials()
    assert trial.state == TrialState.COMPLETE
    assert list(trial.intermediate_values) == [1, 2, 3, 4, 5]
    assert [row["epoch"] for row in study.storage.read_epochs(study.id)[trial._trial_id]] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("cohort", [1, 3])
def test_the_pruner_prunes(tmp_path: Path, cohort: int) -> None:
    pruner = {"name": "percentile", "percentile": 1.0, "n_startup_trials": 1}
    # Trials of equal parameters would be one run, and end together.
    space = {**SMALL, "epochs": 6, "learning_rate": [0.05, 1e-7], "epsilon": {"low": 1e-9, "high": 1e-8}}
    study = make_other_with_data(tmp_path, space, pruner=pruner, trials=12)
    make_worker(study, cohort=cohort).run()
    pruned = [t for t in study.trials() if t.state == TrialState.PRUNED]
    assert pruned
    assert all(t.intermediate_values and max(t.intermediate_values) < 6 for t in pruned)
    assert all(t.value == max(t.intermediate_values.values()) for t in pruned)


def make_other_with_data(folder: Path, parameters: dict[str, Any], name: str = "other", **keys: Any) -> Study:
    small_npz(folder / "small.npz")
    return make_other(folder, name, parameters, **keys)


def test_several_objectives_give_several_values(tmp_path: Path) -> None:
    objectives = ["val_accuracy", "parameter_count", "train_seconds"]
    study = make_other_with_data(tmp_path, {**SMALL, "widths": ["4", "8"]}, objective=objectives, trials=3)
    make_worker(study).run()
    plain = optuna.load_study(study_name="other", storage=sqlite_url(tmp_path))
    assert [d.name for d in plain.directions] == ["MAXIMIZE", "MINIMIZE", "MINIMIZE"]
    for trial in plain.trials:
        assert trial.values[1] == trial.user_attrs["parameter_count"]
        assert 0 < trial.values[2] < 60
    assert plain.best_trials


def test_a_registered_metric_is_an_objective(tmp_path: Path) -> None:
    @hpo.metric("share_of_zero", direction="minimize")
    def share_of_zero(outputs: Any, targets: Any) -> float:
        return float((outputs.argmax(1) == 0).float().mean())

    study = make_other_with_data(tmp_path, SMALL, objective="share_of_zero", trials=2, pruner="median")
    make_worker(study).run()
    rows = study.storage.read_epochs(study.id)
    for trial in study.trials():
        assert trial.value == min(row["share_of_zero"] for row in rows[trial._trial_id])


class Meanwhile:
    """Does something once, from another connection, while the worker trains a trial; never asks to stop."""

    def __init__(self, study: Study, epochs: int, what: Callable[[Study], object]) -> None:
        self.study = Study(StudyStorage(study.storage.url.render_as_string(hide_password=False)), study.name)
        self.epochs, self.what, self.done = epochs, what, False

    def __call__(self) -> bool:
        running = [t for t in self.study.trials() if t.state == TrialState.RUNNING and not self.done]
        if running and len(self.study.storage.read_epochs(self.study.id).get(running[0]._trial_id, [])) >= self.epochs:
            self.done = True
            self.what(self.study)
        return False


def test_hpo_stop_reaches_a_worker_anywhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    study = make_other_with_data(tmp_path, {**SMALL, "epochs": 100_000}, trials=2)

    def ask(seen: Study) -> None:
        [worker] = read_worker_states(seen, seen.trials())
        assert (worker.trials, worker.gone, worker.device, worker.epochs) == ((0,), False, "cpu", 100_000)
        assert worker.epoch > 0
        asked, left = stop_workers(seen, wait=0)
        assert (asked, [row.name for row in left]) == (1, [worker.name])

    make_worker(study, Meanwhile(study, 1, ask), lease=1, cohort=1).run()
    assert "stopped, as hpo stop asked" in caplog.text
    assert [t.state for t in study.trials()] == [TrialState.WAITING] * 2
    assert study.storage.read_workers(study.id) == []
    assert study.storage.count_held_by_others(study.id) == 0
    assert checkpoints(study) == ["0.pt"]


def test_a_trial_that_another_worker_has_taken_over_is_dropped_quietly(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    study = make_other_with_data(tmp_path, {**SMALL, "epochs": 200}, trials=3)
    rival = holder("rival", seconds=3600)

    def take_over(seen: Study) -> None:
        with seen.storage.engine.begin() as connection:
            connection.execute(sa.update(LEASES).values(expires=0.0))
        claim = seen.claim(rival)
        assert claim is not None
        assert (claim.number, claim.attempt) == (0, 2)
        seen.storage.discard_reports(claim.id, 0)

    def rival_is_done(seen: Study) -> None:
        seen.storage.set_trial_state_values(seen.trials()[0]._trial_id, TrialState.COMPLETE, [0.125])

    meanwhile = Meanwhile(study, 1, take_over)
    worker = make_worker(study, meanwhile, lease=60, cohort=1)
    waiting = iter([lambda: rival_is_done(meanwhile.study)])
    worker._wait = lambda _: next(waiting)()  # type: ignore[method-assign]  # it waits for the rival to end or die
    worker.run()
    assert "trial 0 is not this worker's any more" in caplog.text
    assert worker.finished == {"COMPLETE": 2}
    first, *others = study.trials()
    assert (first.value, first.intermediate_values) == (0.125, {})
    assert first._trial_id not in study.storage.read_epochs(study.id)
    assert [t.state for t in others] == [TrialState.COMPLETE] * 2


def test_failed_trials_are_tried_again_under_their_numbers(tmp_path: Path) -> None:
    works = False

    @hpo.model("moody")
    def moody(config: Any, shape: Any, classes: int) -> Any:
        from torch import nn

        if not works:
            raise KeyError("not today")
        return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))

    parameters = {"model": "moody", "learning_rate": {"low": 0.001, "high": 0.1}, "epochs": 2}
    study = make_other_with_data(tmp_path, parameters, trials=3)
    make_worker(study).run()
    before = [t.params for t in study.trials()]
    watching = Study(StudyStorage(sqlite_url(tmp_path)), "other")
    assert {t.state for t in watching.trials()} == {TrialState.FAIL}
    works = True
    assert study.retry([1]) == [1]
    with pytest.raises(RequestError, match="trial 1 is WAITING; only FAIL trials can be retried"):
        study.retry([1])
    assert study.retry() == [0, 2]
    assert {t.state for t in watching.trials()} == {TrialState.WAITING}
    make_worker(study).run()
    for trials in (study.trials(), watching.trials()):
        assert [t.params for t in trials] == before
        assert {t.state for t in trials} == {TrialState.COMPLETE}
        assert {t.user_attrs["attempt"] for t in trials} == {2}
        assert not any("failure" in t.user_attrs for t in trials)


class Killed(BaseException):
    """What a worker's process does not survive."""


def test_a_trial_that_kills_every_worker_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study = make(tmp_path, trials=1)

    def kill(*_: Any, **__: Any) -> Any:
        raise Killed

    monkeypatch.setattr("hpo.execution.cohort_trainer.train", kill)
    for _ in range(MAX_DEATHS):
        with pytest.raises(Killed):
            make_worker(study).run()
        assert study.trials()[0].state == TrialState.RUNNING
        with study.storage.engine.begin() as connection:
            connection.execute(sa.update(LEASES).values(expires=0.0))
        study = Study(StudyStorage(sqlite_url(tmp_path)), study.name)  # another process
    make_worker(study).run()
    [trial] = study.trials()
    assert trial.state == TrialState.FAIL
    assert "5 workers died of it" in trial.user_attrs["message"]
    assert study.retry() == [0]


def test_launch_from_python_runs_in_this_process(tmp_path: Path) -> None:
    @hpo.model("in_a_notebook")
    def in_a_notebook(config: hpo.TrialConfig, shape: Any, classes: int) -> Any:
        from torch import nn

        return nn.Sequential(nn.Flatten(), nn.Linear(36, classes))

    found = hpo.launch(
        name="notebook",
        dataset=str(small_npz(tmp_path / "small.npz")),
        space=hpo.Space(model="in_a_notebook", learning_rate=hpo.Float(0.001, 0.1, log=True), epochs=2),
        trials=3,
        storage=sqlite_url(tmp_path),
    )
    assert isinstance(found, optuna.Study)
    assert [t.state for t in found.trials] == [TrialState.COMPLETE] * 3
    assert found.best_value > 0.5


def test_a_worker_takes_its_share_of_the_cores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.execution.worker.cores", lambda: 8)
    study = make(tmp_path)
    assert cores_per_worker(study) == 8
    for other in (holder("a", host=socket.gethostname()), holder("b", host="elsewhere")):
        study.storage.register_worker(study.id, other)
    assert cores_per_worker(study) == 4
    study.storage.register_worker(study.id, holder("c", host=socket.gethostname(), seconds=-1))  # it is gone
    assert cores_per_worker(study) == 4
