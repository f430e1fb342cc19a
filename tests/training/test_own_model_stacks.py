"""Models and loops of one's own in stacks: each trial is the trial alone, and goes on from its own checkpoint."""

import threading
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import hpo
from hpo.config import registry
from hpo.config.cohort_key import stack_key
from hpo.config.trial_config import TrialConfig
from hpo.datasets import Dataset
from hpo.errors import RunError
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.data import prepare_data
from hpo.training.loop import train
from hpo.training.member import Member, TrainResult
from hpo.training.settings import TrainSettings
from hpo.training.stacked import check
from hpo.training.stacked.check import Timing, find_difference, why_alone
from hpo.training.stacked.parts import NormPass
from hpo.training.stacked.sequential import is_sequential
from tests.training.resumable import CPU, bits, config, stop_after
from tests.training.test_stacked import Prunes, alone, assert_close, doubled, in_float64
from tests.training.test_stacked_modules import X, data

__all__ = ["in_float64"]
pytestmark = pytest.mark.usefixtures("one_thread", "own_models")


class Net(nn.Module):
    def __init__(self, config: TrialConfig, inputs: int, classes: int) -> None:
        super().__init__()
        self.config = config  # as many keep it
        self.enter, self.norm = nn.Linear(inputs, config.width), nn.BatchNorm1d(config.width)
        self.again = nn.Linear(config.width, config.width)
        self.again.weight = self.enter.weight if inputs == config.width else self.again.weight
        self.attention = nn.MultiheadAttention(4, 2, dropout=config.dropout, batch_first=True)
        self.drop, self.leave = nn.Dropout(config.dropout), nn.Linear(config.width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = self.drop(torch.relu(self.again(self.norm(self.enter(x)))))
        rows = h.unflatten(1, (-1, 4))
        return self.leave((rows + self.attention(rows, rows, rows)[0]).flatten(1))


@pytest.fixture(scope="module")
def own_models():
    """Register a model, one with augmentation, one that cannot be stacked, and a loop; forget them again."""
    before = dict(registry.models._entries)
    uses = ["width", "dropout"]
    hpo.model("own", uses=uses)(lambda config, shape, classes: Net(config, shape[0], classes))
    hpo.model("own_noisy", uses=uses, augment=lambda x, config: x * (1 + config.width / 100))(
        lambda config, shape, classes: Net(config, shape[0], classes)
    )
    hpo.model("own_local", uses=uses)(
        lambda config, shape, classes: type("Local", (Net,), {})(config, shape[0], classes)
    )
    hpo.training_loop("own_loop", uses=["epochs", "learning_rate", "batch_size", "width", "optimizer"], stack=True)(
        loop
    )
    hpo.training_loop("own_other", uses=["epochs"])(lambda trial: trial.stack(nn.Linear))
    yield
    registry.models._entries = before


def loop(trial: hpo.Trial) -> None:
    data = trial.data
    stack = trial.stack(lambda config: nn.Sequential(nn.Linear(6, config.width), nn.ReLU(), nn.Linear(config.width, 3)))
    for epoch in stack.epochs():
        for x, y in data.batches(trial.config.batch_size, epoch):
            losses = stack.step(x, y, F.cross_entropy)
        outputs = stack.predict(data.x_val)
        hits = (outputs.argmax(2) == data.y_val).double().mean(1)
        stack.report(
            train_loss=losses, val_loss=[F.cross_entropy(each, data.y_val) for each in outputs], val_accuracy=hits
        )


def own(model: str = "own", **parameters) -> TrialConfig:
    return config(**{"model": model, "widths": None, "width": 8, "learning_rate": 0.01, "epochs": 2} | parameters)


@pytest.fixture
def always_gains(monkeypatch):
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(2.0, 1.0))


@pytest.mark.usefixtures("in_float64", "always_gains")
@pytest.mark.parametrize("model", ["own", "own_noisy"])
def test_a_trial_in_a_stack_is_the_trial_alone(model):
    settings = [
        {"optimizer": "adam"},
        {"optimizer": "adam", "gradient_clip": 0.3, "schedule": "cosine"},
        {"optimizer": "momentum", "width": 12},
        {"optimizer": "momentum", "width": 12, "weight_decay": 0.01, "head_learning_rate_ratio": 0.3},
        {"optimizer": "sgd", "layer_learning_rate_decay": 0.7},
    ]
    configs = [own(model, learning_rate=0.01 * (i + 1), **each) for i, each in enumerate(settings)]
    on = doubled(data(configs[0]))
    found = train(configs, on)
    for each, expected in zip(found, alone(configs, on), strict=True):
        assert_close(each, expected, 1e-9)


@pytest.mark.usefixtures("always_gains")
@pytest.mark.parametrize("answers", [3, 7])
def test_a_stack_with_dropout_goes_on_from_its_checkpoints(answers, tmp_path):
    configs = [own(dropout=0.1 * (i + 1), learning_rate=0.01 * (i + 1)) for i in range(3)]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt") for number in range(len(configs))]
    stopped = train(configs, on, TrainSettings(should_stop=stop_after(answers)), checkpoints=specs)
    assert {outcome.status for outcome in stopped} == {"interrupted"}
    again = train(configs, on, checkpoints=[replace(spec, resume=True) for spec in specs])
    assert [bits(each) for each in again] == [bits(each) for each in train(configs, on)]


@pytest.mark.usefixtures("always_gains")
def test_the_noise_of_a_trial_does_not_depend_on_the_others():
    configs = [own(dropout=0.2, learning_rate=0.01 * (i + 1)) for i in range(4)]
    on = data(configs[0])
    whole, few = train(configs, on), train(configs[2:], on)
    for number in (0, 1):
        assert whole[2 + number].history[0]["train_loss"] == pytest.approx(
            few[number].history[0]["train_loss"], rel=1e-5
        )


def test_what_trains_alone_says_why(monkeypatch):
    monkeypatch.setattr(check, "_verdicts", {})
    monkeypatch.setattr(check, "_by_values", {})
    on = data(own())
    assert "defined" in (why_alone(own("own_local"), on) or "") or "made anew" in (
        why_alone(own("own_local"), on) or ""
    )
    assert "lbfgs" in (why_alone(own(optimizer="lbfgs"), on) or "")
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(1.0, 2.0))
    assert why_alone(own(), on) == "a stack is 0.5 times as fast as one at a time here"


class Pair(nn.Linear):
    """Module that returns two tensors."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return super().forward(x), x


def test_a_model_that_cannot_be_trained_says_why_and_not_that_it_was_not_checked(monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_pair")(lambda config, shape, classes: Pair(shape[0], classes))
    found = why_alone(own("own_pair"), data(own()))
    assert found == "its forward returns a value of type tuple; it must return a tensor, of shape (2, 3) for 2 samples"
    assert stack_key(own("own_other")) is None


def sequence(dropout: float = 0.0) -> nn.Sequential:
    """Return layers, some of which are used twice."""
    act, drop = nn.Tanh(), nn.Dropout(dropout)
    return nn.Sequential(
        *(nn.Linear(6, 8), act, drop, nn.BatchNorm1d(8), nn.Linear(8, 8), act, drop, nn.Linear(8, 3), act, drop),
        nn.Linear(3, 3),
    )


@pytest.mark.usefixtures("in_float64", "always_gains")
def test_layers_that_a_sequence_uses_twice_are_computed_twice(monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_twice")(lambda config, shape, classes: sequence())
    configs = [own("own_twice", learning_rate=0.01 * (i + 1), optimizer="adam") for i in range(2)]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


class Indexed(nn.Module):
    """Model whose first tensor is a buffer of whole numbers."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.register_buffer("index", torch.arange(features - 1, -1, -1))
        self.leave = nn.Linear(features, outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.leave(x[:, self.index])


@pytest.mark.usefixtures("in_float64", "always_gains")
@pytest.mark.parametrize("loss", ["huber", "mse"])
def test_losses_and_scores_are_real_numbers_whatever_buffer_comes_first(loss, monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_indexed")(lambda config, shape, outputs: Indexed(shape[0], outputs))
    configs = [own("own_indexed", task="regression", loss=loss, learning_rate=0.01 * (i + 1)) for i in range(2)]
    on = prepare_data(Dataset((X, X[:, :2] * (3.0, 500.0)), task="regression"), configs[0], CPU)
    on = replace(doubled(on), y_train=on.y_train.double(), y_val=on.y_val.double())
    lowest = {"monitor": "val_loss", "direction": "minimize"}
    for found, expected in zip(train(configs, on, TrainSettings(**lowest)), alone(configs, on, **lowest), strict=True):
        assert_close(found, expected, 1e-9)


class Headed(nn.Module):
    """Model that names its head, which is not its last layer; a part of a layer is the head's too."""

    def __init__(self, features: int, outputs: int) -> None:
        super().__init__()
        self.enter = nn.Linear(features, 8)
        self.head = nn.ModuleDict({"norm": nn.LayerNorm(8), "leave": nn.Linear(8, outputs)})
        self.middle, self.late = nn.Linear(8, 8), nn.Linear(8, 8)

    def get_classifier(self) -> nn.Module:
        return self.head

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.tanh(self.late(torch.tanh(self.middle(torch.tanh(self.enter(x))))))
        return self.head["leave"](self.head["norm"](h))


@pytest.mark.usefixtures("in_float64", "always_gains")
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
@pytest.mark.parametrize("rates", [{"head_learning_rate_ratio": 3.0}, {"layer_learning_rate_decay": 0.5}])
def test_the_head_that_a_model_names_has_the_heads_rate(rates, optimizer, monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_headed")(lambda config, shape, classes: Headed(shape[0], classes))
    configs = [own("own_headed", learning_rate=0.01 * (i + 1), optimizer=optimizer, **rates) for i in range(2)]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


class Idle(nn.Linear):
    """Model with parameters that it does not use."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.spare = nn.Linear(sizes[0], 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x)


@pytest.mark.usefixtures("in_float64", "always_gains")
@pytest.mark.parametrize(
    "settings",
    [
        {"optimizer": "adamw"},
        {"optimizer": "adam", "gradient_accumulation": 2},
        {"optimizer": "momentum", "layer_learning_rate_decay": 0.7},
        {"optimizer": "asgd", "asgd_decay": 0.1},
        {"optimizer": "schedule_free_adamw"},
    ],
)
def test_parameters_without_a_gradient_do_not_decay(settings, monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_idle")(lambda config, shape, classes: Idle(shape[0], classes))
    configs = [own("own_idle", learning_rate=0.01 * (i + 1), weight_decay=0.1, **settings) for i in range(2)]
    on = doubled(data(configs[0]))
    for found, expected in zip(train(configs, on), alone(configs, on), strict=True):
        assert_close(found, expected, 1e-9)


def test_nor_do_they_in_a_loop(monkeypatch):
    made: list[nn.Module] = []

    def make(*sizes: int) -> nn.Module:
        made.append(Idle(*sizes))
        return made[-1]

    parameters = {"optimizer": "adamw", "weight_decay": 0.5}
    (member,) = run_loop(make, 1, monkeypatch, **parameters)
    assert member.best_weights is not None
    for name, weight in made[0].spare.named_parameters():
        assert torch.equal(member.best_weights[f"1.spare.{name}"], weight)


@pytest.mark.usefixtures("always_gains")
def test_a_dropout_that_drops_nothing_yet_keeps_no_model_out_of_a_stack(monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_drops", uses=["dropout"])(
        lambda config, shape, classes: nn.Sequential(
            nn.Dropout(config.dropout), nn.Linear(shape[0], shape[0]), nn.Dropout(0.1), nn.Linear(shape[0], classes)
        )
    )
    assert why_alone(config(model="own_drops", widths=None), data(own())) is None


@pytest.mark.usefixtures("in_float64")
def test_the_check_compares_the_stack_that_will_train(monkeypatch):
    modules = [sequence(0.3), sequence(0.5)]
    assert is_sequential(modules[0])
    assert find_difference(modules, torch.randn(5, 6), (6,)) is None
    monkeypatch.setattr(
        NormPass, "forward", lambda self, x, *, train: self.rows.h.copy_(self._norm._sums[0].view_as(self.rows.h))
    )
    assert find_difference(modules, torch.randn(5, 6), (6,)) == "a stack gives other outputs"


FACTOR, TEMPLATES = {"value": 1.0}, threading.local()


class Scaled(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * FACTOR["value"] * getattr(TEMPLATES, "value", 1.0)


@pytest.mark.usefixtures("always_gains")
def test_a_model_whose_function_keeps_a_value_elsewhere_trains_alone(monkeypatch):
    def keep(config, shape, classes):
        FACTOR["value"] = 1 + config.dropout
        return Scaled(shape[0], classes)

    def hide(config, shape, classes):
        TEMPLATES.value = 1 + config.dropout
        return Scaled(shape[0], classes)

    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_kept", uses=["width", "dropout"])(keep)
    hpo.model("own_hidden", uses=["width", "dropout"])(hide)
    configs = [own("own_kept", dropout=share) for share in (0.1, 0.4)]
    on = data(configs[0])
    for each in configs:  # also where the last build has left the same value
        found = why_alone(each, on)
        assert found == "its function changes FACTOR of test_own_model_stacks.py as it builds a model"
    assert why_alone(own("own_hidden", dropout=0.1), on) == "a stack gives other outputs"
    together = train(configs, on)
    assert [bits(each) for each in together] == [bits(each) for each in alone(configs, on)]


def test_only_structures_that_trials_share_are_checked(monkeypatch):
    checked = []
    monkeypatch.setattr("hpo.training.loop.why_alone", lambda config, _: checked.append(config.width) or "too slow")
    asked = []
    configs = [own(width=width, learning_rate=0.01 * (i + 1), epochs=1) for i, width in enumerate((8, 12, 8, 16))]
    train(configs, data(configs[0]))
    assert checked == [8, 8]
    train(configs, data(configs[0]), TrainSettings(may_stack=lambda config: bool(asked.append(config.width))))
    assert (asked, checked) == ([8, 8], [8, 8])


# Loops.


def looped(**parameters) -> TrialConfig:
    return TrialConfig(
        **{"model": "own_loop", "width": 8, "batch_size": 32, "epochs": 3, "validation": 40} | parameters
    )


def test_a_loop_trains_several_trials_as_it_trains_each():
    configs = [looped(learning_rate=0.01 * (i + 1), width=(8, 12)[i % 2], epochs=3 - i % 3) for i in range(5)]
    on = data(configs[0])
    together = train(configs, on)
    for config_, found in zip(configs, together, strict=True):
        (expected,) = train([config_], on)
        assert [row["epoch"] for row in found.history] == list(range(1, config_.epochs + 1))
        for row, wanted in zip(found.history, expected.history, strict=True):
            assert row["val_loss"] == pytest.approx(wanted["val_loss"], rel=1e-4)
        assert found.weights is not None
        assert found.weights.keys() == expected.weights.keys()
    assert stack_key(configs[0]) is not None


def test_trials_of_a_loop_are_pruned_and_go_on_one_by_one(tmp_path):
    configs = [looped(learning_rate=0.01 * (i + 1), epochs=4) for i in range(3)]
    on = data(configs[0])
    specs = [CheckpointSpec(tmp_path / f"{number}.pt", every=0) for number in range(3)]
    pruned = train(configs, on, TrainSettings(callbacks=[Prunes(_1=2)]))
    assert [len(each.history) for each in pruned] == [4, 2, 4]
    stopped = train(configs, on, TrainSettings(should_stop=stop_after(2)), checkpoints=specs)
    assert {each.status for each in stopped} == {"interrupted"}
    again = train(configs, on, checkpoints=[replace(spec, resume=True) for spec in specs])
    assert [bits(each) for each in again] == [bits(each) for each in train(configs, on)]


class Draws(nn.Linear):
    """Module with random numbers of its own, which no stack can compute."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + 0.01 * torch.randn_like(x))


class Complex(nn.Linear):
    """Module with a complex parameter."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.turn = nn.Parameter(torch.ones(1, dtype=torch.cfloat))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.turn.real


def run_loop(make, count: int, monkeypatch, **parameters) -> list[Member]:
    """Train trials by a loop with a stack of such modules; return them as a callback sees them."""
    seen: dict[int, Member] = {}

    class Sees(Callback):
        def on_epoch(self, member, metrics) -> None:
            seen[member.number] = member

    def steps(trial: hpo.Trial) -> None:
        stack = trial.stack(lambda config: nn.Sequential(nn.Flatten(), make(6, 3)))
        for _ in stack.epochs():
            losses = stack.step(trial.data.x_train[:12], trial.data.y_train[:12], F.cross_entropy)
            stack.report(val_loss=losses, val_accuracy=0.5)

    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.training_loop("own_kind", uses=["epochs", "learning_rate", "batch_size", *parameters], stack=True)(steps)
    given = {"model": "own_kind", "epochs": 1, **parameters}
    configs = [TrialConfig(**given, learning_rate=0.01 * (i + 1)) for i in range(count)]
    train(configs, data(configs[0]), TrainSettings(callbacks=[Sees()]))
    return [seen[number] for number in range(count)]


@pytest.mark.parametrize("count", [1, 3])
def test_a_loop_computes_what_cannot_be_stacked_one_by_one_and_says_why(count, monkeypatch):
    for member in run_loop(Draws, count, monkeypatch):
        assert member.stack == 1
        assert "random numbers of its own" in member.alone
    assert {(member.stack, member.alone) for member in run_loop(nn.Linear, count, monkeypatch)} == {(count, None)}


@pytest.mark.parametrize("count", [1, 2])
def test_a_loop_with_parameters_that_no_stack_can_hold_is_one_line(count, monkeypatch):
    with pytest.raises(RunError, match=r"trial.stack cannot train its model: its parameter 1.turn is complex"):
        run_loop(Complex, count, monkeypatch)


class Doubles(nn.Linear):
    """Module that changes its samples, as a usual loop allows, whose batches are copies."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.mul_(2))


@pytest.mark.parametrize("count", [1, 3])
def test_a_model_that_changes_its_samples_changes_no_other_ones(count, monkeypatch):
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.model("own_doubles")(lambda config, shape, classes: Doubles(shape[0], classes))
    hpo.model("own_plain")(lambda config, shape, classes: nn.Linear(shape[0], classes))
    configs = [own(["own_doubles", "own_plain"][i % 2], learning_rate=0.01, seed=i) for i in range(count)]
    on = data(configs[0])
    before = on.x_train.clone(), on.x_val.clone()
    found = train(configs, on)
    assert torch.equal(on.x_train, before[0])
    assert torch.equal(on.x_val, before[1])
    for config_, each in zip(configs, found, strict=True):
        (expected,) = train([config_], data(configs[0]))
        assert each.history[-1]["val_loss"] == pytest.approx(expected.history[-1]["val_loss"], rel=1e-4)


class Rounds(Callback):
    """Callback that notes how many report before they are judged."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def on_round(self, members) -> None:
        self.sizes.append(len(members))


def run_stack(use, monkeypatch, callbacks=()) -> list[TrainResult]:
    """Train three trials by a loop that builds a stack and calls `use(stack, x, y)` in each of two epochs."""

    def steps(trial: hpo.Trial) -> None:
        stack = trial.stack(lambda config: nn.Sequential(nn.Flatten(), nn.Linear(6, config.width), nn.Linear(8, 3)))
        x, y = trial.data.x_train[:12], trial.data.y_train[:12]
        for _ in stack.epochs():
            use(stack, x, y)

    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))
    hpo.training_loop("own_steps", uses=["epochs", "learning_rate", "batch_size", "width"], stack=True)(steps)
    configs = [TrialConfig(model="own_steps", width=8, epochs=2, learning_rate=0.01 * (i + 1)) for i in range(3)]
    return train(configs, data(configs[0]), TrainSettings(callbacks=callbacks))


def test_a_loop_may_begin_with_batches_of_their_own(monkeypatch):
    def use(stack, x, y):
        shared = x.view(3, 4, 6), y.view(3, 4)
        stack.report(val_loss=stack.step(*shared, F.cross_entropy), val_accuracy=0.5)

    rounds = Rounds()
    found = run_stack(use, monkeypatch, [rounds])
    assert [[row["val_accuracy"] for row in each.history] for each in found] == [[0.5, 0.5]] * 3
    assert len({each.history[0]["val_loss"] for each in found}) > 1
    assert rounds.sizes == [3]  # of the first epoch, once all have reported; no pruner is asked after the last


def test_a_report_of_too_few_numbers_is_one_line(monkeypatch):
    line = "stack.report: val_loss has 2 numbers for 3 trials; give one for each of stack.trials"
    with pytest.raises(RunError, match=line):
        run_stack(lambda stack, x, y: stack.report(val_loss=[1.0, 2.0]), monkeypatch)


def test_rates_may_be_a_tensor_of_one_for_each_trial(monkeypatch):
    def use(stack, x, y):
        stack.report(val_loss=stack.step(x, y, F.cross_entropy, torch.tensor([0.0, 0.0, 0.1])), val_accuracy=0.5)

    changes = [each.history[1]["val_loss"] - each.history[0]["val_loss"] for each in run_stack(use, monkeypatch)]
    assert changes[:2] == pytest.approx([0, 0], abs=1e-6)  # nothing was learned
    assert changes[2] < -1e-3
    with pytest.raises(RunError, match=r"stack\.step has 2 rates for 3 trials; give one for each"):
        run_stack(lambda stack, x, y: stack.step(x, y, F.cross_entropy, [0.1, 0.1]), monkeypatch)


def test_a_loop_that_does_not_ask_for_stacks_has_none():
    with pytest.raises(RunError, match=r"trial\.stack needs @hpo\.training_loop\('own_other', …, stack=True\)"):
        train([TrialConfig(model="own_other", epochs=1)], data(own()))


__all__ += ["CPU"]
