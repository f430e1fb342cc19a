"""Optuna's own tests with our storage in the place of its own."""
