"""The command `hpo datasets FILE`."""

import json

import numpy as np
import pandas as pd
import pytest

from tests.helpers import run_hpo


@pytest.fixture
def passengers(tmp_path):
    n, rng = 60, np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "PassengerId": np.arange(1, n + 1),
            "Survived": np.arange(n) % 2,
            "Sex": rng.choice(["male", "female"], n),
            "Age": np.where(rng.random(n) < 0.2, np.nan, rng.integers(1, 80, n)),
        }
    )
    frame.to_csv(tmp_path / "passengers.csv", index=False)
    (tmp_path / "passengers.txt").write_text("none")
    return tmp_path


def test_a_table_is_described(passengers):
    done = run_hpo("datasets", "passengers.csv", "--label", "Survived", cwd=passengers)
    assert done.returncode == 0, done.stderr
    assert "passengers.csv: 60 rows, 4 columns" in done.stderr
    assert "task classification: to predict Survived, because it has 2 different whole numbers" in done.stderr
    assert "column 'PassengerId' numbers the rows; it is dropped" in done.stderr
    assert [line.split() for line in done.stdout.splitlines()[-3:]] == [
        ["class", "train", "test"],
        ["0", "24", "6"],
        ["1", "24", "6"],
    ]


def test_a_description_is_json(passengers):
    done = run_hpo("datasets", "passengers.csv", "--label", "Age", "--drop", "Sex", "--format", "json", cwd=passengers)
    description = json.loads(done.stdout)
    assert description["summary"].startswith("60 rows, 4 columns; ")
    assert [column["kind"] for column in description["columns"]] == ["identifier", "number", "category", "number"]
    assert description["outputs"][0]["target"] == "Age"


def test_what_scikit_learn_ships_is_described():
    pytest.importorskip("sklearn")
    done = run_hpo("datasets", "sklearn:iris")
    assert "sklearn:iris: 120 train, 30 test samples: 4 features" in done.stderr
    assert ["setosa", "40", "10"] in [line.split() for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["passengers.csv", "--label", "Survive"], "has no column 'Survive'; did you mean 'Survived'?"),
        (["passengers.csv", "--label", "PassengerId"], "column 'PassengerId': differs in every row"),
        (["passengers.txt"], "passengers.txt: is no data file that can be read; give a table (.csv, "),
        (["other.csv"], "other.csv: not found"),
        (["--label", "Age"], "name it: hpo datasets FILE --label NAME"),
    ],
)
def test_what_is_wrong_is_one_line(passengers, arguments, words):
    done = run_hpo("datasets", *arguments, cwd=passengers)
    assert done.returncode == 2
    assert words in done.stderr.strip().splitlines()[-1]


def test_notes_stand_below_the_columns(tmp_path):
    frame = pd.DataFrame({"price": np.arange(60) * 37_390.5, "sold": [f"2018-01-{i % 28 + 1:02}" for i in range(60)]})
    frame.assign(street="paved").to_csv(tmp_path / "h.csv", index=False)
    done = run_hpo("datasets", "h.csv", cwd=tmp_path)
    assert "note: column 'street' has the same value in every row; it is dropped" in done.stderr
    assert "dropped" not in done.stdout
    assert "0 to 2206040" in done.stdout
    assert "2018-01-01 to 2018-01-28\n" in done.stdout
    done = run_hpo("datasets", "h.csv", "--label", "price", cwd=tmp_path)
    assert done.stderr.count("column 'street'") == 1
