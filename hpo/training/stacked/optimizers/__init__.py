"""Optimizers of stacked weights: each formula once for all members, with settings broadcast over the stack.

The formulas, and the order of their operations, are those of torch.optim; the sources are named there.
"""

from hpo.training.stacked.optimizers.base import Clip, StackedOptimizer
from hpo.training.stacked.optimizers.make import make_stacked_optimizer, optimizer_family

__all__ = ["Clip", "StackedOptimizer", "make_stacked_optimizer", "optimizer_family"]
