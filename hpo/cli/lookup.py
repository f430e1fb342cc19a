"""Look-ups that commands share: from names and URLs to objects, and back to command lines."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING

from hpo.cli.output import program

if TYPE_CHECKING:
    from hpo.execution.backends.base import Backend
    from hpo.execution.worker_options import WorkerOptions
    from hpo.study import Study, StudyStorage

__all__ = [
    "format_command_line",
    "load_runnable_study",
    "load_study",
    "make_backend",
    "mask_urls",
    "open_storage",
]


def open_storage(storage: str | None) -> StudyStorage:
    """Open the storage of that URL, or the default one; it must exist."""
    from hpo.study import StudyStorage
    from hpo.utils.home import default_storage

    return StudyStorage(storage or default_storage(), create=False)


def mask_urls(storage: str | None) -> str:
    """Return the URL of that storage, or of the default one, without its password."""
    from hpo.storage.url import mask
    from hpo.utils.home import default_storage

    return mask(storage or default_storage())


def load_study(name: str, storage: str | None, imports: Sequence[str] = ()) -> Study:
    """Load a study to read it; what its definition names need not be registered."""
    from hpo.study.operations.open_study import open_study

    return open_study(name, storage, imports)


def load_runnable_study(name: str, storage: str | None, imports: Sequence[str]) -> Study:
    """Load a study to train it, and check that everything is registered that its definition names."""
    study = load_study(name, storage, imports)
    study.definition.check_registered()
    return study


def make_backend(backend: str, address: str | None, slurm: Sequence[str], options: WorkerOptions) -> Backend:
    """Make the backend that the options of a command name.

    Raises:
        RequestError: an option belongs to another backend.
    """
    from hpo.errors import RequestError
    from hpo.execution.launch import check_backend

    for option, value, owner in (("--address", address, "ray"), ("--slurm", slurm, "slurm")):
        if value and backend != owner:
            raise RequestError(f"{option}: belongs to --backend {owner}, but this one is {backend}")
    made = _construct_backend(backend, address, slurm)
    check_backend(made, options)
    return made


def _construct_backend(backend: str, address: str | None, slurm: Sequence[str]) -> Backend:
    if backend == "ray":
        from hpo.execution.backends.ray import Ray

        return Ray(address)
    if backend == "slurm":
        from hpo.execution.backends.slurm import Slurm, parse_slurm_options

        return Slurm(parse_slurm_options(slurm))
    from hpo.execution.backends.local import Local

    return Local()


def format_command_line(command: str, study: Study, imports: Sequence[str] = ()) -> str:
    """Return a command on the study as it can be typed; one that trains imports the same modules, or else the
    study's.
    """
    named = (imports or _list_imports(study)) if command in ("launch", "worker") else ()
    modules = "".join(f" --import {shlex.quote(module)}" for module in named)
    name, storage = shlex.quote(study.name), shlex.quote(study.storage.masked_url)
    location = study.definition.function_location
    if location is not None and command in ("evaluate", "worker"):
        modules += f" --objective {shlex.quote(location)}"
    elif location is not None and command == "launch":
        name = f"{shlex.quote(location)} --name {name}"
    return f"{program()} {command} {name} --storage {storage}{modules}"


def _list_imports(study: Study) -> Sequence[str]:
    """Return the modules that training a study needs; none where its definition is damaged, which training will say."""
    from hpo.errors import StudyDamagedError

    try:
        return study.definition.imports
    except StudyDamagedError:
        return ()
