"""Leaks that were planted are found and named, and clean data are not accused."""

import numpy as np
import pytest

from hpo.datasets import DataFacts, Dataset, Feature, collect_facts, describe_facts, find_issues, load, make_reference
from hpo.datasets.row_split import split_rows

N = 1200
RNG = np.random.default_rng(0)
X = RNG.normal(size=(N, 4)).astype(np.float32)
Y = (X[:, 0] + RNG.normal(size=N) > 0).astype(np.int64)
TARGET = (3 * X[:, :1] + RNG.normal(size=(N, 1))).astype(np.float32)
PATIENTS = RNG.integers(0, 150, N)
DAYS = np.sort(RNG.random(N) * 1000)
SCIKIT = ("iris", "wine", "digits", "breast_cancer", "diabetes", "linnerud")


def make(column=None, y=Y, *, name="odd", categories=(), **fields):
    """A data set with the columns a to d, and one more."""
    features = [Feature(name=each, column=each) for each in "abcd"]
    if column is None:
        return Dataset((X, y), features=features, **fields)
    kind = "category" if categories else "number"
    features.append(Feature(name=name, column=name, kind=kind, categories=categories))
    return Dataset((np.column_stack([X, column]).astype(np.float32), y), features=features, **fields)


def find(dataset, test=None, validation=0.2):
    facts = collect_facts(dataset, validation, 0, test)
    assert facts is not None
    assert DataFacts.model_validate(facts.model_dump(mode="json")) == facts  # as a study keeps it
    return facts


def topics(dataset, test=None):
    return [(issue.topic, issue.serious) for issue in describe_facts(find(dataset, test))]


# ---- columns

AGES = np.clip(np.round(50 + 15 * RNG.normal(size=N)), 1, 100)
LEAKS = {
    "copy of the label": (make(Y), "determines"),
    "label with noise": (make(Y + RNG.normal(size=N) * 0.1), "determines"),
    "label by a category": (make(np.array([3, 1])[Y], categories=("u", "v", "w")), "determines"),
    "label above a bound": (make(AGES, (AGES > 55).astype(np.int64)), "determines"),
    "missing where the label is 1": (make(np.where(Y == 1, np.nan, X[:, 1])), "determines"),
    "row number of sorted rows": (make(np.arange(N), np.sort(Y)), "determines"),
    "row number": (make(RNG.permutation(N)), "identifier"),
    "target in other units": (make(1.8 * TARGET[:, 0] + 32, TARGET), "determines"),
    "target's order": (make(np.exp(TARGET[:, 0]), TARGET), "determines"),
    "patients by number": (make(PATIENTS, RNG.integers(0, 2, 150)[PATIENTS]), "group"),
    "patients by name": (
        make(PATIENTS + 1, RNG.integers(0, 2, 150)[PATIENTS], categories=tuple(map(str, range(150)))),
        "group",
    ),
    "patients' targets": (make(PATIENTS, RNG.normal(size=(150, 1)).astype(np.float32)[PATIENTS]), "group"),
    "one of several labels": (
        make(Y, np.stack([RNG.integers(0, 2, N), Y], 1), task="multilabel", output_names=("cat", "dog")),
        "determines",
    ),
}


@pytest.mark.parametrize("case", LEAKS)
def test_a_column_that_tells_the_label_is_named(case):
    dataset, kind = LEAKS[case]
    (fact,) = find(dataset).columns
    assert (fact.column, fact.kind) == ("odd", kind)
    (issue,) = [issue for issue in describe_facts(find(dataset)) if issue.topic == "leaks"]
    assert "'odd'" in issue.evidence
    assert ('group = "odd"' if kind == "group" else 'drop = ["odd"]') in issue.advice
    assert issue.serious == (kind != "identifier")
    assert fact.label == ("dog" if case == "one of several labels" else "")


CLEAN = {
    "features": make(),
    "a number that is related": make(AGES, (AGES + 15 * RNG.normal(size=N) > 55).astype(np.int64)),
    "patients of any label": make(PATIENTS),
    "categories": make(RNG.integers(1, 4, N), categories=("u", "v", "w")),
    "missing values": make(np.where(RNG.random(N) < 0.3, np.nan, X[:, 1])),
    "target": make(TARGET[:, 0] + RNG.normal(size=N), TARGET),
    "several targets": make(None, np.column_stack([TARGET, RNG.normal(size=N)]).astype(np.float32)),
    "constant": make(np.ones(N)),
}


@pytest.mark.parametrize("case", CLEAN)
def test_clean_data_are_not_accused(case):
    assert topics(CLEAN[case]) == []


@pytest.mark.parametrize("name", SCIKIT)
def test_well_known_data_are_not_accused(name):
    loaded = getattr(pytest.importorskip("sklearn.datasets"), f"load_{name}")()
    real = name in ("diabetes", "linnerud")
    y = loaded.target.astype(np.float32) if real else loaded.target.astype(np.int64)
    facts = find(Dataset((loaded.data.astype(np.float32), y)))
    issues = describe_facts(facts)
    # Of 150 irises two are equal; what is said of the others is how few they are.
    assert {issue.topic for issue in issues} <= {"validation_set"}
    assert facts.distinct == len(loaded.data) - (name == "iris")
    assert bool(issues) == (facts.validation < 100)


def test_a_copy_among_irises_is_counted_where_it_is_on_both_sides():
    loaded = pytest.importorskip("sklearn.datasets").load_iris()
    x, y = loaded.data.astype(np.float32), loaded.target.astype(np.int64)
    found = []
    for seed in range(12):
        facts = collect_facts(Dataset((x, y)), 0.2, seed)
        _, held = split_rows(y, 0.2, seed, "classification")
        apart = bool(np.isin([101, 142], held).sum() == 1)  # the two equal rows
        assert facts.overlaps[0].equal == apart
        assert [issue.serious for issue in describe_facts(facts) if issue.topic == "duplicates"] == [False] * apart
        found.append(apart)
    assert {True, False} == set(found)


def test_mnist_is_not_accused():
    dataset = load(make_reference("mnist"))
    facts = find(dataset, dataset.test(), 10_000)
    assert (facts.train, facts.validation, facts.test, facts.distinct) == (50_000, 10_000, 10_000, 60_000)
    assert describe_facts(facts) == []


def test_a_column_is_found_in_many_rows():
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60_000, 3)).astype(np.float32)
    patients = rng.integers(0, 20_000, 60_000)
    y = rng.integers(0, 2, 20_000)[patients]
    x[:, 1] = patients  # of each only three rows, few of which are in a sample
    assert [(fact.column, fact.named, fact.kind) for fact in find(Dataset((x, y))).columns] == [("1", False, "group")]


# ---- times


def make_dated(y, days=DAYS):
    features = [Feature(name="a", column="a"), Feature(name="sold", column="sold")]
    features.append(Feature(name="sold.month_sin", column="sold"))
    x = np.column_stack([X[:, 0], days, np.sin(days / 58)]).astype(np.float32)
    return Dataset((x, y), features=features)


def test_a_drift_over_a_date_that_is_no_time_is_named():
    y = (RNG.random(N) < 0.2 + 0.6 * DAYS / 1000).astype(np.int64)
    (fact,) = find(make_dated(y)).columns
    assert (fact.column, fact.kind, fact.ordered) == ("sold", "time", True)
    order = RNG.permutation(N)
    (fact,) = find(make_dated(y[order], DAYS[order])).columns
    assert (fact.kind, fact.ordered) == ("time", False)
    (fact,) = find(make_dated((DAYS[:, None] / 300 + RNG.normal(size=(N, 1))).astype(np.float32))).columns
    assert fact.kind == "time"


def test_a_date_without_drift_is_not_named():
    assert topics(make_dated(Y)) == []


def test_a_date_is_one_column_and_named_once():
    found = find(make_dated(DAYS[:, None].astype(np.float32)))
    assert found.columns_seen == 2
    assert [fact.kind for fact in found.columns if fact.column == "sold"].count("determines") == 1
    assert "100 % of it" in str(describe_facts(found)) or "99." in str(describe_facts(found))


# ---- copies


def test_copies_are_counted_by_part_and_label():
    x, y = np.vstack([X, X[:100]]), np.r_[Y, 1 - Y[:20], Y[20:100]]
    test = (np.vstack([X[:40], X[:10] + 1]), np.r_[Y[:30], 1 - Y[30:40], Y[:10]])
    facts = find(Dataset((x, y)), test)
    _, held = split_rows(y, 0.2, 0, "classification")
    train = set(range(len(x))) - set(held)
    pairs = {i: i + N for i in range(100)} | {i + N: i for i in range(100)}
    copies = [i for i in held if pairs.get(i) in train]
    assert facts.overlaps[0].equal == sum(y[i] == y[pairs[i]] for i in copies)
    assert facts.overlaps[0].other == sum(y[i] != y[pairs[i]] for i in copies)
    assert (facts.overlaps[1].equal, facts.overlaps[1].other) == (30, 10)
    assert facts.distinct == N
    (issue,) = describe_facts(facts)
    assert issue.topic == "duplicates"
    assert issue.serious
    assert f"{len(copies)} of {len(held)} validation samples" in issue.evidence


def test_copies_of_images_and_in_a_validation_part():
    images = RNG.integers(0, 256, (200, 6, 6)).astype(np.uint8)
    y = np.arange(200) % 2
    facts = find(Dataset((images, y), validation=(np.concatenate([images[:8], 255 - images[:8]]), y[:16])))
    assert (facts.train, facts.validation) == (200, 16)
    assert (facts.overlaps[0].equal, facts.overlaps[0].other) == (8, 0)


def test_few_different_samples_are_no_leak():
    assert topics(Dataset((RNG.integers(0, 2, (N, 3)).astype(np.float32), Y))) == [("duplicates", False)]


def test_equal_features_of_different_labels_are_no_leak():
    x = RNG.integers(0, 30, (N, 2)).astype(np.float32)
    targets = np.arange(N, dtype=np.float32)[:, None]
    (issue,) = [issue for issue in describe_facts(find(Dataset((x, targets)))) if issue.topic == "duplicates"]
    assert not issue.serious
    assert issue.evidence.endswith("copies of training samples, with another label")
    assert "tell the samples apart" in issue.advice


def test_tensors_and_signed_zeros():
    torch = pytest.importorskip("torch")
    x = torch.zeros(60, 3, dtype=torch.bfloat16)
    x[1::2] = -0.0
    assert find(Dataset((x, torch.arange(60) % 2))).distinct == 1


# ---- classes, targets, rows


def test_imbalance_depends_on_the_metric():
    y = (np.arange(N) % 50 == 0).astype(np.int64)
    facts = find(make(None, y, output_names=("no", "yes")))
    (first, *_) = describe_facts(facts, "val_accuracy")
    assert (first.topic, first.evidence.split(",")[0]) == ("balance", "class 'no' has 0.98 of the samples")
    assert {issue.topic for issue in describe_facts(facts, "val_f1_macro")} == {"validation_set"}
    assert describe_facts(facts, "val_roc_auc") == []


def test_a_class_that_a_part_lacks():
    y = np.r_[np.arange(N - 1) % 3, 3]
    assert "validation has no sample of 1 class: '3'" in [
        issue.evidence for issue in describe_facts(find(make(None, y)))
    ]
    late = Dataset((X, np.repeat([0, 1, 2], N // 3)), times=np.arange(N))
    texts = [(issue.serious, issue.evidence) for issue in describe_facts(find(late))]
    assert (False, "validation has no sample of 2 classes: '0', '1'") in texts
    never = Dataset((X, np.repeat([0, 1, 2], [500, 500, 200])), times=np.arange(N))
    assert (True, "training has no sample of 1 class: '2'") in [
        (issue.serious, issue.evidence) for issue in describe_facts(find(never))
    ]


def test_skewed_targets():
    prices = np.exp(2 * RNG.normal(size=(N, 1))).astype(np.float32)
    issues = describe_facts(find(make(None, prices, output_names=("price",))))
    assert [issue.topic for issue in issues] == ["targets"]
    assert "'price'" in issues[0].evidence
    assert "logarithm" in issues[0].advice
    assert "logarithm" not in describe_facts(find(make(None, -prices)))[0].advice


def test_rows_without_a_label():
    rows = {"train": np.array([*range(1, N + 1)])[: N // 2] * 2, "test": np.array([1, 3, 5])}
    dataset = Dataset((X[: N // 2], Y[: N // 2]), rows=rows)
    assert find(dataset).unlabelled == N - N // 2 - 3


def test_groups_that_go_on():
    times = np.arange(N) % 100
    facts = find(Dataset((X, Y), groups=np.arange(N) // 60, times=times + np.arange(N) // 60))
    assert facts.late > 0
    assert "older groups" in describe_facts(facts)[0].evidence


def test_what_gives_batches_is_not_looked_at():
    assert collect_facts(Dataset([(X, Y)], validation=(X, Y), classes=2), 0.2, 0) is None


def test_a_place_in_a_sequence_of_codes_is_no_column():
    codes = np.stack([Y, RNG.integers(0, 5, N)], 1)
    assert [column.kind for column in find(Dataset((codes, Y))).columns] == ["determines"]
    for facts in (find(Dataset((codes, Y), vocabulary=6)), collect_facts(Dataset((codes, Y)), 0.2, 0, integers=True)):
        assert (facts.columns, facts.columns_seen) == ((), 0)
    assert [column.kind for column in collect_facts(make(Y), 0.2, 0, integers=True).columns] == ["determines"]


def test_without_a_study():
    issues = find_issues(make(Y))
    assert [issue.topic for issue in issues] == ["leaks"]
    assert issues[0].text == f"{issues[0].evidence}; {issues[0].advice}"
    assert find_issues(Dataset((X[:3], np.array([0, 1, 2])))) == []  # too few to be split
