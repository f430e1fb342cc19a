"""From words to objects, and back to commands to be typed."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hpo.cli.output import program

if TYPE_CHECKING:
    from hpo.execution.backends.base import Backend
    from hpo.study import Study, StudyStorage

__all__ = [
    "format_command_line",
    "load_runnable_study",
    "load_study",
    "make_backend",
    "mask_urls",
    "open_storage",
    "write_report_of",
]


def open_storage(storage: str | None) -> StudyStorage:
    """The storage of that URL, or the one that commands use unless told otherwise; it must exist."""
    from hpo.study import StudyStorage
    from hpo.utils.home import default_storage

    return StudyStorage(storage or default_storage(), create=False)


def mask_urls(storage: str | None) -> str:
    """Its URL without a password."""
    from hpo.storage.url import mask
    from hpo.utils.home import default_storage

    return mask(storage or default_storage())


def load_study(name: str, storage: str | None) -> Study:
    """The study, whatever its definition needs."""
    from hpo.study import Study

    return Study(open_storage(storage), name)


def load_runnable_study(name: str, storage: str | None, imports: Sequence[str]) -> Study:
    """The study, with everything registered that its definition names."""
    from hpo.config import registry

    study = load_study(name, storage)
    registry.import_modules(imports)
    study.definition.check_registered()
    return study


def make_backend(backend: str, address: str | None, slurm: Sequence[str], gpus: float | None) -> Backend:
    """The backend that the options of a command name.

    Raises:
        RequestError: an option belongs to another one.
    """
    from hpo.errors import RequestError

    for option, given, owner in (("--address", address, "ray"), ("--slurm", slurm, "slurm")):
        if given and backend != owner:
            raise RequestError(f"{option}: belongs to --backend {owner}, but this one is {backend}")
    if gpus is not None and backend == "local":
        raise RequestError("--gpus: workers on this machine have one GPU each where there are several; leave it out")
    if backend == "ray":
        from hpo.execution.backends.ray import Ray

        return Ray(address)
    if backend == "slurm":
        from hpo.execution.backends.slurm import Slurm, parse_slurm_options

        return Slurm(parse_slurm_options(slurm))
    from hpo.execution.backends.local import Local

    return Local()


def format_command_line(command: str, study: Study, imports: Sequence[str] = ()) -> str:
    """A command on the study, to be typed as it stands."""
    modules = "".join(f" --import {shlex.quote(module)}" for module in imports)
    name, storage = shlex.quote(study.name), shlex.quote(study.storage.masked_url)
    return f"{program()} {command} {name} --storage {storage}{modules}"


def write_report_of(study: Study, out: Path | None) -> Any:
    """Write the report to `out`, or to the study's folder of reports, and to the dashboard; returns its paths."""
    from hpo.report.dashboard.publish import publish_report
    from hpo.report.report_data import read_report_data
    from hpo.report.write import write_report
    from hpo.utils.home import folder

    data = read_report_data(study)
    paths = write_report(data, out or folder("reports", study.name))
    publish_report(data)
    return paths
