"""A storage on each of the databases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from hpo.study import StudyStorage
from tests.study.helpers import sqlite_url


@pytest.fixture(params=["sqlite", "postgres", "mariadb"])
def any_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database that holds no studies."""
    if request.param == "sqlite":
        return sqlite_url(tmp_path)
    url: str = request.getfixturevalue(f"{request.param}_url")
    storage = StudyStorage(url)
    for study in storage.get_all_studies():
        storage.delete_study(study._study_id)
    storage.engine.dispose()
    return url


@pytest.fixture
def storage(any_url: str) -> Iterator[StudyStorage]:
    """An empty storage."""
    opened = StudyStorage(any_url)
    yield opened
    opened.engine.dispose()
