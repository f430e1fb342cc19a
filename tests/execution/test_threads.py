"""The threads of a study's workers do not depend on who happens to be alive."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hpo.cli import main
from hpo.execution import threads
from hpo.execution.threads import THREADS, choose_threads
from hpo.execution.worker import cores_per_worker
from hpo.study import Study, StudyStorage
from hpo.utils.home import yield_cores
from tests.data import small_npz
from tests.study.helpers import SPACE, holder, make_study


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Study:
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return make_study(tmp_path, parameters={**SPACE, "widths": "4096-4096"})  # which gain by more than one thread


def test_the_first_choice_is_kept_whoever_lives(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hpo.execution.worker.cores", lambda: 8)
    monkeypatch.setattr("hpo.execution.worker.socket.gethostname", lambda: "here")
    assert choose_threads(study, None, lambda: cores_per_worker(study)) == 8
    study.storage.register_worker(study.id, holder("dead", host="here"))
    assert cores_per_worker(study) == 4
    assert choose_threads(study, None, lambda: cores_per_worker(study)) == 8


@pytest.mark.parametrize("name", threads.VARIABLES)
def test_an_explicit_number_wins_and_is_said(
    study: Study, name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert choose_threads(study, 2, lambda: 8) == 2
    assert not caplog.records
    monkeypatch.setenv(name, "3,2")
    assert choose_threads(study, None, lambda: 8) == 3
    assert choose_threads(study, 5, lambda: 8) == 5
    assert [record.getMessage().partition("; ")[0].split(", ")[1] for record in caplog.records] == [
        f"{name} asks for 3 here",
        "--cpus asks for 5 here",
    ]
    monkeypatch.delenv(name)
    assert choose_threads(study, None, lambda: 8) == 2


def test_the_environment_decides_for_a_new_study(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert choose_threads(study, None, lambda: 8) == 3
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert choose_threads(study, None, lambda: 8) == 3


def test_a_smaller_machine_keeps_the_number_and_says_so(
    study: Study, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 2)
    choose_threads(study, 16, lambda: 1)
    caplog.clear()
    assert choose_threads(study, None, lambda: 1) == 16
    assert "its workers have 16 threads, and this machine has 2 cores" in caplog.text


@pytest.mark.parametrize("value", ["0", "-1", "many", "", "1e3"])
def test_a_variable_that_is_no_number_asks_for_nothing(
    study: Study, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert choose_threads(study, None, lambda: 4) == 4


@pytest.mark.parametrize("value", [0, -1, True, "4", None, [4], 1e300])
def test_an_attribute_that_is_no_number_of_threads_is_passed_over(study: Study, value: object) -> None:
    study.storage.set_study_user_attr(study.id, THREADS, value)
    assert choose_threads(study, None, lambda: 4) == 4


def test_hpo_worker_stores_it(study: Study, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[int] = []

    class Stub:
        def __init__(self, _: Study, options: object, __: object, **___: object) -> None:
            chosen.append(options.cpus)  # type: ignore[attr-defined]

        def run(self) -> None:
            pass

    monkeypatch.setattr("hpo.execution.worker.Worker", Stub)
    url = study.storage.url.render_as_string(hide_password=False)
    for more in (["--threads", "3"], []):
        with pytest.raises(SystemExit) as caught:
            main(["worker", "small", "--storage", url, *more])
        assert caught.value.code == 0
    assert chosen == [3, 3]
    assert StudyStorage(url).get_study_user_attrs(study.id)[THREADS] == 3


def test_small_models_get_one_thread_and_larger_ones_their_share(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    data = str(small_npz(tmp_path / "small.npz"))
    for widths, expected in (("8-8", 1), ("4096-4096", 4)):
        parameters = {"learning_rate": {"low": 0.01, "high": 0.1}, "widths": widths}
        made = make_study(tmp_path, widths, dataset=data, parameters=parameters)
        assert choose_threads(made, None, lambda: 4) == expected
        assert choose_threads(made, None, lambda: 2) == expected
        assert choose_threads(made, 3, lambda: 2) == 3


def test_a_command_lets_waiting_threads_sleep_unless_the_environment_says_otherwise(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    yield_cores()
    assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
    monkeypatch.delenv("OMP_WAIT_POLICY")
    with pytest.raises(SystemExit):
        main(["--version"])
    assert os.environ["OMP_WAIT_POLICY"] == "PASSIVE"
