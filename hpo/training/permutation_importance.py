"""Permutation importance: how much worse a model is at samples whose values of one feature are shuffled.

Breiman, "Random Forests", 2001; repeated, so that it has a deviation.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hpo.datasets import Feature

__all__ = ["PermutationImportance", "compute_importance", "list_feature_columns"]

Array = np.ndarray[Any, Any]
REPEATS = 5
ROWS_LIMIT = 2000
FEATURES_LIMIT = 200
SECONDS = 10.0  # after which no further repeat is begun


@dataclass(frozen=True)
class PermutationImportance:
    """Importance of features.

    Attributes:
        features: their names.
        losses: how much worse the score is with the feature's values shuffled, (repeats, features); above 0 is worse.
        score: of the samples as they are.
        samples: how many were used.
    """

    features: Sequence[str]
    losses: Array
    score: float
    samples: int

    def arrays(self) -> dict[str, Array]:
        """Return it as arrays of a file of predictions."""
        return {
            "importance_features": np.array([name[:60] for name in self.features]),
            "importance_losses": self.losses.astype(np.float32),
            "importance_score": np.array(self.score),
            "importance_samples": np.array(self.samples),
        }


def list_feature_columns(features: Sequence[Feature], columns: int) -> list[tuple[str, list[int]]]:
    """List the columns of the file with theirs in the encoded matrix, by which they are shuffled.

    A date is one of them, for its year, month and weekday tell each other; so is a number with its indicator.

    Args:
        features: of a table; empty where each column is a feature without a name.
        columns: of the encoded matrix: scaled numbers, then indicators of missing ones, then codes of categories.
    """
    numbers = [each for each in features if each.kind == "number"]
    indicators = [each.source for each in numbers if each.missing]
    categories = [each.source for each in features if each.kind == "category"]
    names = [*(each.source for each in numbers), *indicators, *categories]
    if len(names) != columns:
        return [(f"feature {i}", [i]) for i in range(columns)]
    places: dict[str, list[int]] = {each.source: [] for each in features}
    for i, name in enumerate(names):
        places[name].append(i)
    return list(places.items())


def compute_importance(
    features: Sequence[tuple[str, list[int]]],
    x: Tensor,
    y: Tensor,
    score: Callable[[Tensor, Tensor], float],
    *,
    maximize: bool,
) -> PermutationImportance | None:
    """Shuffle each feature in turn, several times; None where there is nothing to shuffle, or it takes too long.

    Args:
        features: names with their columns, which are shuffled together.
        x, y: samples (N, columns) and labels.
        score: of a model on samples and labels.
        maximize: whether a larger score is better.
    """
    if not features or len(features) > FEATURES_LIMIT or len(x) < 2:
        return None
    rng = np.random.default_rng(0)
    if len(x) > ROWS_LIMIT:
        chosen = torch.from_numpy(np.sort(rng.choice(len(x), ROWS_LIMIT, replace=False))).to(x.device)
        x, y = x[chosen], y[chosen.to(y.device)]
    sign = 1 if maximize else -1
    begin, base = time.monotonic(), score(x, y)
    losses: list[list[float]] = []
    while len(losses) < REPEATS and time.monotonic() - begin < SECONDS:
        row = []
        for _, columns in features:
            order = torch.from_numpy(rng.permutation(len(x))).to(x.device)
            shuffled = x.clone()
            shuffled[:, columns] = x[order][:, columns]
            row.append(sign * (base - score(shuffled, y)))
            if time.monotonic() - begin > 2 * SECONDS:
                return None
        losses.append(row)
    if len(losses) < 2:
        return None
    return PermutationImportance([name for name, _ in features], np.array(losses), base, len(x))
