"""Replays of studies in virtual time: whose turn it is, what a round takes, and who is the best by then."""

import numpy as np
import pytest

from benchmarks.problems import Answer, Problem, define
from benchmarks.replay import Plan, replay


class Toy(Problem):
    """Answers in the order of the trials: a curve of scores, and the seconds of an epoch alone."""

    unit, best = "points", 1.0

    def __init__(self, curves, seconds, stacked=False):
        table = {"dataset": "mnist", "objective": "val_accuracy"}
        self.definition = define("toy", {**table, "parameters": {"learning_rate": {"low": 0.001, "high": 0.1}}})
        self.epochs, self.stacked = len(curves[0]), stacked
        self.answers = [(np.array(curve), each) for curve, each in zip(curves, seconds, strict=True)]

    def answer(self, params, rng):
        scores, seconds = self.answers.pop(0)
        return Answer(scores, scores - 0.01, seconds, "one" if self.stacked else None)

    def stack_seconds(self, members):
        return max(member.seconds for member in members)

    def describe(self):
        return "toy"


def test_a_worker_that_is_free_takes_the_next_trial_while_another_trains():
    problem = Toy([[0.1], [0.5], [0.2], [0.7]], [3, 1, 1.5, 2])
    log = replay(problem, Plan("random"), 0, 4)
    # Worker 1 trains trials 1 (to 1), 2 (to 2.5) and 3 (to 4.5), worker 0 trial 0 (to 3).
    assert log.seconds == [1, 2.5, 3, 4.5]
    assert log.ended == {1: 0, 2: 1, 0: 2, 3: 3}
    assert log.cost_of_trials(2) == (3, 3)
    assert problem.regret([log.best_of_trials(3), log.best_within(log.seconds, 4.4)]) == pytest.approx([0.51, 0.51])
    assert problem.regret([log.best_within(log.epochs, 4)]) == pytest.approx([0.31])


@pytest.mark.parametrize(("stacked", "seconds"), [(True, [2, 4]), (False, [3, 6])])
def test_a_cohort_takes_the_time_of_its_stacks_in_turn(stacked, seconds):
    problem = Toy([[0.1, 0.2], [0.3, 0.4]], [1, 2], stacked)
    log = replay(problem, Plan("random", cohort=2, workers=1), 0, 2)
    assert (log.seconds, log.epochs) == (seconds, [2, 4])


@pytest.mark.parametrize(("rule", "epochs"), [("reported", 4 + 2), ("finished", 8)])
def test_a_pruner_compares_within_a_cohort_as_its_rule_says(rule, epochs):
    curves = [[0.1, 0.1], [0.2, 0.2], [0.8, 0.8], [0.9, 0.9]]
    options = {"compare_with": rule, "n_startup_trials": 1}
    log = replay(Toy(curves, [1] * 4), Plan("random", "median", 4, 1, pruner_options=options), 0, 4)
    assert log.epochs[-1] == epochs
    assert log.has_ended(4)


def test_a_paused_trial_is_promoted_before_a_new_one_is_asked_for_and_ends_at_the_last():
    curves = [[0.1, 0.1], [0.4, 0.9], [0.3, 0.3], [0.2, 0.2]]
    options = {"reduction_factor": 2}
    promoted = replay(Toy(curves, [1] * 4), Plan("random", "asha", 1, 1, pruner_options=options), 0, 4)
    # Of two in the rung, trial 1 goes on at once; of four, trial 2 is promoted.
    assert promoted.values[1] == pytest.approx((0.9, 0.89))
    assert promoted.ended[1] == 2
    assert promoted.has_ended(4)


def test_the_seed_decides_a_replay():
    def best(seed):
        return replay(Toy([[0.1], [0.5], [0.2]], [1] * 3), Plan("tpe"), seed, 3).values

    assert best(1) == best(1)


def test_startup_trials_are_asked_at_once_and_others_one_by_one_until_they_have_ended():
    curves = [[each / 10] for each in range(8)]
    plan = Plan("tpe", cohort=4, workers=2, startup=True, sampler_options={"n_startup_trials": 4})
    log = replay(Toy(curves, [1] * 8), plan, 0, 8)
    assert np.diff([0, *log.epochs]).tolist() == [2, 2, 1, 3]  # one by worker 0, which was free when only 2 had ended
