"""Defaults of a command line's arguments, as values of a search."""

from __future__ import annotations

from pathlib import Path

import pytest

from hpo.study.foreign.search import Computed, Constant
from tests.study.foreign.files import IMPORT, read

FILE = (
    IMPORT
    + """
parser = argparse.ArgumentParser()
parser.add_argument("-e", "--max-epochs", type=int, default=25)
parser.add_argument("--decay", type=float, default="1e-3")
parser.add_argument("--rate", dest="lr", default=0.1)
parser.add_argument("--quick", action="store_true")
parser.add_argument("--no-cuda", dest="cuda", action="store_false")
parser.add_argument("--free", type=int)
%s
tune.run(train, config={"x": tune.uniform(0, 1), "value": %s})
"""
)
PARSED = "args = parser.parse_args()"


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("args.max_epochs", 25),
        ("args.decay", 0.001),
        ("args.lr", 0.1),
        ("args.quick", False),
        ("args.cuda", True),
        ("1 if args.quick else 2 * args.max_epochs", 50),
    ],
)
@pytest.mark.parametrize("parsed", [PARSED, "args, _ = parser.parse_known_args()", "args = parser.parse_args([])"])
def test_a_default_of_an_argument_is_a_value_and_said(
    tmp_path: Path, parsed: str, expression: str, value: object
) -> None:
    search = read(tmp_path, FILE % (parsed, expression))
    assert search.parameters[-1].domain == Constant(value)
    assert any("is taken from a default, in line" in note for note in search.notes)


@pytest.mark.parametrize(
    ("parsed", "expression"),
    [
        (PARSED, "args.free"),
        (PARSED, "args.absent"),
        (PARSED, "other.max_epochs"),
        (f"{PARSED}\nargs.max_epochs = 3", "args.max_epochs"),
        (f"{PARSED}\nargs = load()", "args.max_epochs"),
        (f"parser.set_defaults(max_epochs=3)\n{PARSED}", "args.max_epochs"),
        (f"parser.add_argument('--max-epochs', default=3)\n{PARSED}", "args.max_epochs"),
        ("args = parser.parse_args(['--max-epochs', '3'])", "args.max_epochs"),
    ],
)
def test_an_argument_that_may_have_another_value_stays_an_expression(
    tmp_path: Path, parsed: str, expression: str
) -> None:
    assert read(tmp_path, FILE % (parsed, expression)).parameters[-1].domain == Computed(expression)
