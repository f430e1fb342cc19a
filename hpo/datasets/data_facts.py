"""Facts about a data set that decide whether its scores can be trusted, and what is to be said of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from hpo.config.choices import Task
from hpo.utils.text import quantity

__all__ = [
    "ClassFacts",
    "ColumnFact",
    "ColumnKind",
    "DataFacts",
    "DataIssue",
    "Overlap",
    "TargetFact",
    "count_rarest",
    "describe_facts",
    "list_serious_issues",
]

Count = Annotated[int, Field(ge=0, lt=2**53)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Name = Annotated[str, Field(max_length=100)]
ColumnKind = Literal["determines", "identifier", "group", "time"]
COARSE = 0.5  # share of different samples, below which equal ones are no wonder
SHARE, FEWEST = 0.01, 3  # of a part's samples: fewer copies move no score by much
SMALL, TINY, RARE = 100, 30, 10  # samples of validation, and of one class of it
MAJORITY = 0.8  # share of the largest class, from which accuracy says little
RATIO = 20  # of an even share to that of the smallest class, likewise
BALANCED = ("val_balanced_accuracy",)


class _Facts(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Overlap(_Facts):
    """Samples of a part that are identical to a training sample, bit by bit; of test data to one of validation, too.

    Attributes:
        part: which.
        samples: all of the part.
        equal: those whose training samples have the same label, or one of them has.
        other: those whose training samples all have other labels.
    """

    part: Literal["validation", "test"]
    samples: Count
    equal: Count
    other: Count

    @property
    def share(self) -> float:
        """Share of the part's samples."""
        return (self.equal + self.other) / max(self.samples, 1)


class ColumnFact(_Facts):
    """Column that may tell the label in a way that new samples will not have.

    Attributes:
        column: its name, or its number from 0.
        named: whether it has a name.
        kind: `determines` the label nearly alone; an `identifier` of rows; a `group` of rows with equal labels; a
            `time` over which the label drifts.
        score: share of the label's uncertainty that it explains, 1 for all; of times the drift, see
            `hpo.datasets.leakage`.
        values: number of different values.
        label: which of several labels or targets it tells.
        ordered: of times, whether the rows are in its order.
    """

    column: Name
    named: bool = True
    kind: ColumnKind
    score: Number
    values: Count
    label: Name = ""
    ordered: bool = False


class ClassFacts(_Facts):
    """Numbers of samples by class; of several labels, by label, where a label's class is that it is given.

    Attributes:
        classes: how many.
        largest, largest_share: class with the most training and validation samples, and their share; of several labels
            the most uneven one, and the share of its more frequent value.
        smallest, smallest_count: class with the fewest of them.
        rarest_in_validation: the smallest number of validation samples of a class that has any.
        lacking_in_training, lacking_in_validation: classes of which a part has no sample, the first few by name.
        lacking_counts: how many these are.
    """

    classes: Count
    largest: Name
    largest_share: Number
    smallest: Name
    smallest_count: Count
    rarest_in_validation: Count
    lacking_in_training: tuple[Name, ...] = ()
    lacking_in_validation: tuple[Name, ...] = ()
    lacking_counts: tuple[Count, Count] = (0, 0)


class TargetFact(_Facts):
    """Distribution of a target that is far from symmetric, or has outliers.

    Attributes:
        name: of the target; empty of one alone without a name.
        skewness: third standardised moment.
        outliers: number of samples more than 10 robust standard deviations from the median.
        low, median, high: of its values.
    """

    name: Name
    skewness: Number
    outliers: Count
    low: Number
    median: Number
    high: Number


class DataFacts(_Facts):
    """Facts about a data set and one split of it.

    Attributes:
        task: what is predicted.
        train, validation, test: numbers of samples; None of a test set that was not read.
        distinct: number of different samples among training and validation.
        overlaps: copies of training samples in the other parts.
        columns_seen: number of columns of the file that were looked at.
        columns: those that may tell the label in a way that new samples will not have.
        classes: of a classification, or of several labels.
        targets: of a regression, those that are odd.
        unlabelled: rows of the file that were left out because they have no label.
        validated: samples that folds validate together, of which `validation` are the first fold's; 0 without folds.
        late: training samples that are later than the first validation sample, where rows have times.
    """

    task: Task
    train: Count
    validation: Count
    test: Count | None = None
    distinct: Count
    overlaps: Annotated[tuple[Overlap, ...], Field(max_length=2)] = ()
    columns_seen: Count = 0
    columns: Annotated[tuple[ColumnFact, ...], Field(max_length=100)] = ()
    classes: ClassFacts | None = None
    targets: Annotated[tuple[TargetFact, ...], Field(max_length=100)] = ()
    unlabelled: Count = 0
    late: Count = 0
    validated: Count = 0

    @property
    def scored(self) -> int:
        """The samples that a trial's value rests on: those of all folds, or else of the validation split."""
        return self.validated or self.validation


@dataclass(frozen=True)
class DataIssue:
    """Remark on a data set.

    Attributes:
        topic: `duplicates`, `leaks`, `balance`, `validation_set`, `targets` or `unlabelled`.
        serious: whether scores cannot be trusted before something is done.
        evidence: one sentence, with its numbers.
        advice: one sentence, what to do.
    """

    topic: str
    serious: bool
    evidence: str
    advice: str

    @property
    def text(self) -> str:
        """Evidence and advice in a line."""
        return f"{self.evidence}; {self.advice}"


def describe_facts(facts: DataFacts, metric: str | None = None) -> list[DataIssue]:
    """Return what is to be said of a data set, the serious first; nothing of one that is in order.

    Args:
        facts: about the data set.
        metric: by which configurations are chosen; by default whatever may matter is said.
    """
    issues = [
        *_describe_overlaps(facts),
        *map(_describe_column, facts.columns),
        *_describe_late(facts),
        *_describe_lacking(facts),
        *_describe_balance(facts, metric),
        *_describe_size(facts, metric),
        *map(_describe_target, facts.targets),
        *_describe_unlabelled(facts),
    ]
    return sorted(issues, key=lambda issue: not issue.serious)


def list_serious_issues(facts: DataFacts) -> list[str]:
    """Return a line for each thing in the data for which scores cannot be trusted."""
    return [f"data: {issue.text}" for issue in describe_facts(facts) if issue.serious]


def _describe_overlaps(facts: DataFacts) -> Iterator[DataIssue]:
    found = [each for each in facts.overlaps if each.equal + each.other]
    if not found:
        return
    text = "; ".join(_describe_overlap(each) for each in found)
    coarse = facts.distinct < COARSE * (facts.train + facts.validation)
    if coarse:
        text += f" (training and validation have only {facts.distinct:,} different samples)"
    serious = not coarse and any(each.equal >= max(FEWEST, SHARE * each.samples) for each in found)
    advice = "remove the copies, or keep them on one side with `group = …`: a model is tested on what it has seen"
    if coarse or not any(each.equal for each in found):
        advice = "add features that tell the samples apart, if there are any"
    yield DataIssue("duplicates", serious, text, advice)


def _describe_overlap(overlap: Overlap) -> str:
    count = overlap.equal + overlap.other
    all_other = overlap.other == count
    other = f", {'' if all_other else f'{overlap.other:,} of them '}with another label" if overlap.other else ""
    source = "training" if overlap.part == "validation" else "training or validation"
    copies = f"is a copy of a {source} sample" if count == 1 else f"are copies of {source} samples"
    share = f"{100 * overlap.share:.2g} %" if overlap.share < 1 else "all"
    return f"{count:,} of {quantity(overlap.samples, f'{overlap.part} sample')} ({share}) {copies}{other}"


def _describe_column(fact: ColumnFact) -> DataIssue:
    name = f"column '{fact.column}'" if fact.named else f"feature {fact.column} (from 0)"
    label = f"'{fact.label}'" if fact.label else "the label"
    drop = f'leave it out with `drop = ["{fact.column}"]`' if fact.named else "leave it out of the data"
    if fact.kind == "determines":
        evidence = f"{name} alone tells {label} nearly without error ({100 * fact.score:.4g} % of it)"
        advice = f"{drop}, unless it is known before {label} is"
    elif fact.kind == "identifier":
        evidence = f"{name} numbers the samples: its {fact.values:,} values all differ"
        advice = f"{drop}: of new samples it says nothing"
    elif fact.kind == "group":
        evidence = f"{name} has {fact.values:,} values, and samples of one value nearly always agree in {label}"
        group = f'`group = "{fact.column}"`' if fact.named else "`groups` in its hpo.Dataset"
        advice = f"say {group}, so that no value is on both sides of a split, or {drop}"
    else:
        order = ", and the rows are in its order" if fact.ordered else ""
        evidence = f"{label} drifts over {name}: its latest fifth differs from the rest by {fact.score:.2g}{order}"
        advice = f'say `time = "{fact.column}"`, if later rows are to be predicted: then the latest rows validate'
    return DataIssue("leaks", fact.kind != "identifier", evidence, advice)


def _describe_late(facts: DataFacts) -> Iterator[DataIssue]:
    if facts.late:
        yield DataIssue(
            "leaks",
            False,
            f"{quantity(facts.late, 'training sample')} of older groups are later than the first validation sample",
            "leave `group` or `time` out if that is too many: groups are whole, and those that begin last validate",
        )


def _describe_lacking(facts: DataFacts) -> Iterator[DataIssue]:
    """Yield that a part has no sample of some classes."""
    classes = facts.classes
    if classes is None:
        return
    in_training, in_validation = classes.lacking_counts
    if in_training:
        yield DataIssue(
            "validation_set",
            True,
            f"training has no sample of {_count_outputs(facts, in_training)}: "
            f"{_list(classes.lacking_in_training, in_training)}",
            "they cannot be learned: split otherwise, or leave them out",
        )
    if in_validation:
        yield DataIssue(
            "validation_set",
            False,
            f"validation has no sample of {_count_outputs(facts, in_validation)}: "
            f"{_list(classes.lacking_in_validation, in_validation)}",
            "nothing is known of how well they are told: take a larger share for validation, or merge rare classes",
        )


def _describe_balance(facts: DataFacts, metric: str | None) -> Iterator[DataIssue]:
    classes = facts.classes
    if classes is None or ((metric is not None and not metric.endswith("_accuracy")) or metric in BALANCED):
        return
    samples = facts.train + facts.validation
    if classes.largest_share >= MAJORITY and facts.task == "classification":
        yield DataIssue(
            "balance",
            False,
            f"class '{classes.largest}' has {classes.largest_share:.3g} of the samples, which is the accuracy of "
            f"saying it always; the smallest, '{classes.smallest}', has {classes.smallest_count:,}",
            'choose by `objective = "val_balanced_accuracy"` or `"val_f1_macro"`, and try `class_weight = "balanced"`',
        )
    elif classes.smallest_count * RATIO * classes.classes < samples:
        yield DataIssue(
            "balance",
            False,
            f"{_name_output(facts)} '{classes.smallest}' has {classes.smallest_count:,} of {samples:,} samples in "
            f"{_count_outputs(facts, classes.classes)}",
            'try `class_weight = "balanced"`, and choose by `objective = "val_f1_macro"`, which counts all alike',
        )


def _name_output(facts: DataFacts) -> str:
    return "label" if facts.task == "multilabel" else "class"


def _count_outputs(facts: DataFacts, count: int) -> str:
    name = _name_output(facts)
    return f"{count:,} {name if count == 1 else {'label': 'labels', 'class': 'classes'}[name]}"


def _describe_size(facts: DataFacts, metric: str | None) -> Iterator[DataIssue]:
    """Yield that validation has too few samples, in all or of a class."""
    if 0 < facts.scored < SMALL:
        noise = f": the 95 % interval of an accuracy of 0.5 is ± {facts.scored**-0.5:.2g}" if facts.classes else ""
        yield DataIssue(
            "validation_set",
            facts.scored < TINY,
            f"validation has {quantity(facts.scored, 'sample')}{noise}",
            "take small gains for noise; a larger share for validation, or more seeds (`hpo evaluate`), tells more",
        )
    rarest = count_rarest(facts)
    alike = metric is None or metric in BALANCED or "macro" in metric
    if 0 < rarest < RARE and facts.scored >= SMALL and alike:
        yield DataIssue(
            "validation_set",
            False,
            f"validation has {quantity(rarest, 'sample')} of its rarest {_name_output(facts)}",
            "a metric that counts all alike, as macro averages and balanced accuracy do, is no more certain than that",
        )


def count_rarest(facts: DataFacts) -> int:
    """Count the samples of the rarest class that a trial's value rests on."""
    if facts.classes is None:
        return 0
    return facts.classes.smallest_count if facts.validated else facts.classes.rarest_in_validation


def _describe_target(target: TargetFact) -> DataIssue:
    name = f"target '{target.name}'" if target.name else "the target"
    outliers = f"; {quantity(target.outliers, 'value')} more than 10 robust deviations away" if target.outliers else ""
    log = ", or predict its logarithm" if target.low > 0 and target.skewness > 0 else ""
    return DataIssue(
        "targets",
        False,
        f"{name} is skewed ({target.skewness:.2g}): from {target.low:.4g} to {target.high:.4g}, its "
        f"median {target.median:.4g}{outliers}",
        f'try `loss = ["mse", "huber", "mae"]`, which large values sway less{log}',
    )


def _describe_unlabelled(facts: DataFacts) -> Iterator[DataIssue]:
    if facts.unlabelled:
        yield DataIssue(
            "unlabelled",
            False,
            f"{quantity(facts.unlabelled, 'row')} of the file left out for want of a label",
            "make sure that the label is missing by chance: what is not labelled may be what is hard",
        )


def _list(names: Sequence[str], count: int) -> str:
    more = f" and {count - len(names):,} more" if count > len(names) else ""
    return ", ".join(f"'{name}'" for name in names) + more
