"""A trial under Syne Tune: a script with the parameters as arguments, which reports each epoch."""

from __future__ import annotations

from argparse import ArgumentParser

from syne_tune import Reporter

from benchmarks.rivals.session import session
from benchmarks.rivals.tools.torch_loop import train

if __name__ == "__main__":
    space, parser = session.space, ArgumentParser()
    types = {name: type(choices[0]) for name, choices in space.choices.items()}
    types |= dict.fromkeys(space.integers, int) | dict.fromkeys(space.rates, float)
    for name, kind in types.items():
        parser.add_argument(f"--{name}", type=kind)
    report = Reporter()
    for epoch, accuracy in enumerate(train(vars(parser.parse_known_args()[0])), start=1):
        report(epoch=epoch, accuracy=accuracy)
