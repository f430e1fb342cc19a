"""Data sets in tables: labels, features, parts, and what is wrong with a file, against pandas and scikit-learn."""

import datetime as dt

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpo.datasets.reference import make_reference
from hpo.datasets.source import DatasetSource
from hpo.datasets.table import digest, read_frame, read_rows, read_source
from hpo.datasets.table_file import read_table
from hpo.datasets.table_schema import TableSchema
from hpo.errors import DataError

N = 120
RNG = np.random.default_rng(0)


def houses(**changes):
    rows = {
        "id": np.arange(1, N + 1),
        "area": RNG.normal(100, 20, N).round(2),
        "rooms": np.where(RNG.random(N) < 0.2, np.nan, RNG.integers(1, 6, N)),
        "zone": RNG.choice(["south", "north", "east"], N, p=[0.6, 0.3, 0.1]),
        "sold": [f"{2000 + i % 7}-{1 + i % 12:02}-{1 + i % 28:02}" for i in range(N)],
        "garden": RNG.random(N) < 0.5,
        "street": "paved",
        "price": RNG.normal(200, 50, N).round(1),
    }
    return pd.DataFrame(rows | changes)


@pytest.fixture
def table(tmp_path):
    def write(frame=None, name="houses.csv", **options):
        frame = houses() if frame is None else frame
        path = tmp_path / name
        if isinstance(frame, str | bytes):
            path.write_bytes(frame.encode() if isinstance(frame, str) else frame)
        elif path.suffix == ".csv":
            frame.to_csv(path, index=False, **options)
        elif path.suffix == ".tsv":
            frame.to_csv(path, index=False, sep="\t")
        elif path.suffix == ".parquet":
            frame.to_parquet(path)
        elif path.suffix == ".feather":
            frame.to_feather(path)
        else:
            frame.to_json(path, orient="records", lines=True)
        return path

    return write


def read(path, *label, **options):
    return read_source(path, DatasetSource(label=label, **options))


def refused(call, *words):
    with pytest.raises(DataError) as caught:
        call()
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert str(word) in line, line


# ---- Files


@pytest.mark.parametrize("name", ["h.csv", "h.tsv", "h.parquet", "h.feather", "h.jsonl"])
def test_each_format_gives_the_same_data(table, name):
    frame = houses()
    expected, found = read(table(frame), "price"), read(table(frame, name), "price")
    assert found.features == expected.features
    np.testing.assert_array_equal(found.train[0], expected.train[0])
    np.testing.assert_array_equal(found.train[1], expected.train[1])
    assert found.schema.model_copy(update={"dates": {}}) == expected.schema.model_copy(update={"dates": {}})


CSV = st.lists(
    st.tuples(
        st.one_of(st.none(), st.floats(-1e6, 1e6, width=32)),
        st.one_of(st.none(), st.integers(-(2**40), 2**40)),
        st.one_of(st.none(), st.text(st.characters(codec="utf-8", categories=("L", "P", "Zs")), max_size=8)),
    ),
    min_size=1,
    max_size=30,
)


@settings(max_examples=25, deadline=None)
@given(rows=CSV)
def test_csv_is_read_as_pandas_reads_it(rows, tmp_path_factory):
    path = tmp_path_factory.getbasetemp() / "any.csv"
    rows = [(a, b, c and c.strip()) for a, b, c in rows]
    pd.DataFrame(rows, columns=["a", "b", "c"]).astype({"b": "Int64"}).assign(d="end").to_csv(path, index=False)
    ours, theirs = read_table(path), pd.read_csv(path, na_values="?")
    for name in "ab":
        got = ours[name].cast(pl.Float64).to_numpy()
        np.testing.assert_allclose(got, theirs[name].to_numpy(float), rtol=1e-6)
    texts = [None if pd.isna(value) else str(value) for value in theirs["c"]]
    assert [value is None for value in ours["c"]] == [value is None for value in texts]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("a;y\n1.5;0\n2.5;1\n", [1.5, 2.5]),
        ("a;y\n1,5;0\n2,5;1\n", [1.5, 2.5]),
        ('a,y\n"1.5",0\n"2",1\n', [1.5, 2.0]),
        ("y, a\n0, 1\n1, 2\n", [1, 2]),
        ("y, a\n0, 1\n1, ?\n", [1, None]),
        ("a|y\n3|0\n4|1\n", [3, 4]),
        ('" a\n",y\n3,0\n4,1\n', [3, 4]),
        ("\ufeffa,y\r\n3,0\r\n4,1\r\n", [3, 4]),
        ("a,y\r3,0\r4,1\r", [3, 4]),
        ("a,y\n" + "1,0\n" * 12_000 + "1.5,1\n", None),
        ("a,y\n" + "NA,0\n" * 12_000 + "7,1\n", None),
    ],
)
def test_csv_dialects(table, text, values):
    column = read_table(table(text))["a"]
    assert column.dtype.is_numeric()
    if values is not None:
        assert column.to_list() == values
    else:
        assert column[-1] in (1.5, 7)


def test_an_index_of_pandas_is_no_feature(table):
    path = table("")
    houses().drop(columns="id").to_csv(path)
    assert "column_1" not in {feature.column for feature in read(path, "price").features}


def test_digest(table):
    import hashlib

    path = table()
    assert digest(path) == {"houses.csv": hashlib.sha256(path.read_bytes()).hexdigest()}


# ---- Features


def test_features_are_those_of_pandas(table):
    frame = houses()
    dataset = read(table(frame), "price", test=0)
    x = {feature.name: dataset.train[0][:, i] for i, feature in enumerate(dataset.features)}
    assert set(x) >= {"area", "rooms", "zone", "sold", "garden", "sold.month_sin", "sold.weekday_cos"}
    assert not {"id", "street", "price", "sold.hour_sin"} & set(x)
    np.testing.assert_allclose(x["area"], frame["area"], rtol=1e-6)
    np.testing.assert_array_equal(x["rooms"], frame["rooms"].astype(np.float32))
    np.testing.assert_array_equal(x["garden"], frame["garden"])
    ranks = frame["zone"].value_counts()
    assert {f.name: f.categories for f in dataset.features}["zone"] == tuple(ranks.index)
    np.testing.assert_array_equal(x["zone"], frame["zone"].map({z: i + 1 for i, z in enumerate(ranks.index)}))
    sold = pd.to_datetime(frame["sold"])
    np.testing.assert_array_equal(x["sold"], (sold - pd.Timestamp(2000, 1, 1)).dt.days)
    np.testing.assert_allclose(x["sold.month_cos"], np.cos((sold.dt.month - 1) * np.pi / 6), atol=1e-6)
    np.testing.assert_allclose(x["sold.weekday_sin"], np.sin(sold.dt.day_of_week * 2 * np.pi / 7), atol=1e-6)
    assert [f.name for f in dataset.features if f.missing] == ["rooms"]


def test_rare_unseen_and_missing_categories():
    frame = pl.DataFrame({"c": ["b"] * 3 + ["a"] * 2 + ["once", None], "y": [0, 1, 0, 1, 0, 1, 0]})
    dataset, _ = read_frame(frame, DatasetSource(label=("y",), test=0), "t")
    assert dataset.features[0].categories == ("b", "a")
    np.testing.assert_array_equal(dataset.train[0][:, 0], [1, 1, 1, 2, 2, 0, np.nan])
    np.testing.assert_array_equal(dataset.schema.read(pl.DataFrame({"c": ["new", "a", None]}))[:, 0], [0, 2, np.nan])


TIMES_OF_DAY = ("%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S+00:00", "%m/%d/%Y %I:%M:%S %p", "%d/%m/%Y %I:%M %p")


@pytest.mark.parametrize("form", ["%d/%m/%Y", "%m/%d/%Y", "%d.%m.%Y", *TIMES_OF_DAY])
def test_dates_of_each_country(table, form):
    dates = pd.date_range("2019-01-15 06:00", periods=N, freq="31h")
    dataset = read(table(houses(sold=dates.strftime(form))), "price", test=0)
    days = dates if "%M" in form else dates.normalize()
    position = [feature.name for feature in dataset.features].index("sold")
    np.testing.assert_allclose(
        dataset.train[0][:, position], (days - pd.Timestamp(2000, 1, 1)) / pd.Timedelta("1D"), rtol=1e-6
    )
    assert not any("fits as well" in note for note in dataset.notes)


def test_an_index_that_was_written_numbers_the_rows_and_what_only_ends_alike_does_not(table):
    numbers = np.random.default_rng(0).permutation(10 * N)[:N]
    names = ["Unnamed: 0", "userId", "user_id", "__index_level_0__", "amount_paid", "bid", "grid"]
    dataset = read(table(houses(**dict.fromkeys(names, numbers))), "price", test=0)
    assert {*names} & {feature.name for feature in dataset.features} == {*names[4:]}


def test_an_ambiguous_date_is_said(table):
    dates = [f"{1 + i % 12:02}/{1 + i % 11:02}/2020" for i in range(N)]
    notes = read(table(houses(sold=dates)), "price").notes
    assert any("read as %d/%m/%Y, though %m/%d/%Y fits as well" in note for note in notes)


def test_what_is_dropped_is_said(table):
    remarks = [f"a lovely house number {i} with many rooms and windows" for i in range(N)]
    notes = "\n".join(read(table(houses(remarks=remarks)), "price").notes)
    for text in ("'id' numbers the rows", "'street' has the same value", "'remarks' holds free text"):
        assert text in notes


def test_large_categories_and_a_file_of_many_blocks(table):
    rng = np.random.default_rng(1)
    frame = pd.DataFrame({"c": rng.integers(0, 1500, 40_000).astype(str), "v": rng.normal(size=40_000), "y": 0})
    frame["c"] = "k" + frame["c"]
    frame["y"] = rng.integers(0, 3, 40_000)
    dataset = read(table(frame), "y", drop=())
    (category,) = [feature for feature in dataset.features if feature.kind == "category"]
    train = frame.iloc[dataset.rows["train"] - 1]
    counts = train["c"].value_counts()
    assert len(category.categories) == 1000
    assert counts[list(category.categories)].min() >= counts.drop(list(category.categories)).max()
    codes = train["c"].map({name: code for code, name in enumerate(category.categories, 1)}).fillna(0)
    np.testing.assert_array_equal(dataset.train[0][:, 0], codes)
    np.testing.assert_allclose(dataset.test[0][:, 1], frame["v"].iloc[dataset.rows["test"] - 1], rtol=1e-5)


# ---- Labels


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "c"], ("a", "b", "c")),
        ([10, 9, 2], ("2", "9", "10")),
        ([-1.0, 1.0, 3.0], ("-1", "1", "3")),
        ([True, False, True], ("false", "true")),
        (["10", "9", "x y"], ("10", "9", "x y")),
    ],
)
def test_classes_are_mapped_in_a_stable_order(table, labels, names):
    frame = houses(price=[labels[i % 3] for i in range(N)])
    dataset = read(table(frame, "h.parquet"), "price", test=0)
    assert (dataset.task, dataset.output_names, dataset.classes) == ("classification", names, len(names))
    texts = [str(label).lower().removesuffix(".0") for label in frame["price"]]
    assert [names[code] for code in dataset.train[1]] == texts


def test_a_time_of_numbers_is_no_feature(tmp_path):
    (tmp_path / "own.csv").write_text("size,at,y\n" + "".join(f"{i % 7},{i * 1.5},{i % 2}\n" for i in range(40)))
    dataset = read(tmp_path / "own.csv", "y", time="at")
    assert "column 'at' orders the rows; it is no feature" in dataset.notes
    assert [feature.column for feature in dataset.features] == ["size"]


def test_a_test_file_of_another_kind_and_idle_options_are_refused(tmp_path):
    (tmp_path / "own.csv").write_text("size,y\n" + "".join(f"{i % 7},{i % 2}\n" for i in range(40)))
    np.savez(tmp_path / "test.npz", x=np.zeros(3))
    other = {"path": str(tmp_path / "own.csv"), "label": "y", "test": "test.npz"}
    refused(lambda: make_reference(other, tmp_path), "test.npz: is no table; name a file of one of the kinds .csv")
    idle = {"path": str(tmp_path / "own.csv"), "label": "y", "text_words": 9}
    refused(lambda: make_reference(idle), "text_words: is for texts; name their column with text = …")


@pytest.mark.parametrize(
    ("form", "note"),
    [
        ("{0}%", "column 'rate' holds numbers such as '0%', which are read as texts; write plain numbers"),
        ("${0}1,000.50", "column 'rate' holds numbers such as '$01,000.50', which are read as texts; it is dropped, "),
        ("-{0},5", "column 'rate' holds numbers such as '-0,5', which are read as texts; "),
        ("{0}-{0}", ""),
        ("v{0}", ""),
    ],
)
def test_numbers_with_signs_or_separators_are_said(tmp_path, form, note):
    rows = [f'"{form.format(i if "$" in form else i % 9)}",{i % 7 / 2},{i % 2}' for i in range(40)]
    (tmp_path / "rates.csv").write_text("\n".join(["rate,size,y", *rows, ""]))
    told = [each for each in read(tmp_path / "rates.csv", "y").notes if "'rate'" in each]
    assert [each.startswith(note) for each in told] == ([True] if note else [])
    (tmp_path / "prices.csv").write_text("size,price\n" + "".join(f'{i},"{i * 1000:,}"\n' for i in range(40)))
    with pytest.raises(DataError, match=r"column 'price': holds numbers such as '1,000'; write plain numbers"):
        read(tmp_path / "prices.csv", "price")


@pytest.mark.parametrize(
    ("label", "task", "why"),
    [
        ("price", "regression", "numbers with fractions"),
        ("zone", "classification", "3 different values"),
        ("garden", "classification", "2 different values"),
        ("rooms", "classification", "5 different whole numbers"),
    ],
)
def test_task_is_guessed_with_its_reason(table, label, task, why):
    dataset = read(table(), label)
    assert dataset.task == task
    assert why in dataset.notes[0]


def test_given_task(table):
    path = table()
    assert read(path, "rooms", task="regression").train[1].shape[1:] == (1,)
    assert read(path, "garden", task="binary").task == "classification"
    refused(lambda: read(path, "zone", task="binary"), "3 classes", "not binary")
    refused(lambda: read(path, "garden", task="multiclass"), "2 classes", "not multiclass")
    refused(lambda: read(path, "zone", task="regression"), "no number")


def test_several_targets_and_several_labels(table):
    frame = houses(flag=RNG.integers(0, 2, N))
    both = read(table(frame), "price", "area", test=0)
    assert (both.task, both.output_names) == ("regression", ("price", "area"))
    np.testing.assert_allclose(both.train[1], frame[["price", "area"]], rtol=1e-6)
    flags = read(table(frame), "garden", "flag", test=0)
    assert (flags.task, flags.train[1].dtype) == ("multilabel", np.float32)
    np.testing.assert_array_equal(flags.train[1], frame[["garden", "flag"]])
    words = frame.assign(garden=frame["garden"].map({True: "Yes", False: "absent"}))
    named = read(table(words), "garden", "flag", test=0)
    np.testing.assert_array_equal(named.train[1], flags.train[1])
    assert "column 'garden': Yes is 1, absent is 0" in named.notes
    words.loc[3, "garden"] = "maybe"
    refused(lambda: read(table(words), "garden", "flag"), "'garden', row 1", "two different values")
    refused(lambda: named.schema.labels.read(pl.DataFrame(words), "new"), "'garden', row 4", "'maybe'", "absent or Yes")


@pytest.mark.parametrize("separator", ["|", "; ", None])
def test_lists_of_labels_are_those_of_pandas(table, separator):
    lists = [[] if i % 7 == 0 else ["abc"[i % 3], *("d" if i % 2 else "")] for i in range(N)]
    column = lists if separator is None else [separator.join(each) or None for each in lists]
    dataset = read(table(houses(tags=column), "h.parquet"), "tags", test=0)
    expected = pd.Series(lists).str.join("|").str.get_dummies()
    np.testing.assert_array_equal(dataset.train[1], expected)
    assert dataset.output_names == tuple(expected.columns)


def test_rows_without_a_label_are_left_out(table):
    frame = houses()
    frame.loc[[4, 9], "price"] = np.nan
    dataset = read(table(frame), "price", test=0)
    assert len(dataset.train[0]) == N - 2
    assert 5 not in dataset.rows["train"]
    assert any(note.startswith("2 rows have no label and are left out (the first is row 5)") for note in dataset.notes)


# ---- Parts and roles


def test_a_fifth_is_held_out_by_default_and_said(table):
    frame = houses()
    dataset = read(table(frame), "zone")
    x, y = dataset.test
    assert len(y) == N // 5
    assert sorted([*dataset.rows["train"], *dataset.rows["test"]]) == list(range(1, N + 1))
    np.testing.assert_allclose(x[:, 0], frame["area"].iloc[dataset.rows["test"] - 1], rtol=1e-6)
    assert any("24 of 120 rows are held out" in note for note in dataset.notes)
    np.testing.assert_array_equal(read(table(frame), "zone").rows["test"], dataset.rows["test"])


def test_test_and_validation_files(table):
    path, other = table(), table(houses(zone="west"), "other.csv")
    dataset = read(path, "price", test="other.csv", validation="other.csv")
    assert len(dataset.train[0]) == N
    np.testing.assert_array_equal(dataset.test()[0], dataset.validation[0])
    zone = [feature.name for feature in dataset.features].index("zone")
    assert (dataset.validation[0][:, zone] == 0).all()  # not in the training data
    other.unlink()
    refused(dataset.test, other, "not found")


def test_group_time_and_weight(table):
    frame = houses(owner=np.arange(N) // 4, weight=RNG.random(N).round(3))
    dataset = read(table(frame), "price", group="owner", weight="weight")
    owners = frame["owner"].to_numpy()
    train, test = (owners[dataset.rows[part] - 1] for part in ("train", "test"))
    assert not set(train) & set(test)
    assert len(dataset.groups) == len(dataset.weights) == len(train)
    np.testing.assert_allclose(dataset.weights, frame["weight"].iloc[dataset.rows["train"] - 1])
    assert not {"owner", "weight"} & {feature.column for feature in dataset.features}
    dataset = read(table(frame), "price", time="sold")
    sold = frame["sold"].to_numpy()
    assert max(sold[dataset.rows["train"] - 1]) < min(sold[dataset.rows["test"] - 1])
    assert "sold" not in {feature.name for feature in dataset.features}
    assert "sold.month_sin" in {feature.name for feature in dataset.features}


# ---- New rows


def test_new_rows_are_read_as_the_training_rows(table):
    frame = houses()
    path = table(frame)
    dataset = read(path, "price", test=0)
    schema = TableSchema.model_validate_json(dataset.schema.model_dump_json())
    x, y = read_rows(path, schema)
    np.testing.assert_array_equal(x, dataset.train[0])
    np.testing.assert_array_equal(y, dataset.train[1])
    used = frame[["area", "rooms", "zone", "sold", "garden"]].iloc[:3].assign(zone=["?", "7", "north"])
    x, y = read_rows(table(used, "new.csv"), schema)
    assert y is None
    zone = [feature.name for feature in schema.features].index("zone")
    north = next(f for f in schema.features if f.name == "zone").categories.index("north") + 1
    np.testing.assert_array_equal(x[:, zone], [np.nan, 0, north])
    refused(lambda: read_rows(table(used.rename(columns={"area": "aera"}), "new.csv"), schema), "'area'", "'aera'")
    wrong = used.astype({"area": object})
    wrong.iloc[1, 0] = "large"
    refused(lambda: read_rows(table(wrong, "new.csv"), schema), "'area'", "row 2", "'large' is no number")


# ---- Bad input

ROWS = "a,b,y\n" + "".join(f"{i}.5,x{i % 3},{i % 2}\n" for i in range(30))
FAULTS = {
    "label": (ROWS, {"label": "Y"}, ["no column 'Y'", "'y'"]),
    "no label": (ROWS, {"label": ()}, ["which column", "a, b, y"]),
    "drop": (ROWS, {"drop": ("c1",)}, ["no column 'c1'"]),
    "twice": (ROWS, {"drop": ("y",)}, ["'y'", "named twice"]),
    "one value": (ROWS.replace(",0\n", ",1\n"), {}, ["'y'", "1 in every row"]),
    "no values": (ROWS.replace(",0\n", ",\n").replace(",1\n", ",\n"), {}, ["'y'", "no values"]),
    "identifier": ("a,y\n" + "".join(f"{i % 3},u{i}\n" for i in range(40)), {}, ["'y'", "identifier"]),
    "numbers of rows": ("a,y\n" + "".join(f"{i % 3},{i}\n" for i in range(40)), {}, ["'y'", "identifier"]),
    "infinite": (ROWS + "inf,x1,1\n", {}, ["'a'", "row 31", "infinite"]),
    "too large": (ROWS + "1e300,x1,1\n", {}, ["'a'", "row 31", "3.4e38"]),
    "infinite label": (ROWS + "1,x1,inf\n", {}, ["'y'", "row 31", "inf"]),
    "mixed": (ROWS + "oops,x1,1\n", {}, ["'a'", "row 31", "'oops'"]),
    "mixed label": (ROWS + "1,x1,oops\n", {}, ["'y'", "row 31", "'oops'"]),
    "dates": ("d,y\n" + "2020-01-02,0\n2020-01-03,1\n" * 20 + "then,1\n", {}, ["'d'", "row 41", "'then'"]),
    "date as label": ("d,y\n" + "0,2020-01-02\n1,2020-01-03\n" * 20, {}, ["'y'", "dates"]),
    "empty": ("", {}, ["is empty"]),
    "header alone": ("a,y\n", {}, ["no rows"]),
    "no header": ("1.5,2,0\n2,3,1\n", {}, ["its first line", "1.5", "column names"]),
    "short row": (ROWS + "1,x1\n", {}, ["row 31", "2 values", "3 columns"]),
    "long row": (ROWS + "1,x1,0,1\n", {}, ["row 31", "4 values", "3 columns"]),
    "a line above the names": ("# mine\n" + ROWS, {}, ["row 1", "there is 1 column;", "first line", "'# mine'"]),
    "encoding": (ROWS.encode() + b"1,\xe9,0\n", {}, ["row 31:", "UTF-8"]),
    "utf-16": (ROWS.encode("utf-16"), {}, ["UTF-8"]),
    "two names": ("a,a,y\n1,2,0\n", {}, ["the line of column names", "two columns are called 'a'"]),
    "quotation": (ROWS + '"1,x1,0\n' * 3, {}, ["quotation mark"]),
    "nothing to learn": ("a,y\n" + "1,0\n1,1\n" * 20, {}, ["no column to learn from", "'a' has the same value"]),
    "texts as labels": (ROWS, {"label": ("b", "y")}, ["'b'", "must be numbers"]),
    "weight": (ROWS, {"label": "b", "weight": "b2"}, ["'b2'"]),
    "negative weight": (ROWS + "-1,x1,0\n", {"weight": "a"}, ["'a'", "row 31", "no weight"]),
    "time": (ROWS, {"time": "b"}, ["'b'", "no date"]),
    "empty group": (ROWS + "1,,0\n", {"group": "b"}, ["'b'", "row 31", "is empty"]),
    "share": (ROWS, {"test": 40.0}, ["test = 40"]),
    "no test file": (ROWS, {"validation": "none.csv"}, ["none.csv", "not found"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_is_wrong_is_one_line_with_its_place(table, fault):
    from hpo.errors import RequestError

    content, options, words = FAULTS[fault]
    label = options.get("label", "y")
    path = table(content)
    with pytest.raises(RequestError) as caught:
        read_source(path, DatasetSource(**{**options, "label": (label,) if isinstance(label, str) else label}))
    line = str(caught.value)
    assert "\n" not in line
    for word in words:
        assert word in line, line
    assert path.stem in line or "test = " in line or "none.csv" in line


def test_a_class_that_training_lacks_is_refused(table):
    frame = houses()
    path = table(frame)
    dataset = read(path, "zone", test="new.csv")
    frame.loc[6, "zone"] = "west"
    table(frame, "new.csv")
    refused(dataset.test, "new.csv", "'zone'", "row 7", "'west'")
    latest = frame.assign(sold=np.where(frame["zone"] == "west", "2030-01-01", frame["sold"]))
    refused(lambda: read(table(latest), "zone", time="sold"), "'zone'", "row 7", "'west'")


@pytest.mark.parametrize("name", ["t.parquet", "t.feather", "t.arrow", "t.jsonl"])
@pytest.mark.parametrize("content", [b"", b"PAR1", b"\x00\xff" * 100, b"[1]\n", b'{"a": 1}\n{"a": \n'])
def test_damaged_files(table, name, content):
    path = table(content, "x.csv").rename(table("", name))
    refused(lambda: read_table(path), path)


def test_a_file_larger_than_the_free_memory(table, monkeypatch):
    monkeypatch.setattr("hpo.datasets.table_file.free_memory", lambda: 1000)
    for name in ("h.csv", "h.jsonl", "h.parquet"):
        refused(lambda name=name: read_table(table(name=name)), name, "GB of memory")


def test_dates_of_parquet(table):
    dates = [dt.datetime(2020, 1, 1, tzinfo=dt.UTC) + dt.timedelta(hours=5 * i) for i in range(N)]
    path = table(houses(sold=dates), "h.parquet")
    dataset = read(path, "price", test=0)
    names = [feature.name for feature in dataset.features]
    expected = [(date - dt.datetime(2000, 1, 1, tzinfo=dt.UTC)) / dt.timedelta(days=1) for date in dates]
    np.testing.assert_allclose(dataset.train[0][:, names.index("sold")], expected, rtol=1e-6)
    assert "sold.hour_cos" in names
    np.testing.assert_array_equal(read_rows(path, dataset.schema)[0], dataset.train[0])


# ---- Few rows


def test_few_rows_are_enough_or_refused_by_name(table):
    few = houses().head(10)
    dataset = read(table(few), "price")
    assert (dataset.task, len(dataset.train[1]), len(dataset.test[1])) == ("regression", 8, 2)
    whole = read(table(few.assign(price=few["price"].round() * 1000 + np.arange(10))), "price")
    assert whole.task == "regression"
    refused(lambda: read(table(few.head(1)), "price"), "houses.csv: 1 row is too few")
    refused(lambda: read(table(few.head(2)), "price"), "houses.csv: 2 rows are too few", "a test and a validation part")
    path = str(table(few.head(4)))
    refused(lambda: make_reference({"path": path, "label": "price"}), "4 rows are too few", "give at least 5")
    make_reference({"path": str(table(few.head(5))), "label": "price"})
    refused(lambda: read(table(few.assign(zone=list("abcdefghij"))), "zone"), "houses.csv: 10 samples of 10 classes")


def test_an_own_share_is_said_in_short(table):
    frame = houses()
    for options, how in (
        ({}, "drawn at random"),
        ({"group": "zone"}, "whole groups"),
        ({"time": "sold"}, "the latest"),
    ):
        notes = read(table(frame), "price", test=0.2, **options).notes
        (note,) = [each for each in notes if each.startswith("test: ")]
        assert f"rows are held out ({how}" in note
        assert "say test" not in note


def test_what_is_said_of_a_column_is_true_of_all_rows(table):
    rows = pd.DataFrame({"n": np.arange(N), "a": RNG.normal(size=N), "t": np.arange(N), "y": [0, 1] * (N // 2)})
    rows["rare"] = [*[None] * (N - 1), 3.5]
    dataset = read(table(rows), "y", time="t")
    assert [each.name for each in dataset.features] == ["a"]
    assert "column 'rare' has no value in the 96 training rows (1 in the other rows); it is dropped" in dataset.notes
    assert "column 'n' numbers the rows; it is dropped" in dataset.notes
    rows["rare"] = [*[1.0] * (N - 2), 3.5, 4.5]
    (note,) = [each for each in read(table(rows), "y", time="t").notes if "rare" in each]
    assert "has one value in the 96 training rows (24 in the other rows)" in note
