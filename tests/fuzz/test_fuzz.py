"""The short form of what `make fuzz` does for ten minutes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.harness import fuzz


@pytest.mark.integration
def test_every_reader_gives_a_value_or_one_line_for_damaged_files(tmp_path: Path) -> None:
    summary, findings = fuzz(6, 0, tmp_path)
    assert findings == [], summary
    assert " inputs: " in summary
