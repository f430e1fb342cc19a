"""Models of trials, restored from the weights that their study keeps."""

from __future__ import annotations

import logging
import shlex
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial
from torch import nn

from hpo.config import registry
from hpo.config.trial_config import TrialConfig
from hpo.errors import RequestError
from hpo.storage.study_storage import ENVIRONMENT
from hpo.study import Study
from hpo.study.attributes import read_table
from hpo.study.files.study_files import KEPT, weights_path
from hpo.training.data import Data
from hpo.training.data_cache import DataCache
from hpo.training.device import select_device
from hpo.training.models import restore_model
from hpo.utils.home import home

__all__ = ["RestoredTrial", "choose_trial", "locate_weights", "restore"]

log = logging.getLogger("hpo.execution")


@dataclass(frozen=True)
class RestoredTrial:
    """Trial with its model at its best epoch.

    Attributes:
        trial: the trial.
        config: its configuration.
        data: the data that it was trained on, prepared as they were.
        model: its model, on the data's device.
        weights: file of the weights.
    """

    trial: FrozenTrial
    config: TrialConfig
    data: Data
    model: nn.Module
    weights: Path


def choose_trial(study: Study, number: int | None = None) -> FrozenTrial:
    """Return the trial of that number, or the best one.

    Raises:
        RequestError: there is no such trial, or no trial is complete.
    """
    if number is None:
        best = study.best()
        if best is None:
            raise RequestError(f"study '{study.name}': no trial is complete yet, so there is no best model")
        return best
    for trial in study.trials():
        if trial.number == number:
            return trial
    raise RequestError(f"study '{study.name}' has no trial {number}; see hpo trials {shlex.quote(study.name)}")


def locate_weights(study: Study, trial: FrozenTrial) -> Path:
    """Return the file of a trial's weights.

    Raises:
        RequestError: they are not here, or none are kept.
        RegistryError: the study's data set, or its model, is not here.
    """
    study.check_configured("weights")
    path = weights_path(study, trial.number)
    study.definition.check_registered()
    config = study.config_of(trial)
    if registry.models.get(config.model).loop:
        where = f"its weights are in {path}" if path else "none of its weights are here"
        raise RequestError(
            f"study '{study.name}': only the training loop '{config.model}' can build the model of trial "
            f"{trial.number}; {where}"
        )
    if path is None and study.definition.several_fits:
        name = shlex.quote(study.name)
        raise RequestError(
            f"study '{study.name}': trial {trial.number} has {len(study.definition.fits)} fits, and no weights of fits "
            f"are kept; train its configuration on all of its data with: hpo evaluate {name} --refit, or once more "
            f"with: hpo export {name} --trial {trial.number} > best.toml && hpo train --config best.toml --out DIR"
        )
    if path is None:
        kept = f"{KEPT} runs of the best configurations" if study.definition.refit else f"the {KEPT} best trials"
        raise RequestError(
            f"study '{study.name}': the weights of trial {trial.number} are not in {home()}, where those of {kept} are "
            "kept; set HPO_HOME to the folder of the workers that trained it, or train it again with "
            f"hpo reproduce {shlex.quote(study.name)} {trial.number} --out DIR"
        )
    return path


def restore(study: Study, number: int | None = None, device: str = "auto") -> RestoredTrial:
    """Return the best trial, or trial `number`, with its model on the device.

    Where the data are no file, whose content is checked, and are others than those of the training, that is logged.

    Raises:
        RequestError: there is no such trial, or its weights are missing or another model's.
        DataError, RegistryError: the study's data set, or its model, is not here.
    """
    trial = choose_trial(study, number)
    path = locate_weights(study, trial)
    config = study.config_of(trial)
    data = DataCache(study.definition.dataset, select_device(device)).get(config)
    _compare_data(study, trial, data)
    model = restore_model(config, data.shape, data.classes, path)
    return RestoredTrial(trial, config, data, model.to(data.device), path)


def _compare_data(study: Study, trial: FrozenTrial, data: Data) -> None:
    """Warn of data that are not those of the training; those of files cannot be others.

    It is no error, for on another machine the scaling of the same data may be rounded otherwise.
    """
    recorded = read_table(trial.system_attrs, ENVIRONMENT).get("data")
    if recorded is None or recorded == data.digest or study.definition.dataset.sha256:
        return
    log.warning(
        "trial %d of study '%s' was trained on other data than '%s' gives now (labels or scaling differ), so its "
        "weights may not fit their preprocessing; train it again on these with hpo reproduce %s %d --out DIR",
        trial.number,
        study.name,
        data.name,
        shlex.quote(study.name),
        trial.number,
    )
