"""Reference models of a study of a table: trained once, by a worker at its end, and kept with the study's files."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from statistics import fmean
from typing import Any

import numpy as np

from hpo.config import registry
from hpo.config.registry import MetricEntry
from hpo.config.resampling import Division
from hpo.config.trial_config import TrialConfig
from hpo.datasets import is_split
from hpo.report.data.reference_models import (
    ReferenceModel,
    ReferenceModels,
    read_reference_models,
    save_reference_models,
)
from hpo.study import Study
from hpo.study.definition import Definition, test_metric
from hpo.study.operations.evaluation_study import REFERENCE, record_test_set_read
from hpo.training.data import Batch, Data
from hpo.training.data_cache import DataCache
from hpo.training.predictions import SplitName, SplitPredictions
from hpo.training.reference_models import FittedReference, describe_unfit, fit_reference_models
from hpo.utils.text import quantity, summarize_error

__all__ = ["train_reference_models"]

log = logging.getLogger("hpo.execution.worker")
Array = np.ndarray[Any, Any]
SPLITS: dict[str, SplitName] = {"val": "validation", "test": "test"}
CLAIM = "hpo:reference_models"  # the split that a worker has begun them on


def train_reference_models(study: Study, data: DataCache, should_stop: Callable[[], bool] = lambda: False) -> None:
    """Train and score reference models on the split of the study's best trial, unless that has been done.

    Where trials are fitted on several, so are they, on those of the first repeat, and scores are means. An evaluation
    has them scored on the test set as well, which is recorded as one more read of it. Whatever fails is logged, and
    nothing else suffers from it.

    Args:
        study: a study or an evaluation.
        data: the worker's prepared data.
        should_stop: asked between models.
    """
    try:
        train = data.load().train
        if not is_split(train) or len(train[0].shape) != 2:  # type: ignore[index]  # is_split says that it is a tuple
            return  # no table: nothing is asked of the database
        config = _choose_config(study)
        if config is not None and _is_new(study, _name_split(study.definition, config)):
            _train(study, data, config, should_stop)
    except ImportError:
        log.info("scikit-learn is not installed: the report has no gradient boosting to compare with")
    except Exception as error:  # of scikit-learn, or of a metric of the user's
        log.warning("reference models: not trained (%s)", summarize_error(error))


def _choose_config(study: Study) -> TrialConfig | None:
    """Return the configuration of the best trial; None without one."""
    best = study.best() if study.definition.configured else None
    return None if best is None else study.config_of(best)


def _name_split(definition: Definition, config: TrialConfig) -> str:
    divided = None if definition.resampling is None else definition.resampling.division
    return f"{divided or f'validation {config.validation:g}'}, seed {config.seed_of_split}"


def _is_new(study: Study, split: str) -> bool:
    known = read_reference_models(study)
    return known is None or known.split != split


def _train(study: Study, data: DataCache, config: TrialConfig, should_stop: Callable[[], bool]) -> None:
    divisions = list(dict.fromkeys(fit.division for fit in study.definition.fits if not fit.repeat))
    prepared, split = data.get(config, divisions[0]), _name_split(study.definition, config)
    if why := describe_unfit(prepared, config):
        log.debug("no reference models: %s", why)
        return
    before = study.storage.get_study_user_attrs(study.id).get(CLAIM)
    if before == split or not study.storage.update_study(study.id, {CLAIM: before}, {CLAIM: split}):
        return  # of several workers the first does it
    folds = [_train_on(study, data.get(config, each), config, should_stop) for each in divisions]
    if not folds[-1]:
        return
    models = tuple(_average([model for model, _ in fits]) for fits in zip(*folds, strict=False))
    predictions = _pack([found for _, found in folds[0]]) if len(folds) == 1 else {}  # of folds none are paired
    found = ReferenceModels(
        split=split, samples=len(prepared.y_train), divided=_describe_divisions(divisions), models=models
    )
    save_reference_models(study, found, predictions)
    for each in models:
        log.info(
            "%s: %s, in %.1f s", each.name, {name: round(value, 5) for name, value in each.scores.items()}, each.seconds
        )


def _describe_divisions(divisions: list[Division | None]) -> str:
    """Return the folds or random splits in words; nothing of one split."""
    first = divisions[0]
    return "" if first is None else quantity(first.count, "fold" if first.kind == "fold" else "random split")


def _train_on(
    study: Study, prepared: Data, config: TrialConfig, should_stop: Callable[[], bool]
) -> list[tuple[ReferenceModel, dict[str, SplitPredictions]]]:
    """Train the models on one division of the data, and return them with their scores and predictions."""
    fitted = fit_reference_models(prepared, config, should_stop)
    splits: dict[str, Batch] = {}
    if len(prepared.y_val):
        splits["val"] = (prepared.x_val, prepared.y_val)
    evaluation = study.definition.evaluation
    if fitted and evaluation is not None and evaluation.tested:
        record_test_set_read(study, REFERENCE, fitted[0].name)
        splits["test"] = prepared.test()
    entries = [registry.metrics.get(name) for name in study.definition.metrics]
    return [_score(each, config, prepared, splits, entries) for each in fitted]


def _average(models: list[ReferenceModel]) -> ReferenceModel:
    """Return a model of several divisions: its scores are means, and its seconds a sum."""
    names = dict.fromkeys(name for model in models for name in model.scores)
    scores = {name: fmean(model.scores.get(name, math.nan) for model in models) for name in names}
    return models[0].model_copy(update={"scores": scores, "seconds": round(sum(m.seconds for m in models), 3)})


def _score(
    fitted: FittedReference, config: TrialConfig, data: Data, splits: dict[str, Batch], entries: list[MetricEntry]
) -> tuple[ReferenceModel, dict[str, SplitPredictions]]:
    scores: dict[str, float] = {}
    predictions: dict[str, SplitPredictions] = {}
    for split, batch in splits.items():
        found = fitted.predict(config, data, batch, entries)
        predictions[SPLITS[split]] = found
        scores |= {f"{split}_{name}": value for name, value in found.scores.items()}
        named = {name if split == "val" else test_metric(name): value for name, value in found.metrics.items()}
        scores |= {name: value for name, value in named.items() if name is not None}
    model = ReferenceModel(name=fitted.name, scores=scores, seconds=round(fitted.seconds, 3), note=fitted.note)
    return model, predictions


def _pack(predictions: list[dict[str, SplitPredictions]]) -> dict[str, Array]:
    """Return what is true and what each model predicts, by which a report pairs rows; nothing of several labels."""
    arrays: dict[str, Array] = {}
    for place, splits in enumerate(predictions):
        for split, found in splits.items():
            if "targets" in found.arrays:
                truth, predicted = found.arrays["targets"], found.arrays["predictions"]
            elif "mistakes" in found.arrays:
                truth, predicted = found.arrays["labels"], found.arrays["probabilities"].argmax(1)
            else:
                continue
            arrays[f"{split}_truth"], arrays[f"{split}_{place}"] = truth, predicted
    return arrays
