"""Comparison with other tools for hyperparameter search: the same task, space, budget and machine.

`make rivals`, or `python -m benchmarks.rivals --help` in the environment that it makes.
"""
