"""The loss around a model, against the model's own loss and the norms of its filters."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from hpo.config.trial_config import TrialConfig
from hpo.training.inspection.loss_landscape import compute_landscape, random_directions
from hpo.training.learner import ModuleLearner
from hpo.training.losses import loss_function
from hpo.training.member import Member
from hpo.training.models import build_model

SHAPE, CLASSES = (1, 8, 8), 3
MODELS = [
    {"widths": "16-8", "batch_norm": True},
    {"model": "cnn", "channels": 4, "dense_width": 8, "batch_norm": True, "loss": "mse"},
]


def samples(count: int = 40, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, *SHAPE, generator=generator), torch.arange(count) % CLASSES


@pytest.mark.parametrize("parameters", MODELS)
def test_the_middle_is_the_model_itself(parameters: dict[str, object]) -> None:
    config = TrialConfig(**parameters, label_smoothing=0.1 if "loss" not in parameters else 0.0)
    learner = ModuleLearner(Member(config), SHAPE, CLASSES, torch.device("cpu"))
    x, y = samples()
    before = {name: value.clone() for name, value in learner.module.state_dict().items()}
    found = compute_landscape(learner.module, loss_function(config, smoothing=False), x, y, seed=3, points=5)
    own = learner.evaluate(x, y)[0]
    assert found.steps[2] == 0
    assert found.losses[2, 2] == pytest.approx(own.scores["loss"], rel=1e-6)
    assert found.accuracies[2, 2] == pytest.approx(own.scores["accuracy"])
    assert found.samples == 40
    after = learner.module.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_point_is_the_loss_of_the_weights_moved_there() -> None:
    model = build_model(TrialConfig(widths="16-8"), SHAPE, CLASSES)
    x, y = samples()
    loss = loss_function(TrialConfig())
    found = compute_landscape(model, loss, x, y, seed=3, points=5)
    first, second = random_directions(model, 3)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in first:
                weight.add_(0.5 * first[name] - second[name])
        assert found.losses[0, 3] == pytest.approx(loss(model(x), y).item(), rel=1e-5)


@pytest.mark.parametrize("parameters", MODELS)
def test_filters_of_a_direction_have_the_norms_of_the_models(parameters: dict[str, object]) -> None:
    model = build_model(TrialConfig(**parameters), SHAPE, CLASSES)
    layers = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)}
    first, second = random_directions(model, 0)
    assert set(first) == set(second) == {f"{name}.weight" for name in layers}  # neither biases nor normalisations
    for name, layer in layers.items():
        norms = layer.weight.detach().flatten(1).norm(dim=1)
        for direction in (first, second):
            torch.testing.assert_close(direction[f"{name}.weight"].flatten(1).norm(dim=1), norms)


def test_directions_follow_from_the_seed_and_are_no_initial_weights() -> None:
    model = build_model(TrialConfig(seed=5, init="normal", widths="64"), SHAPE, CLASSES)
    first, second = random_directions(model, 5)
    torch.rand(3)
    again, _ = random_directions(model, 5)
    assert all(torch.equal(first[name], again[name]) for name in first)
    weight = model[1].weight.detach().flatten()
    for one, other in (
        (first["1.weight"], weight),
        (second["1.weight"], weight),
        (first["1.weight"], second["1.weight"]),
    ):
        cosine = torch.nn.functional.cosine_similarity(one.flatten(), other.flatten(), dim=0)
        assert abs(cosine) < 4 / 4096**0.5  # four deviations of independent ones
    assert not torch.equal(first["1.weight"], random_directions(model, 6)[0]["1.weight"])


def test_the_same_map_twice() -> None:
    model = build_model(TrialConfig(widths="8"), SHAPE, CLASSES)
    x, y = samples()
    one, other = (compute_landscape(model, loss_function(TrialConfig()), x, y, seed=1, points=3) for _ in range(2))
    assert np.array_equal(one.losses, other.losses)
    assert np.isfinite(one.losses).all()
