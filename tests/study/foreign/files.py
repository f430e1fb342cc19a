"""Files of other tools that tests write and read, and what is said against them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from hpo.errors import RequestError
from hpo.study.foreign.readers import read_search
from hpo.study.foreign.search import Choices, Constant, ForeignDomain, ForeignSearch, Range

IMPORT = "from ray import tune\n"


def read(tmp_path: Path, text: str, suffix: str = ".py") -> ForeignSearch:
    path = tmp_path / f"theirs{suffix}"
    path.write_text(text, encoding="utf-8")
    return read_search(path)


def read_json(tmp_path: Path, document: Any) -> ForeignSearch:
    return read(tmp_path, json.dumps(document), ".json")


def refusal(tmp_path: Path, text: str, suffix: str = ".py") -> str:
    """Return what is said against a file, in one line that begins with the file."""
    with pytest.raises(RequestError) as error:
        read(tmp_path, text, suffix)
    beginning, _, message = str(error.value).partition(": ")
    assert beginning == str(tmp_path / f"theirs{suffix}")
    assert "\n" not in message
    return message


def points(domain: ForeignDomain) -> set[float]:
    match domain:
        case Constant(value):
            return {value}
        case Choices(values):
            return set(values)
        case Range(low, high, step=float() | int() as step):
            return {round(low + step * number, 9) for number in range(round((high - low) / step) + 1)}
        case Range(low, high, integer=True):
            return set(range(int(low), int(high) + 1))
    raise AssertionError(domain)


def sweeper(name: str, **section: Any) -> str:
    return yaml.safe_dump({"defaults": [{"override hydra/sweeper": name}], "hydra": {"sweeper": section}})
