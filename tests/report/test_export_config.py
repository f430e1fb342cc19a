from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from hpo.errors import RequestError
from hpo.report.data.results import read_results
from hpo.report.export_config import export_config
from hpo.study.input.config_file import read_config
from tests.report.helpers import BASELINE, add_foreign, filled
from tests.study.helpers import holder, make_study


def test_toml_comes_back_as_the_same_configuration(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=5, baseline=BASELINE)
    for row in read_results(study).trials:
        path = tmp_path / "config.toml"
        path.write_text(export_config(study, row.number))
        found = read_config(path)
        assert found.config == row.config
        assert found.dataset == study.definition.dataset
        assert found.objective == study.definition.objectives[0]
        assert found.notes == []


def test_another_direction_and_the_first_of_several_objectives_come_back(tmp_path: Path) -> None:
    objectives = [{"metric": "val_loss", "direction": "maximize"}, "val_accuracy"]
    study = filled(tmp_path, trials=4, objective=objectives, pruner="none")
    path = tmp_path / "config.toml"
    path.write_text(export_config(study))
    assert read_config(path).objective == study.definition.objectives[0]


def test_json_and_yaml_hold_the_same(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=4, objective={"metric": "val_loss", "direction": "maximize"}, pruner="none")
    table = json.loads(export_config(study, format="json"))
    assert yaml.safe_load(export_config(study, format="yaml")) == table
    assert table["objective"] == {"metric": "val_loss", "direction": "maximize"}


def test_best_is_exported_by_default(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=8)
    best = read_results(study).best
    assert best is not None
    assert export_config(study) == export_config(study, best.number)
    assert f"# trial {best.number} of study filled" in export_config(study)


def test_a_name_cannot_leave_the_comment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "hpo.study.input.study_file.check_name", lambda name: name
    )  # not ours, but a database can hold any name
    text = export_config(filled(tmp_path, "a\nseed = 1", trials=2))
    assert text.splitlines()[0].endswith("of study a seed = 1")


def test_errors_are_one_line(tmp_path: Path) -> None:
    waiting = make_study(tmp_path, "waiting", sampler="tpe", trials=3)
    with pytest.raises(RequestError, match="no COMPLETE trial yet"):
        export_config(waiting)
    study = filled(tmp_path, trials=3)
    with pytest.raises(RequestError, match="no trial 3; its trials are 0 to 2"):
        export_config(study, 3)
    with pytest.raises(RequestError, match="unknown format 'tomll'; did you mean 'toml'"):
        export_config(study, format="tomll")
    add_foreign(study, {"colour": "red"}, 0.9)
    with pytest.raises(RequestError, match=r"trial 3 .* has no configuration: it was added by others"):
        export_config(study, 3)
    claim = waiting.claim(holder())
    assert claim is not None
    with pytest.raises(RequestError, match=r"trial 0 .* has no configuration: it has no parameters yet"):
        export_config(waiting, 0)
