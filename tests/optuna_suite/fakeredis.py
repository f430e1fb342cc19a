"""An empty module in the place of fakeredis: Optuna's tests on Redis, which have nothing to do with ours, are not
run.
"""
