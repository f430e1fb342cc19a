"""Checkpoints: the same bits after any interruption, and no harm from a file that is damaged or another's."""

import logging
import pickle
import resource
import subprocess
import sys
import textwrap
import time
import zipfile
from dataclasses import replace
from itertools import cycle

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from hpo.config import registry
from hpo.config.choices import OPTIMIZERS, SCHEDULES
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import CheckpointError, OutOfMemoryError
from hpo.training.callbacks import Callback, CsvLog
from hpo.training.checkpoint import Checkpoint, CheckpointSpec, fingerprint, load, save
from hpo.training.data import Data, prepare_data
from hpo.training.member import TrainResult
from hpo.utils.files import remove_file
from tests.training.resumable import CPU, EVERYTHING, X, Y, bits, config, data, one, stop_after

pytestmark = pytest.mark.usefixtures("one_thread")
QUESTIONS = 18  # of `should_stop` in a trial of 3 epochs of 5 steps: before each, and at each epoch's end


@pytest.fixture
def own_models():
    before = dict(registry.models._entries)
    yield
    registry.models._entries.clear()
    registry.models._entries.update(before)


def resumed(path, given: TrialConfig, on: Data, pauses, **keywords) -> TrainResult:
    """Interrupted after each of these numbers of questions, and at last not at all."""
    remove_file(path)
    for answers in pauses:
        spec = CheckpointSpec(path, resume=path.exists())
        outcome = one(given, on, spec, should_stop=stop_after(answers), **keywords)
        if outcome.status != "interrupted":
            break
    return one(given, on, CheckpointSpec(path, resume=path.exists()), **keywords)


LAST = {"monitor": "epoch", "direction": "maximize"}  # the last epoch is the best, so that its weights are compared


@pytest.mark.parametrize(
    ("optimizer", "schedule"),
    [*zip(OPTIMIZERS, cycle(SCHEDULES), strict=False), *zip(cycle(OPTIMIZERS), reversed(SCHEDULES), strict=False)],
)
def test_every_optimizer_and_schedule(optimizer, schedule, tmp_path):
    seed = sum(map(ord, optimizer + schedule))
    extra = {"warmup": 0.2} if SCHEDULES[schedule].takes_warmup else {}
    chosen = config(optimizer=optimizer, schedule=schedule, seed=seed, **extra, **EVERYTHING)
    on = data(chosen)
    pauses = np.random.default_rng(seed).integers(1, QUESTIONS, 3).tolist()
    assert bits(resumed(tmp_path / "0.pt", chosen, on, sorted(pauses), **LAST)) == bits(one(chosen, on, **LAST))


@pytest.mark.parametrize("optimizer", ["adam", "lbfgs"])
def test_every_moment(optimizer, tmp_path):
    chosen = config(optimizer=optimizer, **EVERYTHING)
    on = data(chosen)
    expected = bits(one(chosen, on))
    for answers in range(QUESTIONS):
        assert bits(resumed(tmp_path / "0.pt", chosen, on, [answers])) == expected, answers


def test_stopped_at_every_step(tmp_path):
    """Each attempt passes over the epoch's steps that are done, trains one more, and is stopped again."""
    chosen = config(optimizer="momentum", epochs=2, **EVERYTHING)
    on, path = data(chosen), tmp_path / "0.pt"
    pauses, done = [], 0
    for _ in range(2 * 6):
        pauses.append(done + 1)
        done = (done + 1) % 6
    assert bits(resumed(path, chosen, on, pauses)) == bits(one(chosen, on))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parameters=st.fixed_dictionaries(
        {},
        optional={
            "optimizer": st.sampled_from(sorted(OPTIMIZERS)),
            "schedule": st.sampled_from(sorted(SCHEDULES)),
            "dropout": st.sampled_from([0.0, 0.5]),
            "batch_norm": st.booleans(),
            "activation": st.sampled_from(["relu", "gelu"]),
            "patience": st.integers(0, 2),
            "gradient_clip": st.sampled_from([0.0, 0.1]),
            "weight_decay": st.sampled_from([0.0, 0.1]),
            "loss": st.sampled_from(["cross_entropy", "mse"]),
            "label_smoothing": st.sampled_from([0.0, 0.1]),
            "learning_rate": st.sampled_from([1e-6, 0.01, 1000.0]),
            "batch_size": st.sampled_from([16, 139, 1000]),
            "seed": st.integers(0, 2**32 - 1),
        },
    ),
    pauses=st.lists(st.integers(0, 30), max_size=5),
)
def test_any_trial_and_any_interruptions(parameters, pauses, tmp_path):
    chosen = config(**parameters)
    on = data(chosen)
    expected = one(chosen, on)
    found = resumed(tmp_path / "0.pt", chosen, on, pauses)
    assert bits(found) == bits(expected)
    assert found.best is None or found.best == found.history[found.best_epoch - 1]


@pytest.mark.parametrize("optimizer", ["adam", "nesterov"])
def test_a_cnn_whose_weights_lie_in_another_order(optimizer, tmp_path):
    """The fused Adam walks through weights and moments by address; a moment in another layout would be another's."""
    x = np.random.default_rng(0).integers(0, 255, (160, 8, 8, 3), dtype=np.uint8)
    chosen = TrialConfig(
        model="cnn", channels=4, batch_size=32, validation=20, epochs=3, optimizer=optimizer, **EVERYTHING
    )
    on = prepare_data(Dataset((x, Y), classes=3), chosen, CPU)
    expected = bits(one(chosen, on, **LAST))
    assert bits(resumed(tmp_path / "0.pt", chosen, on, [3, 6, 9], **LAST)) == expected


@pytest.mark.usefixtures("own_models")
def test_a_stream_that_draws_from_torchs_generator(tmp_path):
    """Shuffled, and augmented batch by batch, between the draws of dropout."""

    class Noisy(TensorDataset):
        def __getitem__(self, index):
            x, y = super().__getitem__(index)
            return x + torch.rand(()), y

    train = DataLoader(Noisy(torch.from_numpy(X).float(), torch.from_numpy(Y)), batch_size=40, shuffle=True)
    chosen = config(**EVERYTHING)
    on = prepare_data(Dataset(train, validation=(X, Y), classes=3), chosen, CPU)
    expected = bits(one(chosen, on))
    for answers in range(1, 15, 2):
        assert bits(resumed(tmp_path / "0.pt", chosen, on, [answers, 3])) == expected, answers


@pytest.mark.integration
def test_in_fresh_processes_killed_and_resumed(tmp_path):
    path, command = tmp_path / "7.pt", [sys.executable, "-m", "tests.training.resumable"]
    with subprocess.Popen([*command, path, tmp_path / "never"], stdout=subprocess.PIPE, text=True) as process:
        while int(process.stdout.readline()) < 3:
            pass
        process.kill()
    assert not (tmp_path / "never").exists()
    subprocess.run([*command, path, tmp_path / "out"], check=True)
    chosen = config(epochs=40, **EVERYTHING)
    assert torch.load(tmp_path / "out", weights_only=True) == bits(one(chosen, data(chosen)))
    checkpoint = load(path, fingerprint(chosen, data(chosen), "val_accuracy", "maximize"))
    assert (checkpoint.epoch, checkpoint.step, len(checkpoint.history)) == (40, 0, 39)


@pytest.mark.integration
def test_a_writer_killed_at_any_moment_leaves_a_whole_file(tmp_path):
    """A process forks writers and kills them: an import of torch for each kill would take a minute."""
    code = """
    import os, random, signal, sys, time
    from pathlib import Path
    import torch
    from hpo.training.checkpoint import Checkpoint, load, save

    torch.set_num_threads(1)
    path, mine, seen = Path(sys.argv[1]), {"format": 1}, set()
    random.seed(0)
    for kill in range(40):
        before = path.stat().st_ino if kill else None
        child = os.fork()
        if not child:
            step = max(seen, default=0)
            while True:
                step += 1
                weights = torch.full((20000,), float(step))
                save(path, Checkpoint(1, step, 0.0, [], [], [], None, None, {"weights": weights}), mine)
        while not path.exists() or path.stat().st_ino == before:  # until this one has written, however slow the disk
            time.sleep(0.001)
        time.sleep(random.random() * 0.05)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        found = load(path, mine)
        assert (found.learner["weights"] == found.step).all()
        seen.add(found.step)
    left = sum(name.name.startswith(".") for name in path.parent.iterdir())
    print(len(seen), left)
    """
    path = tmp_path / "7.pt"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    seen, left = map(int, done.stdout.split())
    assert seen > 10
    assert left > 0  # some were killed in the midst of writing
    (tmp_path / ".70.pt.1.a").touch()
    remove_file(path)
    assert [each.name for each in tmp_path.iterdir()] == [".70.pt.1.a"]


def interrupted(path, answers=8, **parameters) -> tuple[TrialConfig, Data]:
    chosen = config(**parameters)
    on = data(chosen)
    outcome = one(chosen, on, CheckpointSpec(path), should_stop=stop_after(answers))
    assert outcome.status == "interrupted"
    return chosen, on


def refused(path, chosen, on, **keywords) -> str:
    class Never(Callback):
        def on_start(self, member):
            pytest.fail("a trial began that cannot be resumed")

    with pytest.raises(CheckpointError) as caught:
        one(chosen, on, CheckpointSpec(path, resume=True), callbacks=[Never()], **keywords)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_damage_of_every_kind(tmp_path):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    whole = path.read_bytes()
    expected = bits(one(chosen, on))
    mine = fingerprint(chosen, on, "val_accuracy", "maximize")
    rng = np.random.default_rng(0)
    lines = []
    for place in [*rng.integers(0, len(whole), 150), *range(4)]:
        damaged = bytearray(whole)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            load(path, mine)
        except CheckpointError as error:
            lines.append(str(error))
        else:  # a byte of padding, or a date
            assert bits(one(chosen, on, CheckpointSpec(path, resume=True))) == expected
            path.write_bytes(whole)
    assert len(lines) > 60
    assert all("is damaged" in line and "\n" not in line for line in lines)
    for size in [0, 1, 1000, len(whole) // 2, len(whole) - 1]:
        path.write_bytes(whole[:size])
        assert "is damaged" in refused(path, chosen, on)


def test_files_that_are_no_checkpoints(tmp_path):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    path.unlink()
    assert refused(path, chosen, on) == f"checkpoint {path}: there is none"
    path.mkdir()
    assert "cannot be read (Is a directory)" in refused(path, chosen, on)
    path.rmdir()
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "is damaged" in refused(path, chosen, on)

    class Attack:
        def __reduce__(self):
            return pytest.fail, ("code of a checkpoint was run",)

    for content in (Attack(), [], {"a": 1}, {"fingerprint": fingerprint(chosen, on, "val_accuracy", "maximize")}):
        torch.save(content, path)
        assert "is damaged" in refused(path, chosen, on)


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in content.items():
            archive.writestr(name, part)
    assert "is damaged (it is compressed" in refused(path, chosen, on)


def test_another_trials_checkpoint(tmp_path, monkeypatch):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path, learning_rate=0.1)
    assert refused(path, config(learning_rate=0.2), on).endswith(
        "is of another trial: its learning_rate is 0.1, and must be 0.2"
    )
    assert "its optimizer is 'adam', and must be 'sgd'" in refused(path, config(learning_rate=0.1, optimizer="sgd"), on)
    assert "its dropout is" in refused(path, config(learning_rate=0.1, dropout=0.1), on)
    assert "its data digest" in refused(path, chosen, prepare_data(Dataset((X + 1, Y), classes=3), chosen, CPU))
    assert "its train samples is 140" in refused(path, chosen, prepare_data(Dataset((X[1:], Y[1:])), chosen, CPU))
    assert "its monitor is 'val_accuracy'" in refused(path, chosen, on, monitor="val_loss")
    with pytest.raises(CheckpointError, match="its owner is '', and must be 'study 1, trial 3'"):
        one(chosen, on, CheckpointSpec(path, resume=True, owner="study 1, trial 3"))
    monkeypatch.setattr(torch, "__version__", "9.0")
    assert "its torch is" in refused(path, chosen, on)


@pytest.mark.usefixtures("own_models")
def test_a_model_that_was_changed_under_its_name(tmp_path):
    path = tmp_path / "0.pt"
    for width in (8, 9):
        registry.models._entries.pop("own", None)
        registry.model("own")(lambda config, shape, classes, width=width: nn.Linear(shape[0], classes, bias=width == 8))
        if width == 8:
            chosen, on = interrupted(path, model="own")
    assert "does not fit the model or the optimizer" in refused(path, chosen, on)


def test_no_memory_is_not_taken_for_damage(tmp_path, monkeypatch):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)

    def fail(*arguments, **keywords):
        raise MemoryError

    monkeypatch.setattr(torch, "load", fail)
    with pytest.raises(OutOfMemoryError):
        one(chosen, on, CheckpointSpec(path, resume=True))


def test_a_trial_outlives_a_checkpoint_that_cannot_be_written(tmp_path, caplog):
    chosen = config()
    on = data(chosen)
    (tmp_path / "file").touch()
    with caplog.at_level(logging.WARNING):
        outcome = one(chosen, on, CheckpointSpec(tmp_path / "file" / "0.pt", every=0))
    assert bits(outcome) == bits(one(chosen, on))
    assert "0.pt: not written" in caplog.text


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path, caplog):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    before = path.read_bytes()
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (5000, limits[1]))
    try:
        outcome = one(chosen, on, CheckpointSpec(path, resume=True, every=0))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert outcome.status == "completed"
    assert "not written (" in caplog.text
    assert "File too large" in caplog.text
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["0.pt"]


class Clock:
    """Moves a second whenever it is read."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1
        return self.now


def written(monkeypatch) -> list[tuple[int, int]]:
    """Epoch and step of every checkpoint from now on."""
    places = []

    def record(path, checkpoint, belongs_to):
        places.append((checkpoint.epoch, checkpoint.step))
        save(path, checkpoint, belongs_to)

    monkeypatch.setattr("hpo.training.checkpoint.save", record)
    return places


def test_when_a_checkpoint_is_due(tmp_path, monkeypatch):
    chosen = config()
    on = data(chosen)
    spec = CheckpointSpec(tmp_path / "new" / "0.pt", every=6.0, clock=Clock())
    places = written(monkeypatch)
    one(chosen, on, spec)
    assert places == [(1, 5), (2, 5), (3, 5)]  # the clock is read at each of 6 questions, and after each checkpoint
    places.clear()
    one(chosen, on, replace(spec, every=1000.0))
    assert places == []
    one(chosen, on, replace(spec, every=0.0))
    assert places == [(2, 0), (3, 0)]  # a trial that is done needs none
    places.clear()
    one(chosen, on, replace(spec, every=0.0, resume=True))
    assert places == []
    one(chosen, on, replace(spec, every=1000.0), should_stop=stop_after(8))
    assert places == [(2, 2)]


def test_the_file_of_a_trial_that_passed_to_another_worker(tmp_path):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    before = path.read_bytes()
    spec = CheckpointSpec(path, every=0, may_write=lambda: False)
    assert one(chosen, on, spec, should_stop=stop_after(14)).status == "interrupted"
    assert path.read_bytes() == before


def test_what_callbacks_are_told(tmp_path):
    class Told(Callback):
        def __init__(self):
            self.told = []

        def on_start(self, member):
            self.told.append((member.resumed_from, [row["epoch"] for row in member.history]))

        def on_epoch(self, member, metrics):
            self.told.append(metrics["epoch"])

        def on_end(self, member, outcome):
            self.told.append(outcome.status)

    path = tmp_path / "0.pt"
    chosen, on = interrupted(path, answers=14)
    told = Told()
    outcome = one(chosen, on, CheckpointSpec(path, resume=True), callbacks=[told, CsvLog(tmp_path / "metrics.csv")])
    assert told.told == [(2, [1, 2]), 3, "completed"]
    assert [row["epoch"] for row in outcome.history] == [1, 2, 3]
    assert [line.split(",")[0] for line in (tmp_path / "metrics.csv").read_text().splitlines()] == [
        "epoch",
        "1",
        "2",
        "3",
    ]


def test_seconds_go_on(tmp_path):
    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    mine = fingerprint(chosen, on, "val_accuracy", "maximize")
    found = load(path, mine)
    save(path, Checkpoint(**{**vars(found), "seconds": 1000.0}), mine)
    time.sleep(0.2)
    outcome = one(chosen, on, CheckpointSpec(path, resume=True))
    seconds = [row["seconds"] for row in outcome.history]
    assert seconds[0] < 1000 < seconds[1] < seconds[2] == outcome.train_seconds < 1100


def test_pruned_after_being_resumed_and_early_stopped(tmp_path):
    class Pruner(Callback):
        def on_epoch(self, member, metrics):
            if metrics["epoch"] == 2:
                member.stop("pruned")

    path = tmp_path / "0.pt"
    chosen, on = interrupted(path)
    outcome = one(chosen, on, CheckpointSpec(path, resume=True), callbacks=[Pruner()])
    assert (outcome.status, len(outcome.history)) == ("pruned", 2)
    # The rate is so small that the accuracy stays what it was.
    still = config(epochs=9, patience=4, learning_rate=1e-12)
    found = resumed(path, still, on, [8, 8, 8])
    assert (found.status, len(found.history), found.best_epoch) == ("early_stopped", 5, 1)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="hardware: no CUDA device")
def test_cuda(tmp_path):
    for optimizer in OPTIMIZERS:
        chosen = config(optimizer=optimizer, **EVERYTHING)
        on = prepare_data(Dataset((X, Y), classes=3), chosen, torch.device("cuda"))
        expected, found = one(chosen, on), resumed(tmp_path / "0.pt", chosen, on, [4, 8])
        assert found.history[-1]["val_loss"] == pytest.approx(expected.history[-1]["val_loss"], rel=1e-4), optimizer
