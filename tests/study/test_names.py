"""Names of studies: a new one leaves room for those made from it, and one of before gets them all the same."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.config.trial_config import TrialConfig
from hpo.errors import DefinitionError
from hpo.report.chapters.reproduction import study_table
from hpo.report.data.results import read_results
from hpo.report.next_study import suggest_study
from hpo.study import Study
from hpo.study.files.study_files import StudyFiles
from hpo.study.input.study_file import check_name, parse_definition
from hpo.study.operations.copy_study import copy_study
from hpo.study.operations.evaluation_study import create_evaluations, evaluation_studies
from hpo.study.operations.fork import fork_study
from tests.helpers import run_hpo
from tests.study.helpers import holder, make_study

NAMES = ["x" * 100, "日" * 80, "word " * 19 + "end"]


def study_of_before(folder: Path, name: str) -> Study:
    made = make_study(folder)
    return Study.create(made.storage, name, made.definition, made.budget)


@pytest.mark.parametrize("name", NAMES, ids=len)
def test_a_long_name_of_before_does_all_that_a_short_one_does(tmp_path: Path, name: str) -> None:
    study = study_of_before(tmp_path, name)
    StudyFiles(study)
    claim = study.claim(holder())
    assert claim is not None
    study.suggest_config(claim)
    study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
    chosen = [(1, TrialConfig(depth=1), 2)]
    names = set()
    for refit in (False, True):
        (evaluation,) = create_evaluations(study, chosen, 2, refit=refit)
        StudyFiles(evaluation)  # whose folders have the longer name
        assert "-evaluation-refit" in evaluation.name if refit else "-evaluation" in evaluation.name
        names.add(evaluation.name)
    (wider,) = create_evaluations(study, [(2, TrialConfig(depth=2), 2), *chosen], 2)[1:]
    names.add(wider.name)
    assert wider.name.endswith("-evaluation-2")
    assert {each.name for each in evaluation_studies(study)} == names
    assert len(names) == 3
    results = read_results(study)
    for table in (study_table(results), tomllib.loads(suggest_study(results, []))):
        parse_definition(table, "", tmp_path)  # can be launched
    assert list(fork_study(study, "short").kept) == [0]
    copied = copy_study(study, make_study(_folder(tmp_path)).storage, name)
    assert copied.name == name


def _folder(tmp_path: Path) -> Path:
    (tmp_path / "other").mkdir()
    return tmp_path / "other"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("x" * 81, "use up to 80 letters"),
        ("x" * 5000, "x…"),
        ("日" * 80, "in UTF-8 it has 240 bytes, of at most 220"),
        ("a/b", "use up to 80 letters"),
        ("\udc80", "use up to 80 letters"),
    ],
)
def test_a_name_without_room_is_refused_at_launch_with_the_longest(name: str, words: str) -> None:
    with pytest.raises(DefinitionError) as error:
        check_name(name)
    assert words in str(error.value)
    assert len(str(error.value)) < 300


def test_a_launch_refuses_a_name_without_room(tmp_path: Path) -> None:
    done = run_hpo("launch", "quickstart", "--workers", "0", "--name", "x" * 81, cwd=tmp_path)
    assert done.returncode == 2
    assert "use up to 80 letters" in done.stderr
    assert run_hpo("launch", "quickstart", "--workers", "0", "--name", "x" * 80, cwd=tmp_path).returncode == 0
