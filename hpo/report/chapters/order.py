"""Order of the chapters, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpo.report.chapters.best_config import best_config_chapter
from hpo.report.chapters.blocks import Block, Chapter, Note, Table
from hpo.report.chapters.comparison import comparison_chapter
from hpo.report.chapters.corrected_score import corrected_score_chapter
from hpo.report.chapters.cost import cost_chapter
from hpo.report.chapters.data_sets import data_sets_chapter
from hpo.report.chapters.definition import definition_chapter
from hpo.report.chapters.error_analysis import error_analysis_chapter
from hpo.report.chapters.feature_importance import feature_importance_chapter
from hpo.report.chapters.learning_curves import learning_curves_chapter
from hpo.report.chapters.model_inspection import model_inspection_chapter
from hpo.report.chapters.nested import nested_chapter
from hpo.report.chapters.parameter_importance import parameter_importance_chapter
from hpo.report.chapters.racing import racing_chapter
from hpo.report.chapters.reconstruction import reconstruction_chapter
from hpo.report.chapters.reproduction import reproduction_chapter
from hpo.report.chapters.sample_images import sample_images_chapter
from hpo.report.chapters.search import (
    history_chapter,
    parallel_coordinates_chapter,
    pareto_chapter,
    slices_chapter,
    timeline_chapter,
)
from hpo.report.chapters.settled import settled_chapter
from hpo.report.chapters.study_comparison import study_comparison_chapter
from hpo.report.chapters.test_scores import test_scores_chapter
from hpo.report.chapters.trials import trials_chapter
from hpo.report.chapters.variance import variance_chapter
from hpo.report.checks.finding import Finding
from hpo.report.format import count_text, duration_text, number_of, sentence, state_text, time_text
from hpo.report.report_data import ReportData
from hpo.report.suggest_calls import format_calls
from hpo.space import LearnedSpace, Space

__all__ = ["CHAPTERS", "findings_chapter", "make_chapters", "study_facts"]

Write = Callable[[ReportData], Chapter | None]


def _unless_evaluation(write: Write) -> Write:
    """Leave a chapter on parameters out of an evaluation's report, whose parameters are seeds and configurations."""
    return lambda data: None if data.results.definition.evaluation is not None else write(data)


# A report is read from its top, and most readers stop early: what is decided by comes first.
CHAPTERS: Sequence[Write] = (
    lambda data: test_scores_chapter(
        data.results, data.evaluations, data.evaluation_stats, data.test_set_reads, data.reference_models
    ),
    lambda data: corrected_score_chapter(data.results, data.leader_comparisons),
    lambda data: data_sets_chapter(data.across_datasets),
    lambda data: study_comparison_chapter(data.results, data.comparisons),
    lambda data: variance_chapter(data.results, data.evaluations),
    lambda data: nested_chapter(data.results, data.nested),
    lambda data: best_config_chapter(data.results, data.evaluations, data.evaluation_stats, data.choice),
    lambda data: findings_chapter(data.findings, data.results.space),
    _unless_evaluation(lambda data: parameter_importance_chapter(data.study, data.results, data.importances)),
    lambda data: learning_curves_chapter(data.results),
    lambda data: comparison_chapter(data.results),
    lambda data: error_analysis_chapter(data.evaluations, show_data=data.show_data),
    lambda data: feature_importance_chapter(data.evaluations),
    lambda data: reconstruction_chapter(data.evaluations, show_data=data.show_data),
    lambda data: sample_images_chapter(data.study, show_data=data.show_data),
    lambda data: pareto_chapter(data.results),
    lambda data: model_inspection_chapter(data.study),
    lambda data: racing_chapter(data.results),
    lambda data: settled_chapter(data.results),
    lambda data: cost_chapter(data.results),
    lambda data: trials_chapter(data.results),
    lambda data: history_chapter(data.results),
    _unless_evaluation(lambda data: slices_chapter(data.results, list(data.importances.by_key))),
    _unless_evaluation(lambda data: parallel_coordinates_chapter(data.results, data.parameters_by_importance)),
    lambda data: timeline_chapter(data.results, data.read_at),
    lambda data: definition_chapter(data.results),
    lambda data: reproduction_chapter(data.results),
)


def make_chapters(data: ReportData) -> list[Chapter]:
    """Write the report's chapters, top to bottom; those that have nothing to say are left out."""
    chapters = (write(data) for write in CHAPTERS)
    return [chapter for chapter in chapters if chapter is not None and chapter.blocks]


def study_facts(data: ReportData) -> list[str]:
    """Return a few words on the study, for under its verdict."""
    results = data.results
    states = ", ".join(f"{count_text(n)} {state_text(state)}" for state, n in results.counts.items() if n)
    trials = number_of(len(results.trials), "trial")
    facts = [f"{trials}: {states}" if results.trials else "no trials yet"]
    if results.remaining_trials:
        slots = max(results.budget.trials, len(results.trials))
        ended = f" ({results.stop_reason})" if results.stop_reason else ""
        facts.append(f"not finished: {count_text(results.remaining_trials)} of {count_text(slots)} left{ended}")
    if results.started_at and results.last_event_at:
        seconds = (results.last_event_at - results.started_at).total_seconds()
        facts.append(f"{duration_text(seconds)}, from {time_text(results.started_at)}")
    extra = sum(row.extra for row in results.trials)
    if extra:
        facts.append(f"{extra} {'trial was' if extra == 1 else 'trials were'} added by others")
    return facts


LEVELS = ("warning", "note", "ok", "unknown")


def findings_chapter(findings: Sequence[Finding], space: Space | None = None) -> Chapter | None:
    """Write the chapter on findings: warnings first, then notes; the rest folded.

    Args:
        findings: the findings.
        space: the study's; if it is learned, domains are written as calls of its objective function.
    """
    ordered = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
    blocks: list[Block] = [
        Note(
            each.level,
            _capitalize(each.title),
            sentence(each.evidence),
            sentence(each.advice),
            *([format_calls(space, each.toml), "python"] if isinstance(space, LearnedSpace) else [each.toml]),
        )
        for each in ordered
        if each.level in ("warning", "note")
    ]
    for level, title in (("ok", "passed"), ("unknown", "could not be computed")):
        rows = [[_capitalize(each.title), sentence(each.evidence)] for each in ordered if each.level == level]
        if rows:
            folded = f"{number_of(len(rows), 'check')} {title}"
            blocks.append(Table(["check", "evidence"], rows, folded=folded))
    return Chapter("findings", "Findings", blocks) if blocks else None


def _capitalize(text: str) -> str:
    return text[:1].upper() + text[1:]
