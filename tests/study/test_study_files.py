"""Which weights are kept, whoever finishes when; and what is swept. No training: weights are a few bytes here."""

from __future__ import annotations

import json
import logging
import os
import random
import sqlite3
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from optuna.trial import TrialState

from hpo.config.trial_config import TrialConfig
from hpo.errors import StudyNotFoundError
from hpo.storage.url import normalize
from hpo.study import Study, StudyStorage
from hpo.study.files.cleanup import find_study_folders, find_unneeded_files, remove_files
from hpo.study.files.marker import MARKER, storage_place
from hpo.study.files.study_files import KEPT, StudyFiles, list_local_weights, rank_trials, weights_path
from hpo.study.operations.evaluation_study import create_evaluations
from hpo.utils.home import home
from tests.study.helpers import holder, make_study, sqlite_url


def write(path: Path, about: Mapping[str, str]) -> None:
    path.write_text(json.dumps(dict(about)))


def finish(files: StudyFiles, value: float, state: TrialState = TrialState.COMPLETE) -> int:
    """Claim a trial, and tell it as a worker does; returns its number."""
    claim = files.study.claim(holder())
    assert claim is not None
    if state != TrialState.COMPLETE:
        files.study.storage.set_trial_state_values(claim.id, state, None if state == TrialState.FAIL else [value])
        return claim.number
    with files.keep_best_weights([(claim.number, value, write)]):
        files.study.storage.set_trial_state_values(claim.id, state, [value])
    return claim.number


def ranked(study: Study) -> list[int]:
    """Numbers of the five best, worked out from all trials."""
    sign = -1 if study.maximize else 1
    done = [t for t in study.trials() if t.state == TrialState.COMPLETE]
    return [t.number for t in sorted(done, key=lambda t: (sign * t.values[0], t.number))[:KEPT]]


@pytest.mark.parametrize("objective", ["val_accuracy", "val_loss"])
def test_the_five_best_keep_their_weights_and_no_others(tmp_path: Path, objective: str) -> None:
    study = make_study(tmp_path, trials=30, objective=objective)
    files = StudyFiles(study)
    rng = random.Random(0)
    for n in range(30):
        state = TrialState.COMPLETE if n % 4 else rng.choice([TrialState.PRUNED, TrialState.FAIL])
        finish(files, rng.randrange(12) / 10, state)  # with equals: the lower number is the better one
        assert sorted(list_local_weights(study)) == sorted(ranked(study))
    best = ranked(study)[0]
    path = weights_path(study, best)
    assert path is not None
    about = json.loads(path.read_text())
    assert about["study"] == "small"
    assert (about["trial"], about["metric"]) == (str(best), objective)
    assert float(about["value"]) == study.trials()[best].value
    assert weights_path(study, 0) is None


def test_of_several_objectives_the_first_decides(tmp_path: Path) -> None:
    study = make_study(tmp_path, trials=8, objective=["val_accuracy", "parameter_count"])
    files = StudyFiles(study)
    for n in range(8):
        claim = study.claim(holder())
        assert claim is not None
        with files.keep_best_weights([(n, n / 10, write)]):
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [n / 10, float(n)])
    assert sorted(list_local_weights(study)) == [3, 4, 5, 6, 7]


def test_the_test_set_chooses_no_weights_of_a_refit(tmp_path: Path) -> None:
    chosen = [(number, TrialConfig(depth=depth), 2) for number, depth in ((7, 1), (3, 2))]
    (study,) = create_evaluations(make_study(tmp_path), chosen, 3, refit=True)
    files = StudyFiles(study)
    place = {"trial 7": 0, "trial 3": 1}
    labels: list[str] = []
    for n in range(study.budget.trials):
        claim = study.claim(holder())
        assert claim is not None
        study.suggest_config(claim)
        labels.append(str(study.storage.get_trial(claim.id).params["configuration"]))
        value = place[labels[-1]] / 10 + n / 100  # the second one has better scores, and so have later seeds
        with files.keep_best_weights([(claim.number, value, write)]):
            study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [value])
    first = sorted(range(6), key=lambda n: (place[labels[n]], n))[:KEPT]
    assert [labels[n] for n in first] == 3 * ["trial 7"] + 2 * ["trial 3"]
    assert sorted(list_local_weights(study)) == sorted(first)
    assert not [each.path for each in find_unneeded_files(study.storage) if each.path.suffix == ".safetensors"]


def test_a_trial_among_the_best_is_never_without_whoever_finishes_when(any_url: str, tmp_path: Path) -> None:
    made = make_study(tmp_path, trials=80)
    study = Study.create(StudyStorage(any_url), "raced", made.definition, made.budget)
    rng = random.Random(1)
    values = [rng.random() for _ in range(80)]
    missing: list[set[int]] = []

    def work(number: int) -> None:
        mine = Study(StudyStorage(any_url), "raced")
        files = StudyFiles(mine)  # each worker has seen other trials
        while (claim := mine.claim(holder(f"w{number}"))) is not None:
            with files.keep_best_weights([(claim.number, values[claim.number], write)]):
                mine.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [values[claim.number]])
            before, here, after = rank_trials(mine)[0], set(list_local_weights(mine)), rank_trials(mine)[0]
            missing.append({number for _, number in set(before) & set(after)} - here)  # the best all the while
        mine.storage.engine.dispose()

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert missing == [set()] * 80
    study = Study(StudyStorage(any_url), "raced")
    assert set(ranked(study)) <= set(list_local_weights(study))
    for each in find_unneeded_files(study.storage, "raced"):
        remove_files(each.path)
    assert sorted(list_local_weights(study)) == sorted(ranked(study))
    study.storage.engine.dispose()


def test_killed_between_publishing_and_telling_a_trial_keeps_what_it_needs(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    numbers = [finish(files, 0.1 * n) for n in range(5)]
    claim = study.claim(holder())
    assert claim is not None
    with pytest.raises(KeyboardInterrupt), files.keep_best_weights([(claim.number, 0.9, write)]):
        raise KeyboardInterrupt
    assert sorted(list_local_weights(study)) == [*numbers, claim.number]  # a file too many, and none too few
    assert find_unneeded_files(study.storage) == []  # it may be told at any moment
    with StudyFiles(study).keep_best_weights([(claim.number, 0.9, write)]):  # by the one who took the trial over
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.9])
    assert sorted(list_local_weights(study)) == sorted(ranked(study)) == [1, 2, 3, 4, 5]


def test_weights_that_cannot_be_written_do_not_cost_the_trial(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)

    def full(path: Path, about: Mapping[str, str]) -> None:
        with open("/dev/full", "w") as disk:  # noqa: PTH123
            disk.write("x")

    claim = study.claim(holder())
    assert claim is not None
    with caplog.at_level(logging.WARNING), files.keep_best_weights([(claim.number, 0.5, full)]):
        study.storage.set_trial_state_values(claim.id, TrialState.COMPLETE, [0.5])
    assert "0.safetensors: not written ([Errno 28] No space left on device); the trial counts" in caplog.text
    assert study.trials()[0].value == 0.5


def test_a_trial_that_is_clearly_beaten_costs_no_query(tmp_path: Path) -> None:
    import sqlalchemy as sa

    study = make_study(tmp_path, trials=20)
    files = StudyFiles(study)
    for n in range(10):
        finish(files, 1 - n / 100)
    statements: list[str] = []
    sa.event.listen(study.storage.engine, "before_cursor_execute", lambda *a: statements.append(a[2]))
    with files.keep_best_weights([(15, 0.1, write)]):
        pass
    assert statements == []


def test_of_several_workers_that_begin_at_once_all_have_one_key(any_url: str, tmp_path: Path) -> None:
    made = make_study(tmp_path)
    study = Study.create(StudyStorage(any_url), "keyed", made.definition, made.budget)
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: StudyFiles(study).key, range(16)))
    assert len(keys) == 1
    study.storage.engine.dispose()


# Sweeping.


def names(study: Study) -> list[str]:
    return sorted(str(each.path.relative_to(home())) for each in find_unneeded_files(study.storage) if not each.stays)


def test_finished_trials_lose_their_checkpoints_and_others_never(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    for state in states:
        finish(files, 0.5, state)
    assert study.claim(holder()) is not None  # trial 3 is in training, the rest waits
    for number in (0, 1, 2, 3, 4, 99):
        files.checkpoint(number).write_bytes(b"x" * 1000)
    (files.checkpoint(0).parent / "notes.txt").write_text("the user's own")
    found = find_unneeded_files(study.storage)
    assert [(each.path.name, each.size, each.why) for each in found] == [
        ("0.pt", 1000, "trial 0 is COMPLETE"),
        ("1.pt", 1000, "trial 1 is PRUNED"),
        ("2.pt", 1000, "trial 2 is FAIL"),
        ("99.pt", 1000, "there is no trial 99"),
    ]


def test_weights_beyond_the_best_are_swept_and_those_of_a_trial_about_to_be_told_are_not(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    for n in range(6):
        finish(files, n / 10)
    finish(files, 0.9, TrialState.PRUNED)
    assert study.claim(holder()) is not None
    for number in (0, 6, 7, 8):
        files.weights(number).write_bytes(b"left")
    assert [Path(name).name for name in names(study)] == ["0.safetensors", "6.safetensors"]
    assert [each.why for each in find_unneeded_files(study.storage)] == [
        "trial 0 is COMPLETE, and not among the best",
        "trial 6 is PRUNED",
    ]


def test_what_killed_writers_left_is_swept_after_an_hour(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = StudyFiles(study).checkpoint(0).parent
    old, new = folder / ".0.pt.123.0a1b2c3d", folder / ".0.pt.124.0a1b2c3d"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000,) * 2)
    assert [Path(name).name for name in names(study)] == [old.name]


def test_a_deleted_study_is_swept_and_the_one_made_again_is_not(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    finish(files, 0.5)
    files.checkpoint(1).write_bytes(b"x")
    old = [each.path for each in find_study_folders(study)]
    study.storage.delete_study(study.id)
    again = make_study(tmp_path)
    assert (again.name, again.id) == (study.name, study.id)  # SQLite gives the id again
    new = StudyFiles(again)
    new.checkpoint(1).write_bytes(b"x")
    finish(new, 0.5)
    assert names(again) == sorted(str(path.relative_to(home())) for path in old)
    assert list_local_weights(again).keys() == {0}
    assert {each.why for each in find_unneeded_files(again.storage, "small")} == {"study small is deleted"}
    assert find_unneeded_files(again.storage, "small")[0].size > 1


def test_what_belongs_to_another_storage_is_never_touched(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    study, other = make_study(tmp_path), make_study(tmp_path / "other")
    for each in (study, other):
        files = StudyFiles(each)
        finish(files, 0.5)
        files.checkpoint(0).write_bytes(b"x")
    for unknown in (False, True):
        found = find_unneeded_files(study.storage, unknown=unknown)
        foreign = [each for each in found if "of another storage" in each.why]
        assert {each.path for each in foreign} == {each.path for each in find_study_folders(other)}
        assert all(each.stays for each in foreign)
        assert [each.path.name for each in found if not each.stays] == ["0.pt"]
    assert list_local_weights(study)[0] != list_local_weights(other)[0]


def test_a_copy_by_another_tool_has_the_checkpoints_of_all_fits_and_files_of_its_own(
    tmp_path: Path,
) -> None:
    study = make_study(tmp_path)
    files = StudyFiles(study)
    mine = files.checkpoint(0, 2).parent / "fit-1" / ".cache" / "notes.txt"
    for path in (files.checkpoint(0), files.checkpoint(0, 2), mine):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)
    (tmp_path / "copy").mkdir()
    with closing(sqlite3.connect(tmp_path / "studies.db")) as source:
        source.execute("VACUUM INTO ?", [str(tmp_path / "copy" / "studies.db")])
    copied = StudyFiles(Study(StudyStorage(sqlite_url(tmp_path / "copy")), study.name))
    assert copied.key != files.key
    folder, original = copied.folder("checkpoints"), files.folder("checkpoints")
    assert {each.relative_to(folder) for each in folder.rglob("*")} == {
        each.relative_to(original) for each in original.rglob("*")
    }
    (folder / mine.relative_to(original)).write_text("changed in place by the loop")
    assert mine.read_text() == "notes.txt"


def test_a_folder_that_does_not_say_whose_it_is_stays_unless_asked_for(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    folder = home() / "checkpoints" / "old"
    folder.mkdir(parents=True)
    (folder / "3.pt").write_bytes(b"x" * 10)
    (home() / "weights" / "odd").mkdir(parents=True)
    (home() / "weights" / "odd" / MARKER).write_text("[]")
    assert [(e.path.name, e.size, e.stays) for e in find_unneeded_files(study.storage)] == [
        ("old", 10, True),
        ("odd", 2, True),
    ]
    assert not any(each.stays for each in find_unneeded_files(study.storage, unknown=True))
    assert find_unneeded_files(study.storage, "small", unknown=True) == []


def test_a_study_that_never_was_is_refused(tmp_path: Path) -> None:
    study = make_study(tmp_path)
    assert find_unneeded_files(study.storage, "small") == []
    with pytest.raises(StudyNotFoundError, match="did you mean 'small'"):
        find_unneeded_files(study.storage, "smal")


def test_a_database_of_this_machine_is_told_from_one_of_the_same_url_elsewhere(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    urls = [normalize(url) for url in (sqlite_url(tmp_path), "postgresql://me:secret@localhost/x", "mysql:///x")]
    server = normalize("postgresql://me:secret@db.example.org/x")
    here = [storage_place(url) for url in urls]
    there = storage_place(server)
    monkeypatch.setattr("socket.gethostname", lambda: "elsewhere")
    assert not set(here) & {storage_place(url) for url in urls}
    assert storage_place(server) == there
    assert not any("secret" in text for text in [*here, there])
