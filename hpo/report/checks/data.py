"""Checks of the data: copies across the split, columns that tell the label, classes, targets, the validation set."""

from __future__ import annotations

from collections.abc import Sequence

from hpo.datasets import DataFacts, describe_facts
from hpo.datasets.data_facts import count_rarest
from hpo.report.checks.finding import Finding
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results

__all__ = ["DATA_CHECKS"]

Evaluations = Sequence[EvaluationResults]


def duplicates(results: Results, _: Evaluations) -> list[Finding]:
    """Check that no validation or test sample is a copy of a training sample."""
    facts = results.data_facts
    if facts is None or not facts.overlaps:
        return []
    parts = " and ".join(f"{each.samples:,} {each.part}" for each in facts.overlaps)
    well = f"none of {parts} samples is a copy of one of {facts.train:,} training samples"
    return _list_findings(results, "duplicates", "copies across the split", well)


def leaks(results: Results, _: Evaluations) -> list[Finding]:
    """Check that no column tells the label in a way that new samples will not have."""
    facts = results.data_facts
    if facts is None or not facts.columns_seen:
        return []
    well = f"none of {facts.columns_seen:,} columns alone tells the label, names a group, or orders rows that drift"
    return _list_findings(results, "leaks", "columns that tell too much", well)


def balance(results: Results, _: Evaluations) -> list[Finding]:
    """Check that the metric suits the numbers of samples of the classes."""
    facts = results.data_facts
    if facts is None or facts.classes is None:
        return []
    return _list_findings(results, "balance", "balance of the classes", _describe_classes(facts))


def _describe_classes(facts: DataFacts) -> str:
    classes = facts.classes
    assert classes is not None
    if facts.task == "multilabel":
        return f"the rarest of {classes.classes:,} labels, '{classes.smallest}', has {classes.smallest_count:,} samples"
    return (
        f"the largest of {classes.classes:,} classes has {classes.largest_share:.3g} of the samples, the smallest has "
        f"{classes.smallest_count:,}"
    )


def validation_set(results: Results, _: Evaluations) -> list[Finding]:
    """Check that validation has samples enough, and some of each class."""
    facts = results.data_facts
    if facts is None or not facts.validation:
        return []
    name = "label" if facts.task == "multilabel" else "class"
    each = f", at least {count_rarest(facts):,} of each {name}" if facts.classes else ""
    return _list_findings(results, "validation_set", "validation samples", f"{facts.scored:,} samples{each}")


def targets(results: Results, _: Evaluations) -> list[Finding]:
    """Check that no target is so skewed that a few samples decide the loss."""
    facts = results.data_facts
    if facts is None or facts.task != "regression":
        return []
    return _list_findings(results, "targets", "skewed targets", "no target has a skewness of 2 or more")


def unlabelled(results: Results, _: Evaluations) -> list[Finding]:
    """Name the rows of the file that had to be left out."""
    if results.data_facts is None or not results.data_facts.unlabelled:
        return []
    return _list_findings(results, "unlabelled", "rows without a label", "")


def _list_findings(results: Results, topic: str, title: str, well: str) -> list[Finding]:
    """Return a finding for each issue of a topic, or one that says that all is well."""
    assert results.data_facts is not None
    issues = describe_facts(results.data_facts, results.objective.metric)
    found = [
        Finding(topic, title, "warning" if issue.serious else "note", issue.evidence, issue.advice)
        for issue in issues
        if issue.topic == topic
    ]
    return found or [Finding(topic, title, "ok", well)]


DATA_CHECKS = (duplicates, leaks, balance, validation_set, targets, unlabelled)
