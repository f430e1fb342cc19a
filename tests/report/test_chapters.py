"""Chapters and what renders them: their order, cost, the commands of the reproduction, files beside the Markdown."""

from __future__ import annotations

import base64
import io
import re
import tomllib
from collections import Counter
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from hpo.report.chapters.blocks import Chapter, Column, DataTable, Note, Pictures
from hpo.report.chapters.cost import estimate_pruning_savings
from hpo.report.chapters.order import findings_chapter, make_chapters
from hpo.report.chapters.reproduction import format_study_file
from hpo.report.checks.finding import Finding
from hpo.report.data.results import read_results
from hpo.report.render.html import render_html
from hpo.report.render.markdown import FIGURES, render_markdown
from hpo.report.report_data import read_report_data
from hpo.report.write import write_report
from hpo.study import Study
from hpo.study.input.study_file import parse_definition
from tests.report.helpers import BASELINE, evaluated, filled
from tests.study.helpers import make_study

SVG = "{http://www.w3.org/2000/svg}"
ORDER = (
    "honest", "corrected", "data_sets", "studies", "variance", "nested", "best", "findings", "mattered", "curves",
    "comparison", "mistakes", "samples", "pareto", "inside", "racing", "settled", "cost", "trials", "history", "slices",
    "parallel", "timeline", "definition", "reproduction",
)  # fmt: skip


def keys(study: Study) -> list[str]:
    return [chapter.key for chapter in make_chapters(read_report_data(study))]


def test_chapters_stand_in_their_order(tmp_path: Path) -> None:
    study = filled(tmp_path, objective=["val_accuracy", "parameter_count"], pruner="none", trials=12)
    found = keys(study)
    assert found == [key for key in ORDER if key in found]
    assert {"honest", "best", "pareto", "cost", "trials", "timeline", "definition", "reproduction"} <= set(found)


def test_a_chapter_with_nothing_to_say_is_left_out(tmp_path: Path) -> None:
    assert not {"best", "pareto", "cost", "history", "slices", "timeline"} & set(keys(make_study(tmp_path)))


def test_the_best_of_single_runs_is_told_from_the_one_that_fresh_seeds_rank_first(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=6)
    ranked = sorted(study.trials(), key=lambda trial: -trial.value)  # type: ignore[operator]
    first, second = ranked[0].number, ranked[1].number
    evaluated(study, [first, second], {f"trial {first}": 0.9, f"trial {second}": 0.95, "defaults": 0.8})
    text = write_report(study, tmp_path / "out").markdown.read_text().split("## Best configuration")[1]
    assert text.strip().startswith(f"Trial {first},")
    assert f"From fresh seeds, trial {second} is the best; export it with `hpo export filled --trial {second}" in text
    agreeing = filled(tmp_path, "agreeing", trials=6)
    evaluated(agreeing, [first, second], {f"trial {first}": 0.95, f"trial {second}": 0.9, "defaults": 0.8})
    assert "From fresh seeds" not in write_report(agreeing, tmp_path / "agreeing").markdown.read_text()


def test_findings_are_told_by_their_urgency() -> None:
    levels = ("ok", "unknown", "note", "warning", "ok")
    found = findings_chapter([Finding(f"c{i}", f"t{i}", level, "Evidence.") for i, level in enumerate(levels)])
    assert found is not None
    assert [block.level for block in found.blocks if isinstance(block, Note)] == ["warning", "note"]
    assert len(found.blocks) == 4
    assert findings_chapter([]) is None


def test_what_pruning_saved_is_the_epochs_that_were_left_out(tmp_path: Path) -> None:
    study = filled(tmp_path, states=("COMPLETE", "PRUNED", "diverged"), trials=9)
    saved = estimate_pruning_savings(read_results(study))
    # Three were pruned after 2 of 4 epochs, each of half a second; those that diverged were not pruned.
    assert saved == (3, 6, pytest.approx(3.0))
    assert estimate_pruning_savings(read_results(filled(tmp_path, "all", trials=3))) is None


def test_the_study_file_defines_the_same_study(tmp_path: Path) -> None:
    sampler = {"name": "tpe", "n_startup_trials": 4}
    bounds = ["parameter_count <= 100000", "val_accuracy >= 0.1"]
    more = {"seed": 7, "sampler": sampler, "record_steps": True, "constraints": bounds}
    study = filled(tmp_path, trials=5, baseline=BASELINE, **more)
    written = write_report(study, tmp_path / "out").study
    assert written is not None
    name, definition, budget = parse_definition(tomllib.loads(written.read_text()), "other", tmp_path)
    assert name == "filled"
    assert definition.model_dump() == study.definition.model_dump()
    assert budget == study.budget


def test_an_evaluation_has_no_study_file(tmp_path: Path) -> None:
    study = filled(tmp_path, trials=3)
    best = study.best()
    assert best is not None
    (companion, *_) = evaluated(study, [best.number], {f"trial {best.number}": 0.97, "defaults": 0.9})
    assert format_study_file(read_results(companion)) == ""
    assert write_report(companion, tmp_path / "out").study is None


def test_the_reproduction_has_the_commands_of_the_command_line(tmp_path: Path) -> None:
    from hpo.cli import main

    study = filled(tmp_path, trials=3)
    text = write_report(study, tmp_path / "out").markdown.read_text().split("## Reproduction")[1]
    verbs = re.findall(r"^hpo (\w+)", text, flags=re.MULTILINE)
    assert verbs == ["launch", "evaluate", "report", "export", "train", "dashboard"]
    for verb in verbs:
        with pytest.raises(SystemExit) as ended:
            main([verb, "--help"])
        assert ended.value.code == 0


def test_pictures_and_figures_are_files_beside_the_markdown(tmp_path: Path, real_svg: None) -> None:
    buffer = io.BytesIO()
    Image.new("L", (28, 28), 128).save(buffer, "PNG")
    pictures = Pictures("digits", [buffer.getvalue()] * 3, ["1", "a <b>", "a long caption of two lines"], columns=2)
    text, files = render_markdown("n", ["v"], [], [Chapter("samples", "Samples", [pictures])], "now")
    assert list(files) == ["digits.svg"]
    assert f"({FIGURES}/digits.svg)" in text
    drawn = ElementTree.fromstring(files["digits.svg"])
    [image] = drawn.iter(f"{SVG}image")
    content = Image.open(io.BytesIO(base64.b64decode(image.attrib["href"].partition(",")[2])))
    assert Counter(np.asarray(content).ravel().tolist())[128] == 3 * 14 * 14  # a pixel for each block of four
    assert [each.text for each in drawn.iter(f"{SVG}text")] == ["1", "a <b>", "a long caption", "of two lines"]
    html = render_html("n", ["v"], [], [Chapter("samples", "Samples", [pictures])], "now")
    assert html.count('<img src="data:image/png;base64,') == 3

    study = filled(tmp_path, trials=6)
    told = write_report(study, tmp_path / "out").markdown.read_text()
    shown = set(re.findall(rf"\({FIGURES}/([^)]+)\)", told))
    assert "history.svg" in shown
    assert shown == {path.name for path in (tmp_path / "out" / FIGURES).iterdir()}
    (tmp_path / "out" / FIGURES / "earlier.svg").write_text("<svg/>")
    write_report(study, tmp_path / "out")
    assert shown == {path.name for path in (tmp_path / "out" / FIGURES).iterdir()}


def test_a_long_table_has_its_first_rows_in_markdown() -> None:
    table = DataTable("trials", [Column("trial", "count"), Column("note")], [[i, "x"] for i in range(1200)])
    text, _ = render_markdown("n", ["v"], [], [Chapter("trials", "Every trial", [table])], "now")
    assert text.count("| x |") == 10
    assert "The first 10 of 1,200." in text
