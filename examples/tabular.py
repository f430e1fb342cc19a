"""A table of numbers, and a model of one's own for it: `hpo launch ./tabular.toml --import tabular`."""

from __future__ import annotations

from sklearn.datasets import load_breast_cancer
from torch import nn

import hpo


@hpo.dataset("breast_cancer")
def breast_cancer() -> hpo.Dataset:
    """569 samples of 30 features, benign or malignant (Wolberg et al., 1995); every fifth one is for the test."""
    x, y = load_breast_cancer(return_X_y=True)
    return hpo.Dataset(
        train=(x[[i % 5 > 0 for i in range(569)]], y[[i % 5 > 0 for i in range(569)]]), test=(x[::5], y[::5])
    )


@hpo.model("tabular", uses=["width", "dropout"])
def tabular(config: hpo.TrialConfig, shape: tuple[int, ...], classes: int) -> nn.Module:
    """A self-normalizing layer (Klambauer et al., 2017) and the outputs."""
    hidden = [nn.Linear(shape[0], config.width), nn.SELU(), nn.AlphaDropout(config.dropout)]
    return nn.Sequential(*hidden, nn.Linear(config.width, classes))
