"""Cost of asking an adaptive sampler for several trials at once, and when it pays."""

from __future__ import annotations

import pytest

from hpo.study.asking_cost import asking_cost, choose_at_once, most_at_once
from hpo.study.samplers import count_startup_trials, generation_size

LINEAR = {1: 1.0, 2: 2.0, 4: 4.0, 8: 8.0, 16: 16.0}


@pytest.mark.parametrize(
    ("at_once", "workers", "free", "cost"),
    [(1, 1, 1, 0), (1, 9, 1, 0), (8, 1, 1, 5.25), (8, 2, 1, 10.5), (8, 2, 50, 0), (8, 2, 10, 4.5)],
)
def test_each_trial_in_flight_beyond_what_is_drawn_anyway_costs_three_quarters_of_a_trial(
    at_once: int, workers: int, free: int, cost: float
) -> None:
    assert asking_cost(at_once, workers, free) == cost


@pytest.mark.parametrize(
    ("budget", "workers", "free", "most"),
    [(60, 1, 1, 6), (24, 2, 1, 2), (7, 1, 1, 1), (24, 40, 1, 1), (16, 2, 50, 25)],
)
def test_no_more_than_a_share_of_the_budget_is_spent(budget: int, workers: int, free: int, most: int) -> None:
    assert most_at_once(budget, workers, free) == most
    assert asking_cost(most, workers, free) <= budget / 16 < asking_cost(most + 1, workers, free)


@pytest.mark.parametrize(
    ("speeds", "budget", "workers", "chosen"),
    [
        (LINEAR, 60, 1, 4),
        (LINEAR, 24, 2, 2),
        (LINEAR, 1000, 1, 16),
        ({1: 1.0, 2: 1.1, 4: 1.2}, 60, 1, 4),  # 20 % faster, for 2.25 of 60 trials
        ({1: 1.0, 2: 1.15, 4: 1.2}, 60, 1, 2),
        ({1: 1.0, 2: 1.01, 4: 1.05}, 60, 1, 1),
        ({1: 1.0, 2: 0.9}, 60, 1, 1),
        ({1: 1.0}, 60, 1, 1),
    ],
)
def test_the_fewest_are_asked_for_that_reach_the_result_about_soonest(
    speeds: dict[int, float], budget: int, workers: int, chosen: int
) -> None:
    assert choose_at_once(speeds, budget, workers) == chosen


@pytest.mark.parametrize(
    ("name", "options", "startup", "generation"),
    [
        ("tpe", {}, 10, 1),
        ("tpe", {"n_startup_trials": 0}, 0, 1),
        ("gp", {}, 10, 1),
        ("cmaes", {}, 1, 8),
        ("cmaes", {"popsize": 20}, 1, 20),
        ("nsga2", {}, 50, 50),
        ("nsga2", {"population_size": 12}, 12, 12),
        ("random", {}, 0, 1),
    ],
)
def test_what_a_sampler_draws_without_learning(
    name: str, options: dict[str, int], startup: int, generation: int
) -> None:
    assert count_startup_trials(name, options) == startup
    assert generation_size(name, options, 4) == generation
