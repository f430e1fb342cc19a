"""Domains and search spaces: parsing, validation, sampling, grids."""

from hpo.space.domains import Choices, Constant, Float, Int
from hpo.space.learned import ExtendedSpace, LearnedSpace
from hpo.space.space import Dimension, Space

__all__ = ["Choices", "Constant", "Dimension", "ExtendedSpace", "Float", "Int", "LearnedSpace", "Space"]
