from __future__ import annotations

from pathlib import Path

import optuna
import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState

from hpo.study import Study, StudyStorage
from hpo.study.input.study_file import parse_definition
from hpo.study.operations.list_studies import list_studies
from hpo.study.operations.worker_status import format_trial_numbers
from tests.study.helpers import holder


def test_a_row_per_study_with_its_best_in_its_direction(any_url: str, tmp_path: Path) -> None:
    storage = StudyStorage(any_url)
    for name, objective in (("rising", "val_accuracy"), ("falling", "val_loss")):
        table = {"objective": objective, "trials": 5, "sampler": "random", "parameters": {"width": [8, 16]}}
        study = Study.create(storage, *parse_definition(table, name, tmp_path))
        for value in (0.25, 0.75, float("inf")):
            claim = study.claim(holder())
            assert claim is not None
            storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
        best = study.best()
        assert best is not None
        assert best.value == (0.75 if name == "rising" else 0.25)
    optuna.create_study(storage=storage, study_name="plain")
    storage.create_new_study([StudyDirection.MINIMIZE] * 2, "plain, two objectives")
    storage.engine.dispose()

    rows = {row["name"]: row for row in list_studies(any_url)}
    assert list(rows) == ["falling", "plain", "plain, two objectives", "rising"]
    assert (rows["rising"]["best"], rows["falling"]["best"], rows["plain"]["best"]) == (0.75, 0.25, None)
    assert (rows["rising"]["trials"], rows["rising"]["complete"], rows["rising"]["waiting"]) == (5, 3, 2)
    assert rows["plain"]["note"] == "not made by hpo"


def test_a_database_without_tables_has_no_studies_and_gets_no_tables(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'empty.db'}"
    engine = sa.create_engine(url)
    engine.connect().close()
    (tmp_path / "empty.db").touch()
    assert list_studies(url) == []
    assert sa.inspect(engine).get_table_names() == []


def test_a_cohort_s_trials_are_told_in_a_line() -> None:
    assert format_trial_numbers([]) == ""
    assert format_trial_numbers([3, 1]) == "3 1"
    assert format_trial_numbers(range(40)) == "0 1 2 3 4 5 … (40 trials)"
