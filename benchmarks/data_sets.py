"""Scores on data sets of each kind, beside gradient boosting and a linear model of scikit-learn on the same rows.

`python -m benchmarks.data_sets [NAME …]` launches `quickstart` on each, evaluates its best configuration from fresh
seeds on the held-out test rows, and prints a row of its score with the 95 % interval, the two reference models of the
report, and the seconds of study and evaluation.
"""

from __future__ import annotations

import math
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import optuna
import polars as pl
from PIL import Image

import hpo
from hpo.datasets import fashion_mnist, load
from hpo.report.data.evaluations import read_evaluations
from hpo.report.stats.evaluation_stats import compare_candidates
from hpo.study import Study, StudyStorage
from hpo.study.definition import test_metric

PICTURES, SEEDS = 3000, 5


def parquet(folder: Path) -> dict[str, object]:
    """Write a Parquet file of mixed columns with missing values: flights with delays that follow from them."""
    rng, rows = np.random.default_rng(0), 20_000
    carrier = rng.choice(["AA", "DL", "UA", "WN", "B6"], rows, p=[0.3, 0.25, 0.2, 0.2, 0.05])
    hour = rng.integers(5, 24, rows)
    distance = rng.lognormal(6.5, 0.6, rows)
    wind = np.where(rng.random(rows) < 0.1, np.nan, rng.gamma(3, 4, rows))
    late = {"AA": 4.0, "DL": 0.0, "UA": 6.0, "WN": 8.0, "B6": 12.0}
    delay = np.array([late[each] for each in carrier]) + 0.05 * (hour - 5) ** 2 + 0.8 * np.nan_to_num(wind, nan=12)
    delay += 3 * np.log(distance) * (hour > 17) + rng.normal(0, 6, rows)
    day = np.datetime64("2025-01-01") + rng.integers(0, 365, rows)
    columns = {"carrier": carrier, "hour": hour, "distance": distance, "wind": wind, "day": day, "delay": delay}
    pl.DataFrame(columns).with_columns(pl.col("wind").fill_nan(None)).write_parquet(folder / "flights.parquet")
    return {"path": str(folder / "flights.parquet"), "label": "delay"}


def pictures(folder: Path) -> dict[str, object]:
    """Write a folder of PNGs by class, of Fashion-MNIST's first training images."""
    x, y = fashion_mnist().train
    for i in range(PICTURES):
        (folder / "fashion" / f"class{y[i]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(x[i]).save(folder / "fashion" / f"class{y[i]}" / f"{i}.png")
    return {"path": str(folder / "fashion")}


def several_labels(folder: Path) -> dict[str, object]:
    """Write a CSV of several labels per row, by scikit-learn's generator."""
    from sklearn.datasets import make_multilabel_classification

    x, y = make_multilabel_classification(3000, 20, n_classes=5, n_labels=2, random_state=0)
    columns = {f"word{i}": x[:, i] for i in range(20)} | {f"topic{i}": y[:, i] for i in range(5)}
    pl.DataFrame(columns).write_csv(folder / "topics.csv")
    return {"path": str(folder / "topics.csv"), "label": [f"topic{i}" for i in range(5)]}


def by_name(name: str) -> Callable[[Path], dict[str, object]]:
    """Return a function that names a data set of scikit-learn."""
    return lambda _: {"path": f"sklearn:{name}"}


DATA: dict[str, Callable[[Path], dict[str, object]]] = {
    **{name: by_name(name) for name in ("iris", "wine", "digits", "breast_cancer", "diabetes", "linnerud")},
    "parquet": parquet,
    "pictures": pictures,
    "several_labels": several_labels,
}


def measure_on_pixels(study: Study) -> list[str]:
    """Return the test accuracy of both models of scikit-learn on flat images, for which reports have none."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    dataset = load(study.definition.dataset)
    test = dataset.test() if callable(dataset.test) else dataset.test
    assert isinstance(dataset.train, tuple)
    assert isinstance(test, tuple)
    (x, y), (x_test, y_test) = ((np.asarray(x).reshape(len(x), -1), y) for x, y in (dataset.train, test))
    models = {
        "gradient boosting": HistGradientBoostingClassifier(random_state=0),
        "logistic regression": make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000)),
    }
    return [f"{name} {model.fit(x, y).score(x_test, y_test):.4f}" for name, model in models.items()]


def measure(name: str, folder: Path, storage: str) -> str:
    """Return the row of one data set."""
    started = time.perf_counter()
    hpo.launch("quickstart", name=name, dataset=DATA[name](folder), storage=storage, workers=2)
    trained = time.perf_counter()
    hpo.evaluate(name, storage=storage, top=1, seeds=SEEDS, workers=2)
    tested = time.perf_counter()
    study = Study(StudyStorage(storage), name)
    evaluation = read_evaluations(study)[0]
    best, references = compare_candidates(evaluation).best, evaluation.reference_models
    assert best is not None
    assert best.test is not None
    metric = test_metric(study.definition.metrics[0])
    cells = [f"{best.test.mean:.4f} ({best.test.low:.4f} to {best.test.high:.4f})"]
    models = references.models if references else ()
    cells += [f"{each.name} {each.scores.get(str(metric), math.nan):.4f}" for each in models] or measure_on_pixels(
        study
    )
    return " | ".join([name, str(metric), *cells, f"{trained - started:.0f} s", f"{tested - trained:.0f} s"])


def main(names: list[str]) -> None:
    """Print the table."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as place:
        print("data | objective | network, fresh seeds on test rows | reference models | study | evaluation")
        for name in names or DATA:
            print(measure(name, Path(place), f"sqlite:///{place}/benchmark.db"), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
