"""The oracle itself, against finite differences."""

import numpy as np
import pytest

from tests.training import oracle

LOSSES = {
    "cross_entropy": oracle.cross_entropy,
    "smoothed": lambda outputs, y: oracle.cross_entropy(outputs, y, 0.2),
    "mse": oracle.mse,
}


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
