"""A pytest plugin for Optuna's own tests: `StudyStorage` in the place of `RDBStorage`, and of no storage at all.

The tests that take a storage get ours, by itself and behind Optuna's gRPC server; so do those of studies without one,
as most tests of samplers are. What is left out is in `KNOWN`, each with its reason; an entry that no test has is an
error.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import optuna
import optuna.testing.storages as suppliers
import pytest

from hpo.study import StudyStorage

INSIDE = "looks into RDBStorage, whose parts ours does not have"
LIVE = "sees a running trial change in a list that was read before, as in memory alone; RDBStorage fails as well"
# By the test, for all its cases.
KNOWN = {
    "storages_tests/test_storages.py::test_get_storage": "asks which storage a study without one gets; here it is ours",
    "storages_tests/test_storages.py::TestStorage::test_create_new_study_unique_id[sqlite]": (
        "SQLite gives the id of a deleted study away again, for which the test excepts RDBStorage by its class"
    ),
    "trial_tests/test_trial.py::test_persisted_param": INSIDE,
    "storages_tests/test_storages.py::test_get_trials_included_trial_ids": INSIDE,
    "storages_tests/test_storages.py::test_get_trials_trial_id_greater_than": INSIDE,
    "storages_tests/test_heartbeat.py::test_fail_stale_trials": INSIDE,
    "storages_tests/test_heartbeat.py::test_fail_stale_trials_with_race_condition": INSIDE,
    "storages_tests/test_heartbeat.py::test_get_stale_trial_ids": INSIDE,
    "search_space_tests/test_intersection.py::test_intersection_search_space": (
        "enqueues a parameter that is no JSON, which RDBStorage refuses as well"
    ),
    "samplers_tests/test_qmc.py::test_infer_relative_search_space": LIVE,
    "samplers_tests/test_qmc.py::test_infer_relative_search_space_with_suggested_running": LIVE,
    "samplers_tests/test_qmc.py::test_infer_relative_search_space_with_ask_fixed": LIVE,
    "samplers_tests/test_qmc.py::test_infer_relative_search_space_dynamic_warning": LIVE,
    "samplers_tests/test_qmc.py::test_sample_relative_seeding": (
        "counts on trial 0 being the first of three threads to sample, which is chance, on RDBStorage as well"
    ),
}
_folder = tempfile.TemporaryDirectory()
_made = 0


def make_storage(**arguments: Any) -> StudyStorage:
    """Make an empty SQLite file, a copy of one, and open it."""
    global _made
    empty = Path(_folder.name) / "empty.db"
    if not empty.exists():
        StudyStorage(str(empty)).engine.dispose()
    _made += 1
    path = empty.with_name(f"{_made}.db")
    path.write_bytes(empty.read_bytes())
    return StudyStorage(str(path), **arguments)


class Supplier(suppliers.StorageSupplier):
    """Optuna's supplier of storages, of ours."""

    def __enter__(self) -> Any:
        if self.storage_specifier == "grpc_rdb":
            self.storage_specifier = "grpc_proxy"
            self.storage = self._create_proxy(make_storage())
        elif "sqlite" in self.storage_specifier:
            self.storage = make_storage(**self.extra_args)
        else:
            return super().__enter__()
        return self.storage

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        if isinstance(self.storage, StudyStorage):
            self.storage.engine.dispose()


suppliers.STORAGE_MODES[:] = ["sqlite", "grpc_rdb"]
suppliers.STORAGE_MODES_HEARTBEAT[:] = ["sqlite"]
suppliers.StorageSupplier = Supplier  # type: ignore[misc]
_get_storage = optuna.storages.get_storage


def get_storage(storage: Any) -> Any:
    """Return the storage that a study is given, by default a new one of ours."""
    if storage is None:
        return make_storage()
    if isinstance(storage, StudyStorage):
        return storage
    return StudyStorage(storage) if isinstance(storage, str) else _get_storage(storage)


optuna.storages.get_storage = get_storage


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is known.

    Raises:
        pytest.UsageError: what is known is no test of a file that is run as a whole.
    """
    left_out = {name: [item for item in items if _is(item, name)] for name in KNOWN}
    if not config.option.keyword and not any("::" in name for name in config.args):
        files = {item.nodeid.removeprefix("tests/").split("::")[0] for item in items}
        if stale := [name for name, found in left_out.items() if not found and name.split("::")[0] in files]:
            raise pytest.UsageError(f"{stale} are no tests of Optuna {optuna.__version__}: take them out of KNOWN")
    dropped = [item for found in left_out.values() for item in found]
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=dropped)
    config.stash[_LEFT_OUT] = {name: len(found) for name, found in left_out.items()}


_LEFT_OUT = pytest.StashKey[dict[str, int]]()


def _is(item: pytest.Item, name: str) -> bool:
    """Return whether an item is a test of that name, or one of its cases."""
    found = item.nodeid.removeprefix("tests/")
    return found == name or found.startswith(f"{name}[")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """List what was left out."""
    terminalreporter.section("left out, with the number of cases")
    for name, count in config.stash.get(_LEFT_OUT, {}).items():
        if count:
            terminalreporter.line(f"{count:3} {name}: {KNOWN[name]}")
