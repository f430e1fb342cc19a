"""docs/postgresql.md, command by command, as it stands."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest

from hpo.errors import StorageError
from hpo.study import Study, StudyStorage
from hpo.study.operations.list_studies import list_studies
from tests import servers
from tests.helpers import ROOT

TEXT = (ROOT / "docs" / "postgresql.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```sh\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)


SERVER_USER = "postgres" if os.geteuid() == 0 and "postgres" in {entry.pw_name for entry in pwd.getpwall()} else None


class Shell:
    """One person's shell: what a block of commands sets, the next one has. PostgreSQL refuses to run as root."""

    def __init__(self, home: Path) -> None:
        assert servers.POSTGRES is not None
        self.home = home
        places = [str(Path(servers.POSTGRES).resolve().parent), str(Path(sys.executable).parent), os.environ["PATH"]]
        self.variables = {"HOME": str(home), "PATH": os.pathsep.join(places), "PYTHONPATH": str(ROOT)}

    def run(self, block: str) -> None:
        user = None if "hpo doctor" in block else SERVER_USER
        variables = self.home / ".variables"
        with (self.home / ".output").open("w+") as output:
            done = subprocess.run(
                ["bash", "-c", f"set -aeo pipefail\n{block}\nenv --null > {variables}"],
                env=self.variables, user=user, cwd=self.home, stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                check=False, timeout=120,
            )  # fmt: skip
            output.seek(0)
            assert done.returncode == 0, f"{block}\n{output.read()}"
        pairs = variables.read_text().rstrip("\0").split("\0")
        self.variables = dict(pair.split("=", 1) for pair in pairs)
        variables.unlink()


@pytest.fixture
def shell() -> Iterator[Shell]:
    """A shell in a home of its own, which whoever runs the server may enter, as pytest's folders he may not."""
    if servers.POSTGRES is None:
        pytest.skip("PostgreSQL's programs are missing")
    home = Path(tempfile.mkdtemp(prefix="hpo-recipe-"))
    if SERVER_USER:
        shutil.chown(home, SERVER_USER)
    shell = Shell(home)
    yield shell
    if (home / "hpo-postgresql" / "postmaster.pid").exists():
        shell.run('pg_ctl stop --mode=immediate --pgdata="$HOME/hpo-postgresql"')
    shutil.rmtree(home)


def test_the_recipe_ends_with_a_study_on_a_server_of_ones_own(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    for block in BLOCKS:
        shell.run(block)
    url, password = shell.variables["OPTUNA_STORAGE"], shell.variables["PASSWORD"]
    assert password not in url
    with pytest.raises(StorageError, match="no password supplied"):
        StudyStorage(url)
    with pytest.raises(StorageError, match="password authentication failed") as error:
        StudyStorage(url.replace("hpo@", "hpo:wrong@"))
    assert "wrong" not in str(error.value)

    monkeypatch.setenv("PGPASSFILE", str(shell.home / ".pgpass"))
    storage = StudyStorage(url)
    assert Study(storage, "quickstart").budget.trials == 16  # made by a block, before the server was started again
    created = optuna.create_study(storage=storage, study_name="mine")
    created.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    assert [row["name"] for row in list_studies(url)] == ["mine", "quickstart"]
    with storage.engine.connect() as connection:
        rules = connection.exec_driver_sql("SELECT address, auth_method, error FROM pg_hba_file_rules").all()
        assert ("10.0.0.0", "scram-sha-256", None) in [tuple(rule) for rule in rules]
        assert {rule.auth_method for rule in rules} == {"scram-sha-256"}
        assert connection.exec_driver_sql("SHOW listen_addresses").scalar() == "*"
    storage.engine.dispose()


def test_only_installing_is_not_run() -> None:
    every = re.findall(r"^```([^\n]*)\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    assert {kind for kind, _ in every} == {"sh", "sh install"}
    untested = [line.split()[:2] for kind, block in every if kind == "sh install" for line in block.splitlines()]
    assert untested == [["micromamba", "create"], ["export", untested[1][1]], ["pip", "install"]]
