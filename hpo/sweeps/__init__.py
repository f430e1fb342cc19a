"""Weights & Biases sweep files, read as studies."""

from hpo.sweeps.sweep import Imported, import_sweep, write_study

__all__ = ["Imported", "import_sweep", "write_study"]
