"""What a report says of a choice: the corrected score, the trials beside it, the rule, and the check for overtuning."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy.stats import binomtest

from hpo.config.resampling import Resampling
from hpo.datasets.sample_error import sampling_error
from hpo.datasets.sample_scores import SampleScores, ValidationSplit
from hpo.errors import RequestError
from hpo.report.chapters.corrected_score import corrected_score_chapter
from hpo.report.chapters.verdict import write_verdict
from hpo.report.checks.selection import overtuning
from hpo.report.checks.trust import noise
from hpo.report.data.corrected_score import BestSoFar, CorrectedScore, describe_choice, describe_correction
from hpo.report.data.evaluations import CandidateRuns, read_evaluations
from hpo.report.data.results import Results, TrialRow, read_results
from hpo.report.data.sample_scores import SampleTable
from hpo.report.export_config import export_config, rank_configurations
from hpo.report.format import number_of
from hpo.report.render.json import report_document, report_schema
from hpo.report.report_data import read_report_data
from hpo.report.stats.candidates import make_candidates
from hpo.report.stats.choice import choose_trial, default_rule
from hpo.report.stats.evaluation_stats import compare_candidates
from hpo.report.stats.pairwise import compare_trials, paired_errors
from hpo.report.stats.selection import correct_selection
from hpo.report.stats.trial_stats import difference_error, standard_error
from tests.execution.test_sample_scores import make_study as make_small_study
from tests.helpers import run_hpo
from tests.report.helpers import evaluated, filled
from tests.study.helpers import new_storage
from tests.workers import make_worker

SAMPLES = 400


def with_samples(results: Results, accuracies: Mapping[int, float], seed: int = 0) -> tuple[Results, SampleTable]:
    """Results whose trials have these true accuracies, and one epoch, with sample scores to match."""
    rng = np.random.default_rng(seed)
    split = ValidationSplit.of(np.zeros(SAMPLES, np.int64), np.arange(SAMPLES), SAMPLES)
    hardness, rows, trials = rng.random(SAMPLES), [], {}
    for row in results.trials:
        own = np.where(rng.random(SAMPLES) < 0.5, hardness, rng.random(SAMPLES))
        right = (own < accuracies[row.number]).astype(np.float32)[None]
        value = float(right.mean())
        rows.append(replace(row, values=(value,), epochs=[{"epoch": 1, "val_accuracy": value}], best_epoch=1))
        trials[row.number] = (SampleScores(0, split.digest, np.array([1]), 0, right, "correct", "val_accuracy"),)
    return replace(results, trials=tuple(rows)), SampleTable({split.digest: split}, trials)


@pytest.fixture
def equal(tmp_path: Path) -> tuple[Results, SampleTable]:
    """Sixteen trials that are all right with 0.9 of any sample."""
    return with_samples(read_results(filled(tmp_path, trials=16)), dict.fromkeys(range(16), 0.9))


def test_the_best_of_equals_is_worth_less_than_it_scored(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    score = correct_selection(table, results)
    assert score is not None
    assert results.best is not None
    assert (score.number, score.chosen, score.trials) == (results.best.number, results.best.value, 16)
    assert (score.samples, score.fits, score.left_out) == (SAMPLES, 1, 0)
    assert score.chosen - score.corrected == pytest.approx(score.bias)
    assert score.low < 0.9 < score.high
    assert score.corrected == pytest.approx(0.9, abs=0.03)
    assert score.corrected < score.chosen
    assert score.chosen_again + sum(share for _, share in score.others) == pytest.approx(1)
    assert [each.trials for each in score.history] == [4, 8, 12, 16]
    assert standard_error(replace(results, corrected=score)) == pytest.approx(score.sample_error)
    assert score.sample_error == pytest.approx((0.9 * 0.1 / SAMPLES) ** 0.5, rel=0.2)


def test_a_smaller_loss_is_better(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    objective = replace_objective(results, "val_loss", "minimize")
    rows = [replace(row, values=(1 - (row.value or 0),), epochs=()) for row in results.trials]
    trials = {
        number: tuple(replace(fit, scores=1 - fit.scores, kind="loss", metric="val_loss") for fit in fits)
        for number, fits in table.trials.items()
    }
    mirrored = correct_selection(SampleTable(table.splits, trials), replace(objective, trials=tuple(rows)))
    score = correct_selection(table, results)
    assert score is not None
    assert mirrored is not None
    assert mirrored.corrected == pytest.approx(1 - score.corrected)
    assert mirrored.corrected > mirrored.chosen
    assert mirrored.number == score.number


def replace_objective(results: Results, metric: str, direction: str) -> Results:
    objective = results.objective.model_copy(update={"metric": metric, "direction": direction})
    return replace(results, definition=results.definition.model_copy(update={"objectives": (objective,)}))


def test_there_is_no_corrected_score_without_sample_scores_of_the_best(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    assert results.best is not None
    others = {number: fits for number, fits in table.trials.items() if number != results.best.number}
    assert correct_selection(SampleTable(table.splits, others), results) is None
    assert correct_selection(SampleTable({}, {}), results) is None
    worst = results.ranked[-1].number
    some = {number: fits for number, fits in table.trials.items() if number != worst}
    score = correct_selection(SampleTable(table.splits, some), results)
    assert score is not None
    assert (score.trials, score.left_out) == (15, 1)


def test_the_chance_of_the_training_is_part_of_the_error_of_several_fits(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    twice = {number: (fits[0], replace(fits[0], fit=1)) for number, fits in table.trials.items()}
    rows = tuple(replace(row, standard_error=0.01) for row in results.trials)
    once, both = (
        correct_selection(table, results),
        correct_selection(SampleTable(table.splits, twice), replace(results, trials=rows)),
    )
    assert once is not None
    assert both is not None
    assert both.corrected == pytest.approx(once.corrected)  # two fits that agree on every sample
    assert both.error == pytest.approx(np.hypot(once.error, 0.01))
    assert both.fits == 2


SCORE = CorrectedScore(
    3, "val_accuracy", 0.973, 0.969, 0.966, 0.972, 0.0015, 0.0016, 0.004, 0.38, ((5, 0.5), (1, 0.12)), 60, 0, 9000, 1
)


def test_the_sentences_say_it_in_plain_english() -> None:
    interval = "(95 % interval 96.60 to 97.20 %)"
    assert describe_correction(SCORE) == (
        "Its validation accuracy of 97.30 % was the best of 60, which flatters it: corrected for that choice it is "
        f"96.90 % {interval}."
    )
    assert describe_correction(SCORE, said=True) == (
        f"Being the best of 60 flatters it: corrected for that choice it is 96.90 % {interval}."
    )
    assert "62 % of the draws" in describe_choice(SCORE)
    same = replace(SCORE, corrected=0.973, others=(), chosen_again=1.0)
    assert describe_correction(same).endswith(f"corrected for that choice it is the same {interval}.")
    assert describe_choice(same).endswith("it would have been chosen, too.")
    assert "that of its best epoch" in describe_correction(replace(SCORE, trials=1))
    assert describe_choice(replace(SCORE, trials=1)) == ""


def test_pairs_are_compared_by_mcnemars_exact_test(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    first, *others = (row.number for row in results.ranked[:4])
    comparisons = compare_trials(table, results, first, others)
    for each in comparisons:
        one, other = (table.trials[number][0].scores[0] > 0 for number in (each.first, each.second))
        only = int((one & ~other).sum()), int((other & ~one).sum())
        assert (each.only_first, each.only_second) == only
        assert each.p_value == pytest.approx(min(1, 3 * binomtest(only[0], sum(only)).pvalue))
        assert each.difference == pytest.approx((only[0] - only[1]) / SAMPLES)
        assert each.low <= each.difference <= each.high
        assert paired_errors(table, results, first)[each.second] == pytest.approx(sum(only) ** 0.5 / SAMPLES, rel=0.15)
    chapter = corrected_score_chapter(replace(results, corrected=correct_selection(table, results)), comparisons)
    assert chapter is not None
    text = str(chapter.blocks)
    assert "McNemar" in text
    assert "pruned" not in text
    pruned = replace(results.trials[-1], number=len(results.trials), state="PRUNED")
    raced = replace(results, trials=(*results.trials, pruned), corrected=correct_selection(table, results))
    assert "1 trial was pruned, and took no part" in str(corrected_score_chapter(raced))
    assert f"'{first}'" in text


def test_pairs_of_a_split_that_is_partly_kept_differ_by_their_recorded_values(
    equal: tuple[Results, SampleTable],
) -> None:
    results, table = equal
    (split,) = table.splits.values()
    partly = SampleTable({split.digest: replace(split, count=4 * SAMPLES)}, table.trials)
    first, second = (row.number for row in results.ranked[:2])
    recorded = {first: 0.95, second: 0.93}
    rows = tuple(replace(row, values=(recorded.get(row.number, row.value or 0.0),)) for row in results.trials)
    (whole,) = compare_trials(table, results, first, [second])
    (pair,) = compare_trials(partly, replace(results, trials=rows), first, [second])
    assert pair.difference == pytest.approx(0.02)
    assert pair.high - pair.low == pytest.approx((whole.high - whole.low) / 2, rel=0.1)
    assert (pair.low + pair.high) / 2 == pytest.approx(0.02, abs=0.003)
    assert (pair.test, pair.only_first) == ("bootstrap", None)  # of the samples that are kept alone it would be blind


def nested(results: Results, wrong: Sequence[int]) -> tuple[Results, SampleTable]:
    """Results of trials that are wrong on so many of the same samples: the hardest ones of the split."""
    split, rows, trials = ValidationSplit.of(np.zeros(SAMPLES, np.int64), np.arange(SAMPLES), SAMPLES), [], {}
    for row, count in zip(results.trials, wrong, strict=True):
        right = (np.arange(SAMPLES) >= count).astype(np.float32)[None]
        value = float(right.mean())
        rows.append(replace(row, values=(value,), epochs=[{"epoch": 1, "val_accuracy": value}], best_epoch=1))
        trials[row.number] = (SampleScores(0, split.digest, np.array([1]), 0, right, "correct", "val_accuracy"),)
    return replace(results, trials=tuple(rows)), SampleTable({split.digest: split}, trials)


def test_the_first_screen_tells_trials_apart_as_the_pairs_do(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=12)
    results, table = nested(read_results(study), [20, *[32] * 11])
    (pair,) = compare_trials(table, results, results.ranked[0].number, [results.ranked[1].number])
    assert pair.p_value < 0.001  # 12 samples of 400, and none the other way
    paired = correct_selection(table, results)
    assert paired is not None
    data = replace(read_report_data(study), findings=[])
    second = write_verdict(replace(data, results=replace(results, corrected=paired)))[1]
    assert "by 3.00 percentage points, more than sampling noise" in second
    assert "No winner" not in second
    alone = replace(paired, difference_errors={})  # as two independent scores they may be equal
    assert "No winner: it leads" in write_verdict(replace(data, results=replace(results, corrected=alone)))[1]


@pytest.mark.parametrize("seed", range(4))
def test_as_many_trials_are_within_the_noise_of_the_checks_as_of_the_rule(tmp_path: Path, seed: int) -> None:
    accuracies = {number: 0.9 if number < 6 else 0.6 for number in range(16)}
    results, table = with_samples(read_results(filled(tmp_path, trials=16)), accuracies, seed)
    results = replace(results, outlooks=(), corrected=correct_selection(table, results))
    near = [row for row in results.ranked if within(results, table, row)]
    (finding,) = noise(results, ())
    count = len(near) - 1
    others = f"{number_of(count, 'other trial')} {'is' if count == 1 else 'are'}"
    assert f"; {others} within one standard error of the difference from the best" in finding.evidence
    reason = choose_trial(results, "one_se", table).reason
    assert count == 0 or f"of the {len(near)} trials within one standard error" in reason


def test_trials_of_several_fits_differ_by_no_less_than_their_fits_tell(tmp_path: Path) -> None:
    fits = {0: (0.95, 0.90, 0.94), 1: (0.93, 0.95, 0.88)}
    results, table = with_samples(read_results(filled(tmp_path, trials=2)), {0: 0.95, 1: 0.9})
    rows = tuple(
        replace(
            row,
            values=(float(np.mean(fits[row.number])),),
            fits={fit: [{"epoch": 1, "val_accuracy": value}] for fit, value in enumerate(fits[row.number])},
        )
        for row in results.trials
    )
    definition = results.definition.model_copy(update={"resampling": Resampling(seeds=3)})
    results = replace(results, trials=rows, definition=definition)
    best = results.ranked[0].number
    by_fits = np.std(np.subtract(fits[0], fits[1]), ddof=1) / 3**0.5
    assert by_fits > 0.02
    assert paired_errors(table, results, best)[1 - best] == pytest.approx(max(by_fits, 0.02), rel=0.3)
    assert paired_errors(table, results, best)[1 - best] >= by_fits * (1 - 1e-9)
    whole = replace(results, corrected=correct_selection(table, results))
    assert difference_error(whole, results.trial(1 - best)) == paired_errors(table, results, best)[1 - best]


def repeated(results: Results, table: SampleTable, times: int) -> tuple[Results, SampleTable]:
    """The same trials on samples that are each there so many times, as a group."""
    (split,) = table.splits.values()
    index = np.arange(times * len(split.labels))
    many = ValidationSplit.of(np.repeat(split.labels, times), index, len(index), index // times)
    trials = {
        number: tuple(replace(fit, split=many.digest, scores=np.repeat(fit.scores, times, 1)) for fit in fits)
        for number, fits in table.trials.items()
    }
    return results, SampleTable({many.digest: many}, trials)


def test_the_samples_of_trials_with_splits_of_their_own_are_drawn_together(
    equal: tuple[Results, SampleTable],
) -> None:
    results, table = equal
    results = replace(results, corrected=correct_selection(table, results))
    assert f"The {SAMPLES} validation samples were drawn again" in str(corrected_score_chapter(results))
    apart = results.definition.model_copy(update={"resplit": "per_trial"})
    said = str(corrected_score_chapter(replace(results, definition=apart)))
    assert f"Each trial has {SAMPLES} validation samples of its own. All of these together were drawn again" in said


def test_samples_of_a_group_are_drawn_as_one(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    once, many = (correct_selection(each, results) for each in (table, repeated(*equal, 10)[1]))
    assert once is not None
    assert many is not None
    assert (once.groups, many.groups, many.samples) == (0, SAMPLES, 10 * SAMPLES)
    assert many.high - many.low == pytest.approx(once.high - once.low, rel=0.1)
    assert many.bias == pytest.approx(once.bias, rel=0.3)
    best, second = (row.number for row in results.ranked[:2])
    (pair,) = compare_trials(repeated(*equal, 10)[1], results, best, [second])
    assert pair.test == "bootstrap"  # McNemar's test would count each sample ten times
    errors = [
        sampling_error(each.trials[best][0], next(iter(each.splits.values())))
        for each in (table, repeated(*equal, 10)[1])
    ]
    assert errors[1] == pytest.approx(errors[0], rel=0.3)
    chapter = corrected_score_chapter(replace(results, corrected=many))
    assert f"{10 * SAMPLES:,} validation samples are in {SAMPLES} groups, which were drawn again" in str(chapter)


def weighed(results: Results, sizes: Mapping[int, int]) -> Results:
    rows = [replace(row, parameter_count=sizes.get(row.number, 10**6)) for row in results.trials]
    return replace(results, trials=tuple(rows))


def test_one_standard_error_takes_the_cheapest_of_the_leaders(equal: tuple[Results, SampleTable]) -> None:
    results, table = equal
    best, last = results.ranked[0], results.ranked[-1]
    near = [row for row in results.ranked if within(results, table, row)]
    sized = weighed(results, {near[-1].number: 100, last.number: 1} if near[-1] != last else {last.number: 1})
    choice = choose_trial(sized, "one_se", table)
    assert choice.row.number == near[-1].number
    assert f"of the {len(near)} trials within one standard error" in choice.reason
    assert choose_trial(sized, "best", table).row.number == best.number
    assert default_rule(sized) == "best"


def within(results: Results, table: SampleTable, row: TrialRow) -> bool:
    assert results.best is not None
    error = paired_errors(table, results, results.best.number)[row.number]
    return (results.best.value or 0) - (row.value or 0) <= error


def test_where_trials_share_the_best_value_the_default_is_the_cheapest(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=6))
    best = results.best
    assert best is not None
    rows = [replace(row, values=best.values, parameter_count=100 - row.number) for row in results.trials]
    tied = replace(results, trials=tuple(rows))
    assert default_rule(tied) == "one_se"
    assert choose_trial(tied).row.number == 5
    assert choose_trial(tied, "best").row.number == 0
    assert choose_trial(tied, among={1, 2}).row.number == 2
    assert "# rule one_se: of the 6 trials" in export_config(tied)
    assert default_rule(results) == "best"


def test_configurations_are_ranked_once_each_and_the_exported_one_first(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=5)
    results = read_results(study)
    assert results.best is not None
    rows = [replace(row, values=results.best.values, parameter_count=100 - row.number) for row in results.trials]
    first = rows[0].config
    assert first is not None
    rows[3] = replace(rows[3], config=first.model_copy(update={"seed": 7, "split_seed": 7}))
    tied = replace(results, trials=tuple(rows))
    assert [row.number for row in rank_configurations(study, tied)] == [4, 0, 1, 2]


def test_of_equally_cheap_trials_the_best_is_taken_and_the_reason_is_true(tmp_path: Path) -> None:
    results = read_results(filled(tmp_path, trials=4))
    values = (0.9, 0.9001, 0.9002, 0.8999)

    def chosen(weights: tuple[int, ...], seconds: tuple[float, ...]) -> tuple[int, str]:
        rows = tuple(
            replace(row, values=(value,), parameter_count=count, seconds=took)
            for row, value, count, took in zip(results.trials, values, weights, seconds, strict=True)
        )
        choice = choose_trial(replace(results, trials=rows), "one_se")
        return choice.row.number, choice.reason.partition(") it is ")[2]

    assert chosen((9, 9, 9, 9), (1.0,) * 4) == (2, "the best of equal size and training time")
    assert chosen((9, 9, 9, 9), (1.0, 1.05, 1.09, 1.0)) == (2, "the best of equal size and training time")
    assert chosen((9, 9, 9, 9), (1.0, 1.05, 1.2, 1.0)) == (1, "the best of those with the shortest training")
    assert chosen((9, 9, 9, 9), (0.5, 1.0, 1.0, 1.0)) == (0, "the fastest to train")
    assert chosen((7, 7, 9, 9), (1.0,) * 4) == (1, "the best of those with the fewest weights (7)")
    assert chosen((7, 7, 9, 9), (0.5, 1.0, 1.0, 1.0)) == (
        0,
        "the fastest to train of those with the fewest weights (7)",
    )
    assert chosen((9, 9, 9, 7), (1.0,) * 4) == (3, "the smallest (7 weights)")


def test_an_interrupted_evaluation_ranks_by_the_seeds_that_all_have(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6)
    first, second = (row.number for row in read_results(study).ranked[:2])
    evaluated(study, [first, second], {f"trial {first}": 0.9, f"trial {second}": 0.9, "defaults": 0.8}, seeds=4)
    [evaluation] = read_evaluations(study)
    metric = evaluation.validation_metric
    assert metric is not None

    def candidates(scores: Mapping[str, Sequence[float]]) -> tuple[CandidateRuns, ...]:
        return tuple(
            replace(
                each,
                runs=tuple(
                    replace(run, validation={metric: score})
                    for run, score in zip(each.complete_runs, scores.get(each.label, ()), strict=False)
                ),
            )
            for each in evaluation.candidates
        )

    better, worse = f"trial {first}", f"trial {second}"
    own = candidates({better: (0.9, 0.8, 0.7, 0.7), worse: (0.89, 0.79)})
    uneven = replace(evaluation, candidates=candidates({better: (0.8, 0.8, 0.99, 0.99), worse: (0.9, 0.9)}))
    assert uneven.best is not None
    assert uneven.best.label == worse == compare_candidates(uneven, by_validation=True).scores[0].candidate.label
    scores = compare_candidates(replace(evaluation, candidates=own), by_validation=True).scores
    assert [score.candidate.label for score in scores][:2] == [better, worse]
    first_runs = own[[each.label for each in own].index(better)].runs
    failed = replace(
        own[0], label="fails", runs=(first_runs[0], *(replace(run, state="FAIL") for run in first_runs[1:]))
    )
    four = candidates({better: (0.9, 0.8, 0.7, 0.7), worse: (0.8, 0.8, 0.9, 0.9)})
    scores = compare_candidates(replace(evaluation, candidates=(*four, failed)), by_validation=True).scores
    ranked = [score.candidate.label for score in scores if score.candidate.label in (better, worse)]
    assert ranked == [worse, better]  # by all four seeds, and not by the one that did not fail


def test_a_metric_that_is_no_mean_loses_nothing_on_the_samples_left_out() -> None:
    rng = np.random.default_rng(0)
    targets = rng.normal(size=(60, 1)).astype(np.float32)
    split = ValidationSplit.of(targets, np.arange(60), 60)
    errors = rng.normal(0, 0.7, (60, 1)) * (1 + 1e-6 * rng.normal(size=(3, 60, 1)))  # three that are one: no luck
    trials = {
        number: [SampleScores(0, split.digest, np.array([1]), 0, own[None] ** 2, "squared_error", "val_r2")]
        for number, own in enumerate(errors)
    }
    drawn = make_candidates("val_r2", 1, trials, {split.digest: split}).resample()
    assert len(np.unique(drawn.winners)) == 3
    correction = drawn.correct()
    assert correction.bias < 0.1 * correction.sample_error


def test_the_rule_evaluated_takes_the_best_from_fresh_seeds_or_says_what_to_run(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6)
    results = read_results(study)
    second = results.ranked[1].number
    with pytest.raises(RequestError, match="has been evaluated from fresh seeds; run hpo evaluate"):
        export_config(study, rule="evaluated")
    first = results.ranked[0].number
    evaluated(study, [first, second], {f"trial {first}": 0.9, f"trial {second}": 0.95, "defaults": 0.8}, refit=True)
    with pytest.raises(RequestError, match="has been evaluated from fresh seeds; run hpo evaluate"):
        export_config(study, rule="evaluated")  # a refit has no scores but those of the test set
    evaluated(study, [first, second], {f"trial {first}": 0.9, f"trial {second}": 0.95, "defaults": 0.8})
    assert choose_trial(results, "evaluated", evaluations=read_evaluations(study)).row.number == second
    assert f"trial {second} of study" in export_config(study, rule="evaluated")


def test_bad_rules_are_one_line(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=4, objective=["val_accuracy", "parameter_count"], pruner="none")
    with pytest.raises(RequestError, match="unknown rule 'bets'; did you mean 'best'"):
        export_config(study, rule="bets")
    with pytest.raises(RequestError, match="has 2 objectives; choose a trial of its Pareto front"):
        export_config(study, rule="one_se")


@pytest.mark.parametrize(
    ("half", "last", "level"),
    [
        (BestSoFar(30, 0.95, 0.945), BestSoFar(60, 0.96, 0.95), "ok"),
        (BestSoFar(30, 0.95, 0.945), BestSoFar(60, 0.96, 0.9445), "note"),
        (BestSoFar(30, 0.95, 0.945), BestSoFar(60, 0.96, 0.94), "warning"),
        (BestSoFar(30, 0.95, 0.945), BestSoFar(60, 0.95, 0.944), "ok"),
    ],
)
def test_overtuning_is_a_rise_that_the_corrected_score_does_not_share(
    tmp_path: Path, half: BestSoFar, last: BestSoFar, level: str
) -> None:
    results = read_results(filled(tmp_path, trials=4))
    history = (replace(half, trials=15), half, replace(half, trials=45), last)
    (finding,) = overtuning(replace(results, corrected=replace(SCORE, history=history)), ())
    assert finding.level == level
    assert "of the first 30 trials is 95.00 %" in finding.evidence
    assert bool(finding.advice) == (level != "ok")
    assert overtuning(results, ()) == []


def test_a_trained_study_has_it_in_the_verdict_the_document_and_the_commands(tmp_path: Path) -> None:
    study = make_small_study(new_storage(tmp_path), tmp_path)
    make_worker(study, cohort=4).run()
    data = read_report_data(study)
    score = data.results.corrected
    assert score is not None
    assert score.samples == 150
    assert describe_correction(score, said=True) in write_verdict(data)[1]
    document: dict[str, Any] = json.loads(json.dumps(report_document(data)))
    jsonschema.validate(document, report_schema())
    assert document["corrected"]["number"] == score.number
    assert document["choice"]["rule"] in ("best", "one_se")
    url = study.storage.url
    assert describe_correction(score) in run_hpo("show", study.name, "--storage", url).stdout
    shown = json.loads(run_hpo("show", study.name, "--format", "json", "--storage", url).stdout)
    assert shown["corrected"]["corrected"] == pytest.approx(score.corrected)
    assert "dataset = " in run_hpo("export", study.name, "--rule", "one_se", "--storage", url).stdout
    refused = run_hpo("export", study.name, "--rule", "best", "--trial", "0", "--storage", url)
    assert refused.returncode == 2
    assert "--trial names the trial" in refused.stderr


def test_a_run_of_a_refit_is_not_chosen_by_its_test_score(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6)
    first, second = (row.number for row in read_results(study).ranked[:2])
    scores = {f"trial {first}": 0.8, f"trial {second}": 0.95, "defaults": 0.9}
    (companion,) = evaluated(study, [first, second], scores, refit=True, noise=0.01)
    results = read_results(companion)
    choice = choose_trial(results)
    own = [row for row in results.ranked if row.params["configuration"] == f"trial {first}"]
    assert choice.row.config.seed == min(row.config.seed for row in own)  # type: ignore[union-attr]
    assert choice.row in own
    last = max(own, key=lambda row: row.config.seed)  # type: ignore[union-attr]
    others = {row.number for row in results.ranked if row not in own}
    assert choose_trial(results, among={last.number, *others}).row == last
    assert choose_trial(results, among=others).row == choice.row
    assert f"rule best: its configuration is the first of study '{study.name}'" in export_config(companion)
