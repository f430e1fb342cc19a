"""Mixed precision and augmentation of a user's own models, against plain PyTorch."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import hpo
from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError
from hpo.training.callbacks import Callback
from hpo.training.checkpoint import CheckpointSpec
from hpo.training.loop import train
from hpo.training.member import Member, Metrics
from hpo.training.settings import TrainSettings
from hpo.training.stacked import check
from hpo.training.stacked.check import Timing
from tests.training.resumable import bits, data, one, stop_after

SEEN: list[torch.dtype] = []


class Net(nn.Module):
    """Notes the type that its second layer is given."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 16), nn.Linear(16, classes)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        SEEN.append(hidden.dtype)
        return self.second(hidden.relu())


@pytest.fixture(autouse=True)
def _models(monkeypatch: pytest.MonkeyPatch) -> None:
    SEEN.clear()
    monkeypatch.setattr(registry.models, "_entries", dict(registry.models._entries))

    @hpo.model("net", uses=["precision"])
    def net(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
        return Net(classes)


def noisy(x: Tensor, config: TrialConfig) -> Tensor:
    return x + config.learning_rate * torch.randn_like(x)


def config(**parameters) -> TrialConfig:
    rest = {"validation": 20, "epochs": 3, "batch_size": 32, "learning_rate": 0.1, "optimizer": "momentum"}
    return TrialConfig(**{**rest, "model": "net", **parameters})


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_it_computes_in_that_precision_and_learns_in_32_bits(precision: str) -> None:
    given = config(precision=precision, epochs=5)
    outcome = one(given, data(given))
    probes = 1 if precision == "float16" else 2  # of each module that is built; what never stacks is built once
    assert set(SEEN[:probes]) == {torch.float32}
    assert set(SEEN[probes:]) == {getattr(torch, precision)}
    assert {value.dtype for value in outcome.weights.values()} == {torch.float32}
    assert outcome.best["val_accuracy"] > 0.6


@pytest.mark.parametrize("clip", [0.0, 0.05])
def test_float16_does_what_the_loop_in_pytorchs_documentation_does(clip: float) -> None:
    given = config(precision="float16", epochs=2, gradient_clip=clip)
    ours = one(given, data(given))

    on = data(given)
    with torch.random.fork_rng():
        torch.manual_seed(given.seed)
        model = Net(3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    scaler = torch.amp.GradScaler("cpu")
    for epoch in (1, 2):
        for x, y in on.batches(32, epoch):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                outputs = model(x)
            scaler.scale(F.cross_entropy(outputs.float(), y)).backward()
            scaler.unscale_(optimizer)
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            scaler.step(optimizer)
            scaler.update()
    assert ours.best_epoch == 2
    for name, value in model.state_dict().items():
        assert torch.equal(ours.weights[name], value)


def test_a_trial_in_float16_with_augmentation_goes_on_in_the_midst_of_an_epoch_to_the_same_bits(tmp_path: Path) -> None:
    @hpo.model("augmented", uses=["precision"], augment=noisy)
    def augmented(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
        return Net(classes)

    given, path = config(model="augmented", precision="float16"), tmp_path / "0.pt"
    whole = one(given, data(given))
    stopped = one(given, data(given), CheckpointSpec(path, every=3600), should_stop=stop_after(8))
    assert stopped.status == "interrupted"
    assert bits(one(given, data(given), CheckpointSpec(path, resume=True))) == bits(whole)
    assert bits(one(config(precision="float16"), data(given))) != bits(whole)


def test_augmentation_changes_training_batches_alone() -> None:
    changed: list[int] = []

    def counted(x: Tensor, config: TrialConfig) -> Tensor:
        changed.append(len(x))
        return torch.zeros_like(x)

    @hpo.model("blind", augment=counted)
    def blind(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
        return Net(classes)

    given = config(model="blind", epochs=1)
    outcome = one(given, data(given))
    assert sum(changed) == 140  # the training samples, once
    assert (outcome.weights["first.weight"] != 0).any()
    with torch.random.fork_rng():
        torch.manual_seed(given.seed)
        untrained = Net(3)
    assert torch.equal(outcome.weights["first.weight"], untrained.first.weight)  # of zeros nothing is learned there


def test_what_an_augmented_autoencoder_is_to_reproduce_is_the_sample_as_it_was() -> None:
    @hpo.model("denoiser", reconstructs=True, augment=lambda x, _config: torch.zeros_like(x))
    def denoiser(config: TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
        return nn.Linear(8, 8)

    given = config(model="denoiser", epochs=40, optimizer="sgd", loss="mse")
    on = data(given)
    (outcome,) = train([given], on, TrainSettings(monitor="train_loss", direction="minimize"))
    assert torch.allclose(outcome.weights["bias"], on.x_train.mean(0), atol=0.2)  # the best answer to nothing


def test_lbfgs_cannot_have_scaled_losses() -> None:
    with pytest.raises(ConfigError, match="precision = 'float16': its losses are scaled, which lbfgs cannot have"):
        config(precision="float16", optimizer="lbfgs")
    assert config(precision="bfloat16", optimizer="lbfgs").precision == "bfloat16"
    assert "precision" not in TrialConfig().effective()


class Sees(Callback):
    """Callback that keeps how the models of trials are trained."""

    def __init__(self) -> None:
        self.stacks: list[tuple[int, str | None]] = []

    def on_epoch(self, member: Member, metrics: Metrics) -> None:
        self.stacks.append((member.stack, member.alone))


def test_models_in_bfloat16_are_stacked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check, "measure_gain", lambda *_: Timing(2.0, 1.0))
    hpo.model("halves", uses=["precision"])(lambda config, shape, classes: nn.Linear(shape[0], classes))
    configs = [config(model="halves", precision="bfloat16", learning_rate=0.1 * (i + 1)) for i in range(3)]
    sees, on = Sees(), data(configs[0])
    together = train(configs, on, TrainSettings(callbacks=[sees]))
    assert set(sees.stacks) == {(3, None)}
    for each, found in zip(configs, together, strict=True):
        assert found.history[-1]["val_loss"] == pytest.approx(one(each, on).history[-1]["val_loss"], rel=0.02)


class Rows(nn.Module):
    """Model whose normalisation torch stacks in one type alone."""

    def __init__(self) -> None:
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.norm(self.enter(x.unsqueeze(2)).mT).mean(2))


def test_what_a_loop_cannot_stack_in_bfloat16_is_computed_one_by_one() -> None:
    def loop(trial: hpo.Trial) -> None:
        stack, on = trial.stack(lambda _: Rows()), trial.data
        for _ in stack.epochs():
            stack.report(val_loss=stack.step(on.x_train, on.y_train, F.cross_entropy), val_accuracy=0.5)

    hpo.training_loop("halving", uses=["epochs", "learning_rate", "precision"], stack=True)(loop)
    for precision, size in (("float32", 2), ("bfloat16", 1)):
        sees = Sees()
        configs = [
            TrialConfig(model="halving", precision=precision, epochs=2, learning_rate=rate) for rate in (0.1, 0.2)
        ]
        train(configs, data(config()), TrainSettings(callbacks=[sees]))
        assert {stack for stack, _ in sees.stacks} == {size}
