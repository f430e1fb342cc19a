"""The command line: translates words into calls and decides nothing.

Only what `--help` needs is imported here; each command imports what it calls, so that the light ones stay light.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable

import click

from hpo.cli import import_sweep, info, manage, models, run, show
from hpo.cli.options import app
from hpo.cli.output import say
from hpo.errors import HpoError

__all__ = ["app", "main"]

COMMANDS = (
    run,
    show,
    models,
    manage,
    import_sweep,
    info,
)  # importing them puts their commands into the group


def main(arguments: Iterable[str] | None = None) -> None:
    """Run a command; every error is one line and an exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    try:
        arguments = [argument for argument in given if argument != "--debug"]
        code = app.main(arguments, prog_name="hpo", standalone_mode=False, obj=debug)
    except (HpoError, click.ClickException) as error:
        if debug:
            raise
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        say(f"hpo: {' '.join(message.split())}")
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read our output has read enough; the interpreter's own flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except Exception as error:
        if debug:
            raise
        say(f"hpo: unexpected {type(error).__name__}: {' '.join(str(error).split())[:500]} (--debug shows where)")
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)
