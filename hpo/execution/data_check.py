"""Check of a study's data, once: what its first worker finds is kept with the study, for its report."""

from __future__ import annotations

import logging
from functools import partial
from pathlib import Path

from hpo.datasets import (
    DataFacts,
    Dataset,
    collect_facts,
    divide_rows,
    guess_task,
    list_serious_issues,
    read_labels,
)
from hpo.datasets.file_digest import digest_file
from hpo.datasets.fold_split import goes_by_time
from hpo.datasets.readers import check_digest
from hpo.errors import ConfigError, DataError, HpoError, RequestError
from hpo.execution.data_parameters import describe_data_parameters
from hpo.study import Definition, Study
from hpo.training.process_state import contain_user_code
from hpo.utils.text import shorten, summarize_error

__all__ = ["check_data", "check_divisions", "check_weights"]

log = logging.getLogger("hpo.execution.worker")


def check_weights(definition: Definition) -> None:
    """Refuse files of pretrained weights that are missing, or not those of the study.

    Raises:
        DataError: names the file.
    """
    for name, sha256 in definition.weights.items():
        path = Path(name)
        if not path.is_file():
            raise DataError(
                f"{shorten(name, quote=False)}: the study's pretrained weights are not here; put the file there"
            )
        check_digest(path, {name: digest_file(path)}, {name: sha256})


def check_data(study: Study, dataset: Dataset) -> None:
    """Look at a study's data, unless a worker has done so, and keep and log what is found.

    Test data are compared with the training data where they lie in a file, which was read at the launch as well. Those
    of a registered function are left alone until they are evaluated.

    Args:
        study: the study, or its evaluation, which looks for the study.
        dataset: its data set, as `hpo.datasets.load` returns it.

    Raises:
        DataError: its groups or times allow no split.
    """
    try:
        owner = _find_owner(study)
        known = owner.data_facts
        tests = dataset.test is not None and (study.definition.evaluation is not None or _is_file(dataset, owner))
        if known is None or (tests and known.test is None):
            found = _collect(owner, dataset, tests=tests)
            if found is not None and owner.record_data_facts(found):
                for line in list_serious_issues(found):
                    log.warning("%s", line)
    except DataError as error:
        raise DataError(f"{study.definition.dataset.name}: {error}") from error
    except (HpoError, MemoryError) as error:  # of the split, which its trials will name; nothing is lost but a note
        log.info("the data were not checked: %s", error)


def check_divisions(definition: Definition, dataset: Dataset) -> None:
    """Refuse folds, splits of each trial's own, or a search over a split, that the data do not allow.

    Args:
        definition: of the study.
        dataset: its data set, as `hpo.datasets.load` returns it.

    Raises:
        ConfigError: there are too few samples, or too few of a class, or for the objective; or each split would be the
            same.
        DataError: there are too few groups or times, or none although folds go by them; or the data are batches.
    """
    resampling, division, name = definition.resampling, definition.fits[0].division, definition.dataset.name
    if definition.resplit == "per_trial":
        _check_resplit(dataset, name, divides=division is not None)
    own, batches = dataset.validation is not None, dataset.labels is None
    lines = describe_data_parameters(definition, own_validation=own, batches=batches)
    if definition.dataset.samples is None:  # of others the launch has said it
        for line in lines:
            log.warning("%s", line)
    if resampling is None or division is None:
        return
    if dataset.labels is None:
        raise DataError(f"{resampling.division}: {name} gives batches, which cannot be divided; use seeds")
    if goes_by_time(division, dataset.times) and resampling.repeats > 1:
        raise ConfigError(f"repeats = {resampling.repeats}: folds by time are the same each time; remove repeats")
    config = definition.baseline_config(definition.space)
    task = dataset.task or guess_task(dataset.labels)
    labels = read_labels(dataset.labels, name, task)
    rows = dataset.groups, dataset.times
    try:
        _, held = divide_rows(labels, division, config.seed_of_split, task, *rows, share=config.validation)
    except RequestError as error:
        raise type(error)(f"{name}: {error}") from error
    fewest = len(held) if division.kind == "holdout" else min(len(held), len(labels) // division.count)
    if fewest < 2 and any(objective.metric == "val_r2" for objective in definition.objectives):
        raise ConfigError(
            f"{resampling.division}: of {len(labels):,} samples of {name} one validates, for which val_r2, a "
            "comparison with their mean, is not defined; let more validate, or take objective = 'val_loss'"
        )
    if dataset.validation is not None:
        log.warning(
            "%s: divides the training samples of %s; its own validation samples are left out", resampling.division, name
        )


def _check_resplit(dataset: Dataset, name: str, *, divides: bool) -> None:
    """Refuse splits of each trial's own where none is drawn, or none at random."""
    why = None
    if dataset.times is not None:
        why = "has times, of which the latest always validate"
    elif not divides and dataset.validation is not None:
        why = "has validation samples of its own, so that none are drawn"
    if why is not None:
        raise ConfigError(f"resplit = 'per_trial': {name} {why}; leave resplit out")


def _find_owner(study: Study) -> Study:
    """Return the study whose data they are: of an evaluation on the study's own data the study."""
    evaluation = study.definition.evaluation
    if evaluation is None:
        return study
    owner = Study(study.storage, evaluation.of)
    return owner if owner.definition.dataset == study.definition.dataset else study


def _is_file(dataset: Dataset, study: Study) -> bool:
    return not callable(dataset.test) or bool(study.definition.dataset.sha256)


def _collect(study: Study, dataset: Dataset, *, tests: bool) -> DataFacts | None:
    config, division = study.definition.baseline_config(study.space), study.definition.fits[0].division
    collect = partial(
        collect_facts, dataset, config.validation, config.seed_of_split, division=division, integers=config.integers
    )
    if tests:
        try:
            return collect(test=_read_test(dataset))
        except Exception as error:  # a function of the user's can raise anything, and does so again as it is evaluated
            log.info("the test data were not compared with the training data: %s", summarize_error(error))
    return collect()


@contain_user_code()
def _read_test(dataset: Dataset) -> object:
    return dataset.test() if callable(dataset.test) else dataset.test
