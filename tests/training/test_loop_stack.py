"""Loops that train several trials: each ends where it leaves, and none depends on who else is in the stack."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import optuna
import pytest
import torch
import torch.nn.functional as F
from optuna.trial import TrialState
from torch import Tensor, nn

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RunError
from hpo.training import loop_stack
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.custom_loop import Trial
from hpo.training.loop import train
from hpo.training.loop_group import LoopGroup
from hpo.training.member import Member, Metrics, TrainResult
from hpo.training.settings import TrainSettings
from hpo.training.suggestions import TrialLink
from tests.training.resumable import config, data, stop_after
from tests.training.test_stacked import Prunes

pytestmark = pytest.mark.usefixtures("one_thread")
RATES = (0.1, 0.03, 0.01)
Loss = Callable[[Tensor, Tensor], Tensor]


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))


def plain(_: TrialConfig) -> nn.Module:
    return nn.Linear(8, 3)


def register(
    build: Callable[[TrialConfig], nn.Module] = plain,
    loss: Callable[[], Loss] = lambda: F.cross_entropy,
    *,
    asks: bool = False,
    uses: tuple[str, ...] = (),
) -> None:
    """Register a loop of a stack; where it asks, it returns once it should stop, also in the midst of an epoch."""

    @hpo.training_loop("stacking", uses=["epochs", "learning_rate", "batch_size", *uses], stack=True)
    def stacking(trial: hpo.Trial) -> None:
        stack = trial.stack(build)
        for epoch in stack.epochs():
            for x, y in trial.data.batches(32, epoch):
                if asks and trial.should_stop:
                    return
                losses = stack.step(x, y, loss())
            stack.report(val_loss=losses, val_accuracy=[0.5] * len(stack))


def configs(epochs: int = 4, **given: Any) -> list[TrialConfig]:
    return [config(model="stacking", widths=None, epochs=epochs, learning_rate=rate, **given) for rate in RATES]


def run(made: list[TrialConfig], specs: Any = None, **settings: Any) -> list[TrainResult]:
    return train(made, data(made[0]), TrainSettings(**settings), specs)


def losses(result: TrainResult) -> list[float]:
    return [row["val_loss"] for row in result.history]


def test_a_loop_that_asks_if_it_should_stop_goes_on_for_those_that_train() -> None:
    register(asks=True)
    found = run(configs(), callbacks=[Prunes(_0=2)])
    assert [(each.status, len(each.history)) for each in found] == [("pruned", 2), ("completed", 4), ("completed", 4)]


@pytest.mark.parametrize("asks", [True, False])
@pytest.mark.parametrize("after", [3, 12])
def test_a_stop_on_request_interrupts_all_and_completes_none(after: int, asks: bool) -> None:
    register(asks=asks)
    questions: list[int] = []

    def stop() -> bool:
        questions.append(1)
        return len(questions) > (after if asks else after // 5)

    found = run(configs(), should_stop=stop)
    assert {each.status for each in found} == {"interrupted"}


def test_a_trial_is_told_as_it_leaves_and_not_when_the_last_one_ends() -> None:
    register()
    made = configs()
    made[2] = made[2].model_copy(update={"epochs": 3})
    prunes = Prunes(_0=1)
    found = run(made, callbacks=[prunes])
    assert [len(each.history) for each in found] == [1, 4, 3]
    assert prunes.told.index((0, "pruned")) < prunes.told.index((1, 2))
    assert prunes.told.index((2, "completed")) < prunes.told.index((1, 4))
    assert [number for number, what in prunes.told if isinstance(what, str)] == [0, 2, 1]  # each once


def test_what_held_a_trial_that_has_left_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the weights and the optimizer's memory of every earlier group would stay until the last trial ends."""
    made: list[weakref.ref[LoopGroup]] = []
    alive: list[int] = []

    class Watched(LoopGroup):
        def __init__(self, *given: Any, **options: Any) -> None:
            gc.collect()
            alive.append(sum(each() is not None for each in made))
            super().__init__(*given, **options)
            made.append(weakref.ref(self))

    monkeypatch.setattr(loop_stack, "LoopGroup", Watched)
    register()
    run(configs(), callbacks=[Prunes(_0=1, _1=2)])
    assert alive == [0, 1, 1]  # the group that is left gives its state


def test_attributes_of_a_trial_that_has_left_are_not_stored_and_hinder_nobody() -> None:
    @hpo.training_loop("stacking", uses=["epochs", "learning_rate", "batch_size"], stack=True)
    def stacking(trial: hpo.Trial) -> None:
        stack = trial.stack(plain)
        everyone = list(stack.trials)
        for epoch in stack.epochs():
            for x, y in trial.data.batches(32, epoch):
                losses = stack.step(x, y, F.cross_entropy)
            stack.report(val_loss=losses, val_accuracy=[0.5] * len(stack))
            for each in everyone:
                each.set_user_attr("epochs seen", epoch)

    class Tells(Prunes):
        def on_end(self, member: Any, outcome: TrainResult) -> None:
            study.tell(asked[member.number], state=TrialState.FAIL)

    study = optuna.create_study()
    asked = [study.ask() for _ in RATES]
    links = [TrialLink(each, each.number) for each in asked]
    made = configs()
    found = train(made, data(made[0]), TrainSettings(callbacks=[Tells(_0=2)]), links=links)
    assert [len(each.history) for each in found] == [2, 4, 4]
    assert [each.user_attrs["epochs seen"] for each in study.trials] == [2, 4, 4]


def test_a_trial_that_is_stopped_before_it_begins_has_a_result_too() -> None:
    class Stops(Callback):
        def on_start(self, member: Any) -> None:
            if member.number == 1:
                member.stop("pruned")

    register()
    found = run(configs(), callbacks=[Stops()])
    assert [(each.status, len(each.history)) for each in found] == [("completed", 4), ("pruned", 0), ("completed", 4)]


def test_a_loss_that_is_made_anew_at_each_step_is_compared_once() -> None:
    calls: list[int] = []

    def make() -> Loss:
        share = 0.1

        def loss(outputs: Tensor, y: Tensor) -> Tensor:
            calls.append(1)
            return F.cross_entropy(outputs, y, label_smoothing=share)

        return loss

    register(loss=make)
    run(configs())
    assert len(calls) == 4 * 5 + 3  # once for all at each of five steps, and at the first for each alone


@pytest.mark.parametrize(
    ("given", "words"),
    [({"optimizer": "lbfgs"}, "has no optimizer lbfgs"), ({"precision": "float16"}, "does not scale losses")],
)
def test_what_a_stack_cannot_step_is_refused_in_one_line(given: dict[str, Any], words: str) -> None:
    register(uses=tuple(given))
    with pytest.raises(RunError, match=words) as caught:
        run(configs(**given))
    assert "\n" not in str(caught.value)


class Held(nn.Linear):
    """Model that holds a function of its own."""

    def __init__(self) -> None:
        super().__init__(8, 3)
        self.activation = lambda x: x

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(super().forward(x))


def test_a_model_that_holds_a_function_of_its_own_says_so() -> None:
    register(lambda _: Held())
    sees = Sees()
    run(configs(epochs=1), callbacks=[sees])
    assert {each.alone for each in sees.members} == {"Held holds a function of its own as activation"}
    register(lambda config: nn.Linear(8, 3) if config.learning_rate > 0.05 else nn.Linear(8, 3, bias=False))
    run(configs(epochs=1), callbacks=[sees])
    assert [(each.alone, each.stack) for each in sees.members[3:]] == [(None, 1), (None, 2), (None, 2)]


class Sees(Callback):
    """Callback that keeps the trials that it sees."""

    def __init__(self) -> None:
        self.members: list[Member] = []

    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        self.members.append(member)


class Double(nn.Linear):
    """Model whose parameters and outputs are of another type than its samples."""

    def __init__(self) -> None:
        super().__init__(8, 3, dtype=torch.float64)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.double())


def test_losses_are_of_the_models_types() -> None:
    register(lambda config: Double() if config.learning_rate > 0.05 else nn.Linear(8, 3))
    found = run(configs(epochs=1))
    for number, made in enumerate(configs(epochs=1)):
        (expected,) = run([made])
        assert losses(found[number]) == pytest.approx(losses(expected), rel=1e-6)


class Returns(nn.Module):
    """Model that returns what a function makes of its outputs."""

    def __init__(self, function: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.layer, self.function = nn.Linear(8, 3), function

    def forward(self, x: Tensor) -> object:
        return self.function(self.layer(x))


@pytest.mark.filterwarnings("ignore:`torch.jit.script`:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Casting complex values:UserWarning")
@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda _: nn.GRU(8, 3), "forward returns a value of type tuple; return a tensor of .*, or write a loop"),
        (lambda _: Returns(torch.mean), "forward returns a single number; return a tensor of real numbers, "),
        (lambda _: Returns(torch.Tensor.cfloat), "forward returns complex numbers; return a tensor of real numbers, "),
        (lambda _: torch.jit.script(nn.Linear(8, 3)), "cannot train its model: .* is compiled by torch.jit; write a"),
        (lambda _: nn.Identity(), "cannot train its model: it has nothing to train; write a loop of one trial"),
    ],
)
def test_a_model_that_no_stack_can_train_is_one_line(build: Callable[[TrialConfig], nn.Module], words: str) -> None:
    register(build)
    with pytest.raises(RunError, match=words):
        run(configs(epochs=1))


def test_models_that_are_computed_one_by_one_draw_the_same_whoever_else_trains() -> None:
    register(lambda _: nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.3), nn.RReLU(), nn.Linear(8, 3)))
    whole, left = run(configs()), run(configs(), callbacks=[Prunes(_0=1)])
    assert losses(left[1]) == losses(whole[1])
    assert losses(left[2]) == losses(whole[2])


def test_the_checkpoints_of_a_stack_are_of_one_epoch(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    register()
    monkeypatch.setattr(
        Trial, "checkpoint_due", property(lambda trial: trial.config.learning_rate == RATES[1] and trial.epoch == 2)
    )
    saved: list[tuple[float, int]] = []
    save = Trial.save

    def record(trial: Trial, state: Any) -> None:
        saved.append((trial.config.learning_rate, trial.epoch))
        save(trial, state)

    monkeypatch.setattr(Trial, "save", record)
    run(configs(), [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)])
    assert saved == [(rate, 2) for rate in RATES]


def test_a_trial_with_a_checkpoint_may_pause_before_it_goes_on(tmp_path: Any) -> None:
    class Pauses(Callback):
        def on_start(self, member: Any) -> None:
            assert member.resumable
            if member.number == 0:
                member.stop("paused")

    register()
    specs = [CheckpointSpec(tmp_path / f"{number}.pt", every=0) for number in range(3)]
    stopped = run(configs(), specs, should_stop=stop_after(3))
    found = run(configs(), [replace(spec, resume=True) for spec in specs], callbacks=[Pauses()])
    assert [(each.status, len(each.history)) for each in found] == [
        ("paused", len(stopped[0].history)),
        ("completed", 4),
        ("completed", 4),
    ]


@pytest.mark.parametrize("asks", [True, False])
def test_a_paused_trial_has_its_checkpoint_although_the_loop_returns_at_once(tmp_path: Any, asks: bool) -> None:
    class Pauses(Callback):
        def on_round(self, members: Any) -> None:
            for member in members:
                if len(member.history) == 2:
                    member.stop("paused")

    @hpo.training_loop("stacking", uses=["epochs", "learning_rate", "batch_size"], stack=True)
    def stacking(trial: hpo.Trial) -> None:
        stack = trial.stack(plain)
        for _ in stack.epochs():
            stack.report(val_loss=[0.5] * len(stack), val_accuracy=0.5)
            if asks and stack.should_stop:
                return

    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(3)]
    found = run(configs(), specs, callbacks=[Pauses()])
    assert [(each.status, len(each.history)) for each in found] == [("paused", 2)] * 3
    again = run(configs(), [replace(spec, resume=True) for spec in specs])
    assert [len(each.history) for each in again] == [4] * 3
    assert losses(again[0])[:2] == losses(found[0])


@pytest.mark.parametrize("count", [1, 3])
def test_what_a_loop_of_one_trial_returns_counts_and_several_may_return_nothing(count: int) -> None:
    @hpo.training_loop("stacking", uses=["epochs", "learning_rate", "batch_size"], stack=True)
    def stacking(trial: hpo.Trial) -> float:
        stack = trial.stack(plain)
        for _ in stack.epochs():
            stack.report(val_loss=[0.5] * len(stack), val_accuracy=0.5)
        return 0.25

    if count == 1:
        (found,) = run(configs()[:1], monitor="val_loss", direction="minimize")
        assert found.returned == {"val_loss": 0.25}
    else:
        with pytest.raises(RunError, match="it trains several trials and returned a value; report theirs"):
            run(configs())


@pytest.mark.parametrize("stacked", [True, False])
def test_a_loop_as_optuna_has_it_completes_its_trials(stacked: bool) -> None:
    @hpo.training_loop("stacking", uses=["epochs", "learning_rate", "batch_size"], stack=stacked)
    def stacking(trial: hpo.Trial) -> None:
        stack = trial.stack(plain) if stacked else None
        for epoch in trial.epochs() if stack is None else stack.epochs():
            if stack is None:
                trial.report(val_loss=1 / epoch)
            else:
                stack.report(val_loss=[1 / epoch] * len(stack))
            if trial.should_prune():
                raise optuna.TrialPruned

    found = run(configs(), callbacks=[Prunes(_0=2)])
    assert [(each.status, len(each.history)) for each in found] == [("pruned", 2), ("completed", 4), ("completed", 4)]


def test_batches_of_their_own_are_as_many_as_trials_in_training() -> None:
    """Else one that has left would hand its batches on."""

    @hpo.training_loop("owned", uses=["epochs", "learning_rate"], stack=True)
    def owned(trial: hpo.Trial) -> None:
        x, y = torch.randn(3, 5, 8), torch.randint(3, (3, 5))
        stack = trial.stack(plain)
        for _ in stack.epochs():
            stack.report(val_loss=stack.step(x, y, F.cross_entropy, own=True), val_accuracy=0.5)

    made = [config(model="owned", widths=None, epochs=3, learning_rate=rate) for rate in RATES]
    with pytest.raises(RunError, match="has the batches of 3 trials, and 2 are in training; give one for each"):
        run(made, callbacks=[Prunes(_0=1)])


class Lengths(nn.Module):
    """Model of sequences of any length."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.leave = nn.GRU(8, 4, batch_first=True), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(x)[0].mean(1))


def test_sequences_may_be_longer_in_one_batch_than_in_another() -> None:
    torch.manual_seed(0)
    batches = [(torch.randn(6, length, 8), torch.randint(3, (6,))) for length in (5, 7, 2)]

    @hpo.training_loop("lengths", uses=["epochs", "learning_rate"], stack=True)
    def lengths(trial: hpo.Trial) -> None:
        stack = trial.stack(lambda _: Lengths())
        for _ in stack.epochs():
            for x, y in batches:
                before = stack.step(x, y, F.cross_entropy)
            outputs = stack.predict(batches[0][0])
            stack.report(val_loss=before, val_accuracy=(outputs.argmax(2) == batches[0][1]).float().mean(1))

    made = [config(model="lengths", widths=None, epochs=2, learning_rate=rate) for rate in RATES]
    for found, each in zip(run(made), made, strict=True):
        torch.manual_seed(each.seed_of_init)
        model = Lengths()
        optimizer = torch.optim.Adam(model.parameters(), lr=each.learning_rate)
        for row in found.history:
            for x, y in batches:
                loss = F.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            assert row["val_loss"] == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_loop_may_predict_before_it_trains(mode: Callable[[], Any]) -> None:
    @hpo.training_loop("predicting", uses=["epochs", "learning_rate"], stack=True)
    def predicting(trial: hpo.Trial) -> None:
        on, stack = (
            trial.data,
            trial.stack(lambda _: nn.Sequential(nn.Linear(8, 4), nn.BatchNorm1d(4), nn.Linear(4, 3))),
        )
        for _ in stack.epochs():
            with mode():
                stack.predict(on.x_val)
            stack.report(val_loss=stack.step(on.x_train, on.y_train, F.cross_entropy), val_accuracy=0.5)

    sees = Sees()
    found = run([config(model="predicting", widths=None, epochs=2, learning_rate=r) for r in RATES], callbacks=[sees])
    assert {(each.stack, each.alone) for each in sees.members} == {(3, None)}
    assert all(before > after for before, after in map(losses, found))


def of_positions(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs.flatten(0, 1), y.flatten())


def of_any(outputs: Tensor, y: Tensor) -> Tensor:
    return F.cross_entropy(outputs.reshape(-1, 3), y.reshape(-1))


@pytest.mark.parametrize(
    ("loss", "own", "losses_differ"),
    [(of_positions, None, False), (F.cross_entropy, None, True), (of_any, False, False), (of_any, True, True)],
)
def test_as_many_sequences_as_trials_are_told_from_batches_of_their_own(
    loss: Loss, own: bool | None, losses_differ: bool
) -> None:
    found = run_sequences(loss, own)
    assert len({losses(each)[0] for each in found}) == (3 if losses_differ else 1)


def test_where_they_cannot_be_told_apart_the_loop_must_say_it() -> None:
    with pytest.raises(RunError, match="one batch of sequences, or a batch of each trial's own; say own=False"):
        run_sequences(of_any, None)


def run_sequences(loss: Loss, own: bool | None) -> list[TrainResult]:
    """Train equal trials on as many samples of five rows, with a label for each row."""

    @hpo.training_loop("sequences", uses=["epochs", "learning_rate"], stack=True)
    def sequences(trial: hpo.Trial) -> None:
        x, y = torch.randn(3, 5, 8), torch.randint(3, (3, 5))
        stack = trial.stack(lambda _: nn.Linear(8, 3))
        for _ in stack.epochs():
            stack.report(val_loss=stack.step(x, y, loss, own=own), val_accuracy=0.5)

    return run([config(model="sequences", widths=None, epochs=1, learning_rate=0.1, seed=0) for _ in range(3)])
