"""Studies that end without a result, and why."""

from __future__ import annotations

from datetime import datetime, timedelta
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.errors import RunError
from hpo.execution.evaluate import check_results
from hpo.study import Study
from hpo.study.attributes import DEADLINE
from hpo.study.operations.progress import explain_no_result, read_progress
from tests.helpers import run_hpo
from tests.study.helpers import holder, make_study, sqlite_url


def end(study: Study, state: TrialState, *messages: str) -> None:
    """End as many trials as there are messages."""
    for message in messages:
        claim = study.claim(holder())
        assert claim is not None
        study.storage.set_trial_user_attr(claim.id, "message", message)
        study.storage.set_trial_state_values(claim.id, state, [0.5] if state == TrialState.COMPLETE else None)


def test_a_study_without_a_complete_trial_has_its_most_frequent_reason(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=3)
    end(study, TrialState.PRUNED, "too slow")
    assert explain_no_result(study) is None  # it has not ended
    end(study, TrialState.FAIL, "no such layer", "no such layer")
    line = "study 'small' has no complete trial (1 PRUNED, 2 FAIL); the most frequent reason: no such layer"
    assert explain_no_result(study) == line
    with pytest.raises(RunError) as caught:
        check_results([study])
    assert str(caught.value) == line


@pytest.mark.parametrize("sampler", ["random", "tpe"])
def test_a_study_whose_time_is_up_before_a_trial_is_complete_says_so(tmp_path: Path, sampler: str) -> None:
    study = make_study(tmp_path, trials=3, sampler=sampler, timeout=60)
    study.storage.set_study_user_attr(study.id, DEADLINE, 1.0)
    what = "3 WAITING" if sampler == "random" else "no trials"
    assert explain_no_result(study) == f"study 'small' has no complete trial ({what}); its time is up"


def test_a_study_with_a_complete_trial_has_a_result(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=2)
    end(study, TrialState.COMPLETE, "")
    end(study, TrialState.FAIL, "no such layer")
    assert explain_no_result(study) is None
    check_results([study])


def test_commands_say_that_there_is_nothing(tmp_path: Path) -> None:
    make_study(tmp_path, trials=2, sampler="tpe")
    storage = ("--storage", sqlite_url(tmp_path))
    assert run_hpo("trials", "small", *storage).stderr == "study small has no trials yet\n"
    assert run_hpo("retry", "small", *storage).stderr == "study small: no trial has failed\n"
    done = run_hpo("export", "small", "--trials", str(tmp_path / "records"), *storage)
    assert (done.returncode, done.stderr) == (
        2,
        "hpo: study 'small': no trial has begun, so there is nothing to write; launch it first\n",
    )
    assert not (tmp_path / "records").exists()
    done = run_hpo("report", "small", "--out", str(tmp_path / "report"), *storage)
    assert done.returncode == 0
    assert done.stderr.startswith("note: study small has no trials yet")


def test_a_trial_that_trains_for_longer_than_the_others_lengthens_the_time_left(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=12)
    end(study, TrialState.COMPLETE, *(["done"] * 11))
    assert study.claim(holder()) is not None
    begin = datetime.now() - timedelta(seconds=110)
    quick = read_progress(study, begin).seconds_left
    assert quick == pytest.approx(10, abs=2)
    trials = study.trials()
    trials[-1].datetime_start = begin + timedelta(seconds=10)
    study.trials = lambda: trials  # type: ignore[method-assign]
    assert read_progress(study, begin).seconds_left == pytest.approx(100, abs=5)
