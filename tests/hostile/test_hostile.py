"""The short form of `python -m tests.hostile`: every command on a few of the damaged databases."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.hostile.damage import PATHS, Damage, list_damage
from tests.hostile.harness import COMMANDS, HEALTHY, Home

ALL = list_damage(HEALTHY / "hpo.db")
ESSENTIAL = ("study_user hpo:definition: ", "study_user hpo:budget: ")
EACH = 3  # of the databases, for each command


def paths() -> list[Damage]:
    """Damage whose text is used as a path."""
    return [each for each in ALL if any(text in each.name for text in PATHS)]


def essentials() -> list[Damage]:
    essential = [each for each in ALL if each.name.startswith(ESSENTIAL) and "of the evaluation" not in each.name]
    return [each for each in essential if not each.name.endswith(": declared")]  # which is whole


@pytest.mark.integration
def test_one_damaged_study_does_not_end_the_list_of_all(tmp_path: Path) -> None:
    home = Home(tmp_path)
    for damage in essentials():
        assert home.run(damage, "list") == [], damage.name
        assert all(name in home.stdout for name in ("own", "tpe", "random")), damage.name
        assert "damaged: hpo:" in home.stdout, damage.name


@pytest.mark.integration
@pytest.mark.parametrize("command", COMMANDS)
def test_a_damaged_database_is_a_line_or_nothing(command: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    first = list(COMMANDS).index(command)
    step = len(ALL) // EACH
    for number in range(EACH):
        damage = ALL[(first * 67 + number * step) % len(ALL)]
        assert home.run(damage, command) == [], damage.name


@pytest.mark.integration
@pytest.mark.parametrize("command", ["worker", "report", "delete", "gc"])
def test_no_text_of_a_database_leads_out_of_the_home(command: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    damage = paths()
    assert damage
    for each in damage[:: max(1, len(damage) // 4)]:
        assert home.run(each, command) == [], each.name


@pytest.mark.integration
@pytest.mark.parametrize("command", ["show", "fork", "worker"])
def test_a_study_without_a_definition_to_read_is_one_line_and_can_be_deleted(command: str, tmp_path: Path) -> None:
    home = Home(tmp_path)
    for damage in essentials()[::11]:
        assert home.run(damage, command) == [], damage.name
        assert home.code == 2, damage.name
        assert "its attribute hpo:" in home.stderr, damage.name
        assert "hpo delete random" in home.stderr, damage.name
        assert home.run(damage, "delete") == [], damage.name
        assert home.code == 0, damage.name
