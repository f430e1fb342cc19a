"""optuna-dashboard as a WSGI application that tells its clients' mistakes from its own faults.

Its views turn every exception into "500 internal server error": an id that does not exist, a body that is no JSON, a
header that is missing. Here they are served without that wrapper, and exceptions are answered in one place.
"""

from __future__ import annotations

import inspect
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from functools import wraps
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, BinaryIO

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.exceptions import UpdateFinishedTrialError
from sqlalchemy.exc import DBAPIError, OperationalError

from hpo.errors import StorageDamagedError
from hpo.report.dashboard.middleware import READS, Application, Environment, Start, send_line
from hpo.study.files.artifacts import ArtifactFolders
from hpo.utils.text import shorten_message

if TYPE_CHECKING:
    from hpo.study import StudyStorage

__all__ = ["make_application"]

LARGEST_ID = 2**31 - 1  # of the schema's integer columns
# What a view raises that was given a body it cannot read, or that the database does not take.
MISREAD = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    DBAPIError,
)
LONGEST_LINE = 150  # characters of an error, which may repeat an address
OWN_FAULTS = (OperationalError, OSError, MemoryError)

logger = logging.getLogger(__name__)


def make_application(storage: StudyStorage) -> Application:
    """Make optuna-dashboard over a storage, with the artifacts of this `HPO_HOME`."""
    from bottle import request, response
    from optuna_dashboard import wsgi

    app: Any = wsgi(storage, artifact_store=_Artifacts())
    app.catchall = False
    app.default_error_handler = _describe_error
    for route in app.routes:
        route.callback = _check_request(inspect.unwrap(route.callback), storage)

    @app.hook("before_request")  # type: ignore[untyped-decorator]
    def expect_json() -> None:
        if request.path.startswith("/api/"):
            response.content_type = "application/json"

    return _answer_errors(app)


class _Artifacts(ArtifactFolders):
    """Artifacts of this `HPO_HOME`; a database may name some whose files are on another machine."""

    def open_reader(self, artifact_id: str) -> BinaryIO:
        from bottle import HTTPError

        try:
            return super().open_reader(artifact_id)
        except ArtifactNotFound as error:
            raise HTTPError(404, "This artifact's file is not in this HPO_HOME.") from error

    def remove(self, artifact_id: str) -> None:
        with suppress(ArtifactNotFound):
            super().remove(artifact_id)


def _check_request(view: Callable[..., Any], storage: StudyStorage) -> Callable[..., Any]:
    """Refuse what no view can answer: ids that do not exist, an `after` that is no number, a body that is no object."""
    from bottle import HTTPError, request

    lookups = {"study_id": storage.get_study_name_from_id, "trial_id": storage.get_trial}

    @wraps(view)
    def checked(**arguments: Any) -> Any:
        for name, look_up in lookups.items():
            if name in arguments and not _exists(arguments[name], look_up):
                raise HTTPError(404, f"There is no {name.removesuffix('_id')} with this id in the storage.")
        if not re.fullmatch(r"[0-9]{1,9}", request.query.get("after", "0")):
            raise HTTPError(400, "The parameter 'after' is not a number of trials.")
        if request.method not in READS and not isinstance(request.json, dict | None):
            raise HTTPError(400, "The body is not a JSON object.")
        return view(**arguments)

    return checked


def _exists(number: int, look_up: Callable[[int], Any]) -> bool:
    if not 0 < number <= LARGEST_ID:
        return False
    try:
        look_up(number)
    except KeyError:
        return False
    return True


def _describe_error(error: Any) -> str:
    """Return the body for an error of bottle's: one line instead of a page."""
    from bottle import request, response

    line = str(error.body)[:LONGEST_LINE]
    if request.path.startswith("/api/"):
        response.content_type = "application/json"
        return json.dumps({"reason": line})
    response.content_type = "text/plain; charset=utf-8"
    return f"{line}\n"


def _answer_errors(application: Application) -> Application:
    """Answer exceptions: 4xx where the request is to blame, else 500 and a line in the log."""

    def answered(environment: Environment, start: Start) -> Iterable[bytes]:
        # The dashboard takes it for granted that browsers send this header, and believes the other one without a body.
        environment.setdefault("HTTP_ACCEPT_ENCODING", "")
        if environment["REQUEST_METHOD"] in READS:
            environment.pop("CONTENT_TYPE", None)
        try:
            return application(environment, start)
        except Exception as error:  # whatever a view raises is answered
            status, line = _find_fault(environment, error)
            if status >= 500:
                logger.exception("dashboard: %r failed", environment.get("PATH_INFO", "")[:200])
            return send_line(environment, start, f"{status.value} {status.phrase}", line)

    return answered


def _find_fault(environment: Environment, error: Exception) -> tuple[HTTPStatus, str]:
    """Return the status of an exception, and a line that says whose fault it is."""
    if isinstance(error, UpdateFinishedTrialError):
        return HTTPStatus.CONFLICT, "This trial has finished and cannot be changed."
    if isinstance(error, StorageDamagedError) and environment["REQUEST_METHOD"] in READS:
        return HTTPStatus.CONFLICT, shorten_message(str(error))
    if isinstance(error, UnicodeDecodeError):
        return HTTPStatus.BAD_REQUEST, "The headers of this request, or its body, are not UTF-8."
    causes = list(_list_causes(error))
    misread = any(isinstance(cause, MISREAD) for cause in causes)
    if environment["REQUEST_METHOD"] in READS or not misread or any(isinstance(cause, OWN_FAULTS) for cause in causes):
        return HTTPStatus.INTERNAL_SERVER_ERROR, "The dashboard failed; its terminal says why."
    return HTTPStatus.BAD_REQUEST, "The body is not the JSON object (application/json) that is asked for here."


def _list_causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
