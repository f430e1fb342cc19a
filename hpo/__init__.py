"""Hyperparameter optimization for PyTorch."""
