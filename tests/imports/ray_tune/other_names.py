"""Functions of Ray Tune under other names, and all that make domains of numbers."""

import ray.tune as rt
from ray.tune import loguniform as lu
from ray.tune.schedulers import MedianStoppingRule
from ray.tune.search import ConcurrencyLimiter
from ray.tune.search.optuna import OptunaSearch

WIDTHS = [2**power for power in range(4, 8)]

space = dict(  # noqa: C408
    depth=rt.randint(1, 4),
    width=rt.choice(WIDTHS),
    lr=lu(1e-4, 1e-1, base=2),
    dropout=rt.quniform(0.0, 0.5, 0.1),
    batch_size=rt.qrandint(32, 128, 32),
    epochs=rt.lograndint(2, 17),
    label_smoothing=rt.uniform(lower=0.0, upper=0.2),
)
space["weight_decay"] = lu(1e-6, 1e-2)
space.update({"activation": rt.choice(("relu", "tanh"))})


def train(config):
    rt.report({"val_loss": config["lr"]})


tuner = rt.Tuner(
    train,
    param_space=space,
    tune_config=rt.TuneConfig(
        metric="val_loss",
        mode="min",
        num_samples=40,
        time_budget_s=60 * 60,
        search_alg=ConcurrencyLimiter(OptunaSearch(), max_concurrent=4),
        scheduler=MedianStoppingRule(time_attr="training_iteration", grace_period=2, min_samples_required=4),
    ),
)
