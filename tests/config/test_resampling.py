"""Resampling of trials: which fits a trial has, in which order, and from which seeds."""

from __future__ import annotations

from typing import Any

import pytest

from hpo.config.resampling import Division, Fit, Resampling, derive_split_seed
from hpo.config.trial_config import TrialConfig
from hpo.errors import ConfigError

CONFIG = TrialConfig(seed=3)


def test_a_trial_without_resampling_has_one_fit_of_its_own_configuration() -> None:
    (fit,) = Resampling().fits
    assert fit == Fit(0, None)
    assert fit.config(CONFIG) is CONFIG
    assert fit.name == "the only fit"


def test_the_folds_of_the_first_repeat_come_first_then_repeats_then_seeds() -> None:
    fits = Resampling(folds=2, repeats=2, seeds=2).fits
    assert [fit.number for fit in fits] == list(range(8))
    places = [(fit.seed, fit.repeat, fit.division and fit.division.index) for fit in fits]
    assert places == [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 1, 1), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1)]
    assert fits[6].name == "fold 1 of 2, repeat 2 of 2, seed 2 of 2"


def test_fits_are_named_by_what_they_differ_in() -> None:
    assert Resampling(holdout=10).fits[3].name == "split 4 of 10"
    assert Resampling(seeds=3).fits[1].name == "seed 2 of 3"
    assert Resampling(folds=5, by="time").fits[1].division == Division("fold", 5, 1, 0, "time")


def test_each_repeat_and_replica_has_a_training_seed_of_its_own_on_the_same_split() -> None:
    fits = Resampling(folds=3, repeats=3, seeds=2).fits
    configs = [fit.config(CONFIG) for fit in fits]
    assert {config.seed_of_split for config in configs} == {3}
    by_place = {(fit.seed, fit.repeat): config.seed for fit, config in zip(fits, configs, strict=True)}
    assert by_place[0, 0] == 3
    assert len(set(by_place.values())) == 6
    assert [fit.config(CONFIG) for fit in fits] == configs
    split = TrialConfig(seed=3, split_seed=8)
    assert {fit.config(split).seed_of_split for fit in fits} == {8}
    assert [fit.config(split).seed for fit in fits] == [config.seed for config in configs]


def test_the_fits_in_words() -> None:
    assert Resampling(folds=5, repeats=3).text == "5 folds x 3 repeats: 15 fits a trial"
    assert Resampling(folds=5, by="group").text == "5 folds by group: 5 fits a trial"
    assert Resampling(holdout=10, seeds=2).text == "10 random splits x 2 seeds: 20 fits a trial"
    assert Resampling(seeds=3, intensify=True).text == "3 seeds: 3 fits a trial, few of them at first"


@pytest.mark.parametrize(
    ("keys", "line"),
    [
        ({"folds": 1}, "folds = 1: must be from 2 to 1,000; leave it out for one validation split"),
        ({"holdout": 0}, "holdout = 0: must be from 2 to 1,000; leave it out for one validation split"),
        ({"folds": 10**6}, "folds = 1000000: must be from 2 to 1,000"),
        ({"seeds": 0}, "seeds = 0: must be from 1 to 1,000"),
        ({"repeats": 3}, "repeats = 3: repeats a division into folds; give folds too, or seeds instead"),
        ({"holdout": 3, "repeats": 2}, "repeats = 2: repeats a division into folds; give a larger holdout"),
        ({"folds": 3, "holdout": 3}, "holdout = 3: a trial has folds or random splits, not both; remove one"),
        ({"by": "group"}, "by = 'group': says what folds go by; give folds too"),
        ({"folds": 3, "by": "time", "repeats": 2}, "repeats = 2: folds by time are the same each time; remove repeats"),
        ({"folds": 100, "seeds": 11}, "100 folds x 11 seeds: 1100 fits a trial: at most 1,000 are possible"),
        ({"intensify": True}, "intensify = true: a trial has one fit; give folds, holdout or seeds"),
    ],
)
def test_what_is_impossible_is_one_line(keys: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Resampling(**keys)
    assert str(caught.value).startswith(line)


def test_splits_of_trials_follow_from_the_study_and_the_number() -> None:
    seeds = [derive_split_seed(study, number) for study in (0, 1) for number in range(50)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**32 for seed in seeds)
    assert derive_split_seed(0, 0) == 1500672085  # stored studies go on with theirs
