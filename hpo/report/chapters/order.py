"""What a report says: its chapters in their order, the same for HTML and Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from hpo.report.chapters.best_config import best_config_chapter
from hpo.report.chapters.blocks import Block, Chapter, Note, Table
from hpo.report.chapters.comparison import comparison_chapter
from hpo.report.chapters.cost import cost_chapter
from hpo.report.chapters.definition import definition_chapter
from hpo.report.chapters.error_analysis import error_analysis_chapter
from hpo.report.chapters.learning_curves import learning_curves_chapter
from hpo.report.chapters.model_inspection import model_inspection_chapter
from hpo.report.chapters.parameter_importance import parameter_importance_chapter
from hpo.report.chapters.reconstruction import reconstruction_chapter
from hpo.report.chapters.reproduction import reproduction_chapter
from hpo.report.chapters.sample_images import sample_images_chapter
from hpo.report.chapters.search import course, front, over_all, over_each, over_time
from hpo.report.chapters.test_scores import test_scores_chapter
from hpo.report.chapters.trials import trials_chapter
from hpo.report.checks.finding import Finding
from hpo.report.format import count_text, duration_text, state_text, time_text
from hpo.report.report_data import ReportData

__all__ = ["CHAPTERS", "findings_chapter", "make_chapters", "study_facts"]

# A report is read from its top, and most readers stop early: what is decided by comes first.
CHAPTERS: Sequence[Callable[[ReportData], Chapter | None]] = (
    lambda it: test_scores_chapter(it.results, it.evaluations, it.judgements, it.looks),
    lambda it: best_config_chapter(it.results, it.evaluations, it.judgements),
    lambda it: findings_chapter(it.findings),
    lambda it: parameter_importance_chapter(it.study, it.results),
    lambda it: learning_curves_chapter(it.results),
    lambda it: comparison_chapter(it.results),
    lambda it: error_analysis_chapter(it.evaluations),
    lambda it: reconstruction_chapter(it.evaluations),
    lambda it: sample_images_chapter(it.study),
    lambda it: front(it.results),
    lambda it: model_inspection_chapter(it.study),
    lambda it: cost_chapter(it.results),
    lambda it: trials_chapter(it.results),
    lambda it: course(it.results),
    lambda it: over_each(it.results, list(it.importances)),
    lambda it: over_all(it.results, it.important),
    lambda it: over_time(it.results, it.now),
    lambda it: definition_chapter(it.results),
    lambda it: reproduction_chapter(it.results),
)


def make_chapters(reading: ReportData) -> list[Chapter]:
    """The report's chapters, top to bottom; those that have nothing to say are left out."""
    told = (write(reading) for write in CHAPTERS)
    return [chapter for chapter in told if chapter is not None and chapter.blocks]


def study_facts(reading: ReportData) -> list[str]:
    """A few words on the study, for under its verdict."""
    results = reading.results
    states = ", ".join(f"{count_text(n)} {state_text(state)}" for state, n in results.counts.items() if n)
    trials = f"{count_text(len(results.trials))} {'trial' if len(results.trials) == 1 else 'trials'}"
    told = [f"{trials}: {states}" if results.trials else "no trials yet"]
    if results.remaining:
        slots = max(results.budget.trials, len(results.trials))
        ended = f" ({results.stop_reason})" if results.stop_reason else ""
        told.append(f"not finished: {count_text(results.remaining)} of {count_text(slots)} left{ended}")
    if results.began and results.last:
        told.append(f"{duration_text((results.last - results.began).total_seconds())}, from {time_text(results.began)}")
    extra = sum(row.extra for row in results.trials)
    if extra:
        told.append(f"{extra} {'trial was' if extra == 1 else 'trials were'} added by others")
    return told


LEVELS = ("warning", "note", "ok", "unknown")


def findings_chapter(findings: Sequence[Finding]) -> Chapter | None:
    """What the checks found: what is to be acted on first, then what is to be known; the rest folded."""
    told = sorted(findings, key=lambda finding: LEVELS.index(finding.level))
    blocks: list[Block] = [
        Note(each.level, each.title, each.evidence, each.advice, each.toml)
        for each in told
        if each.level in ("warning", "note")
    ]
    for level, title in (("ok", "in order"), ("unknown", "could not be computed")):
        rows = [[each.title, each.evidence] for each in told if each.level == level]
        if rows:
            folded = f"{len(rows)} {'check' if len(rows) == 1 else 'checks'} {title}"
            blocks.append(Table(["check", "evidence"], rows, folded=folded))
    return Chapter("findings", "Findings", blocks) if blocks else None
