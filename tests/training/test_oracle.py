"""The oracle itself, against finite differences."""

import numpy as np
import pytest

from tests.training import oracle

LOSSES = {
    "cross_entropy": oracle.cross_entropy,
    "smoothed": lambda outputs, y: oracle.cross_entropy(outputs, y, 0.2),
    "mse": oracle.mse,
}


WEIGHTS = np.random.default_rng(2).uniform(0.2, 2, 6)
COLUMN_LOSSES = {
    "binary_cross_entropy": oracle.binary_cross_entropy,
    "mse": oracle.squared_error,
    "mae": oracle.absolute_error,
    "huber": lambda outputs, y, w: oracle.huber(outputs, y, w, 0.7),
    "gaussian_nll": oracle.gaussian_nll,
}


@pytest.mark.parametrize("w", [None, WEIGHTS])
@pytest.mark.parametrize("loss", COLUMN_LOSSES)
def test_gradients_of_labels_and_targets_are_finite_differences(loss, w):
    rng = np.random.default_rng(1)
    outputs = rng.normal(size=(6, 4 if loss == "gaussian_nll" else 2))
    y = rng.integers(0, 2, (6, 2)).astype(float) if loss == "binary_cross_entropy" else rng.normal(size=(6, 2))
    grad = COLUMN_LOSSES[loss](outputs, y, w)[1]
    for place in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[place] = 1e-6
        ends = [COLUMN_LOSSES[loss](outputs + sign * step, y, w)[0] for sign in (1, -1)]
        assert grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("activation", oracle.ACTIVATIONS)
def test_gradients_are_finite_differences(activation, loss):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(6, 5)), rng.integers(0, 3, 6)
    model = oracle.Mlp.random((5, 4, 4, 3), activation)
    grads = model.gradients(x, LOSSES[loss](model.forward(x)[0], y)[1])
    for value, grad in zip(model.parameters, grads, strict=True):
        for place in list(np.ndindex(value.shape))[:5]:
            ends = []
            for step in (1e-6, -1e-6):
                value[place] += step
                ends.append(LOSSES[loss](model.forward(x)[0], y)[0])
                value[place] -= step
            assert grad[place] == pytest.approx((ends[0] - ends[1]) / 2e-6, rel=1e-5, abs=1e-8)
