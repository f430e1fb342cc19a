"""Command line: translates arguments into calls of the library, which decides.

Modules of commands import only what `--help` needs; each command imports what it calls, so that light ones stay light.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from hpo.cli import evaluate, import_search, info, launch, manage, models, show, train, worker
from hpo.cli.options import OutputClosedError, app
from hpo.cli.output import say
from hpo.errors import HpoError
from hpo.utils.exits import translate_exits
from hpo.utils.garbage import end_without_collection
from hpo.utils.home import yield_cores
from hpo.utils.masking import mask_secrets
from hpo.utils.text import shorten

__all__ = ["app", "main"]

# Importing them puts their commands into the group.
COMMANDS = (launch, worker, train, evaluate, show, models, manage, import_search, info)
LINE_LIMIT = 3000  # characters of an error; whatever it quotes is cut, not what to do


def main(arguments: Iterable[str] | None = None) -> None:
    """Run a command; every error becomes one line and an exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words
    yield_cores()
    end_without_collection()
    try:
        words = [word for word in words if word != "--debug"]
        with translate_exits():  # of user code: an exit code of its own would be taken for the command's
            code = app.main(words, prog_name="hpo", standalone_mode=False, obj=debug)
    except (HpoError, click.ClickException) as error:
        if debug:
            raise
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        say(f"hpo: {shorten(' '.join(message.split()), LINE_LIMIT, quote=False)}")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except OutputClosedError:
        # The interpreter's own flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        text = " ".join(mask_secrets(str(error)).split())[:500]
        say(f"hpo: unexpected {type(error).__name__}: {text} (--debug shows where)")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
