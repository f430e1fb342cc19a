"""Model card of an exported model, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hpo.datasets import is_path
from hpo.export.format import CONFIG, ONNX, PREPROCESSING, WEIGHTS, Preprocessing
from hpo.export.table_card import describe_columns
from hpo.report.chapters.blocks import Block, Chapter, Code, Table, Text
from hpo.report.chapters.verdict import interval_text
from hpo.report.data.evaluations import EvaluationResults
from hpo.report.data.results import Results, TrialRow
from hpo.report.format import count_text, metric_text, value_text, values_text
from hpo.report.render.markdown import render_brief
from hpo.report.stats.evaluation_stats import compare_candidates
from hpo.utils.text import quantity, shorten

__all__ = ["ExportedModel", "model_card"]

NAMES = 20  # of outputs that are listed
FROM_ROWS = f"""from pathlib import Path

import torch
from hpo.datasets.table_file import read_table
from hpo.export.format import read_preprocessing

inputs = read_preprocessing(Path())  # {PREPROCESSING}
raw = inputs.table.read(read_table(Path("rows.csv"), texts=inputs.table.texts))
x = torch.from_numpy(inputs.apply(raw))"""


@dataclass(frozen=True)
class ExportedModel:
    """Facts about an exported model that its trial does not have.

    Attributes:
        preprocessing: preprocessing of samples into inputs.
        environment: versions and hardware that it was trained with; empty if they were not recorded.
        plain: the model as an expression of plain torch, if it can be written so.
        onnx: number of samples that the ONNX file was compared on, and the largest difference; None without a file.
        tests: the run's own test scores beside its objectives, by metric, as a run of an evaluation has them.
    """

    preprocessing: Preprocessing
    environment: Mapping[str, str] = field(default_factory=dict)
    plain: str | None = None
    onnx: tuple[int, float] | None = None
    tests: Mapping[str, float] = field(default_factory=dict)


def model_card(
    results: Results, row: TrialRow, evaluations: Sequence[EvaluationResults], exported: ExportedModel
) -> str:
    """Return the card: the model, its scores, its use, its training and its limits."""
    assert row.config is not None
    inputs = exported.preprocessing
    head = (
        f"A model ({row.config.model}) {_purpose(inputs)} of {_data(results)}: trial {row.number} of the study "
        f"{results.name}, the weights of its best epoch."
    )
    tests = [f"This run on the test set: {_scores_text(exported.tests)}."] if exported.tests else []
    tests += [line for each in evaluations for line in _test_lines(each, row)]
    refit = results.definition.evaluation is not None and results.definition.evaluation.refit
    chapters = [
        Chapter("score", "Score", [*_own_score(results, row), *map(Text, tests)]),
        Chapter("use", "Use", _use(results, row, exported)),
        Chapter("training", "Training", _training(row, exported)),
        Chapter("limits", "Limits", _limits(results, exported, tested=bool(tests) or refit)),
    ]
    return render_brief(f"{results.name}, trial {row.number}", head, chapters)


def _purpose(inputs: Preprocessing) -> str:
    if inputs.reconstructs:
        return "that reconstructs the samples"
    if inputs.task == "classification":
        return f"for the {inputs.classes} classes"
    what = "label" if inputs.task == "multilabel" else "target"
    names = ", ".join(shorten(name, 40) for name in inputs.output_names[:NAMES])
    more = ", …" if len(inputs.output_names) > NAMES else ""
    return f"for {quantity(inputs.classes, what)}{f' ({names}{more})' if names else ''}"


def _data(results: Results) -> str:
    reference = results.definition.dataset
    return reference.name.rsplit("/", 1)[-1] if is_path(reference.name) else reference.name


def _own_score(results: Results, row: TrialRow) -> list[Block]:
    scores = {objective.metric: value for objective, value in zip(results.objectives, row.values or (), strict=False)}
    text = f"This run: {_scores_text(scores)}." if scores else "This run has no score."
    if results.best is not None and row.number == results.best.number and len(results.ranked) > 1:
        text += (
            f" It is the best of {count_text(len(results.ranked))} trials, so its score is likely to be better than the"
            " model's score on new data."
        )
    return [Text(text)]


def _scores_text(scores: Mapping[str, float]) -> str:
    return ", ".join(f"{metric_text(metric)} {values_text(metric, value)}" for metric, value in scores.items())


def _test_lines(evaluation: EvaluationResults, row: TrialRow) -> list[str]:
    """Return the test score of the same configuration, trained again from fresh seeds."""
    metric = evaluation.test_metric
    for score in compare_candidates(evaluation).scores:
        if score.candidate.trial == row.number and score.test is not None and metric is not None:
            data = "" if evaluation.on_own_data else f" on {evaluation.dataset}"
            refit = ", refitted on training and validation data" if evaluation.refit else ""
            test = f"{metric_text(metric)}{data} {interval_text(metric, score.test)}"
            return [f"The same configuration from fresh seeds{refit}: {test}."]
    return []


def _use(results: Results, row: TrialRow, exported: ExportedModel) -> list[Block]:
    inputs = exported.preprocessing
    in_torch = "in plain torch" if exported.plain else "in torch, with torch-hpo"
    arrays = inputs.encoder is not None or inputs.values == "integer"
    rows = inputs.table is not None or inputs.texts is not None
    example = "rows.csv" if rows else "samples.npy" if arrays else "picture.png"
    blocks: list[Block] = [
        *([] if inputs.reconstructs else [Code(f"hpo predict . {example}", caption="in this folder")]),
        *(_describe_inputs(inputs) if inputs.encoder is None else _describe_table(inputs)),
        Text(f"Output i is {_output(row, inputs)}.{_list_outputs(inputs)}"),
        Code(_in_torch(results, exported), "python", in_torch),
    ]
    if exported.onnx is None:
        return blocks
    samples, difference = exported.onnx
    outputs = "outputs" if inputs.reconstructs else "targets" if inputs.task == "regression" else "logits"
    lines = f'import onnxruntime\n\nsession = onnxruntime.InferenceSession("{ONNX}")\n'
    lines += f'({outputs},) = session.run(["logits"], {{"x": x}})'
    most = f"at most {difference:.2g} of the largest"
    checked = f"{_describe_graph(inputs)}On {samples} samples its outputs differ from torch's by {most}."
    return [*blocks, Code(lines, "python", "in onnxruntime, without torch"), Text(checked)]


def _describe_inputs(inputs: Preprocessing) -> list[Block]:
    shape = ", ".join(map(str, inputs.shape))
    if inputs.values == "integer":
        if inputs.texts is not None:
            named = ", ".join(inputs.texts.columns)
            return [
                Text(
                    f"Inputs are int64 of shape (any number, {shape}): the first tokens of the text in {named}: words "
                    f"in lower case, and punctuation. {PREPROCESSING} has the words: i + 2 is the code of the i-th, 1 "
                    "that of any other, and 0 is behind the end of a text."
                )
            ]
        codes = "" if inputs.vocabulary is None else f" from 0 to {inputs.vocabulary - 1}"
        return [Text(f"Inputs are int64 of shape (any number, {shape}): whole numbers{codes}, as samples have them.")]
    values = "bytes, 0 to 255," if inputs.values == "uint8" else "floats"
    per = "channel" if len(inputs.shape) > 1 else "feature"
    return [
        Text(
            f"Inputs are float32 of shape (any number, {shape}): subtract from a sample's {values} the shift of its "
            f"{per}, and divide by its scale, both in {PREPROCESSING}."
        )
    ]


def _describe_table(inputs: Preprocessing) -> list[Block]:
    """Say what the rows of a table hold, and how they become inputs."""
    assert inputs.encoder is not None
    rows = describe_columns(inputs)
    text = (
        f"The raw matrix of rows has {quantity(len(rows), 'column')} of float32: numbers, and codes of categories, "
        f"or NaN where they are missing. Inputs are float32 of shape (any number, {inputs.shape[0]}): the numbers, "
        f"scaled, then a 0 or 1 for each that may be missing, then the codes. {PREPROCESSING} has the categories, and "
        "the medians and the scaling of the training part."
    )
    blocks: list[Block] = [Table(["", "feature", "kind", "if missing"], rows), Text(text)]
    if inputs.table is not None:
        blocks.append(Code(FROM_ROWS, "python", "from rows to inputs, with torch-hpo"))
    return blocks


def _describe_graph(inputs: Preprocessing) -> str:
    """Say what the ONNX file does beside computing the model."""
    parts = ["takes the raw matrix and encodes it"] if inputs.encoder is not None else []
    parts += ["gives targets in their own units"] if inputs.task == "regression" else []
    return f"It {' and '.join(parts)}. " if parts else ""


def _output(row: TrialRow, inputs: Preprocessing) -> str:
    assert row.config is not None
    if inputs.reconstructs:
        logit = "the logit of " if row.config.loss == "binary_cross_entropy" else ""
        return f"{logit}number i of the input, flattened, as it is reconstructed"
    if inputs.task != "regression":
        return f"the logit of {'label' if inputs.task == 'multilabel' else 'class'} i"
    spread = ""
    if row.config.loss == "gaussian_nll":
        spread = f"; output {inputs.classes} + i is the logarithm of its variance in units of the squared scale"
    shift, scale = (", ".join(map(value_text, pair)) for pair in (inputs.target_shift, inputs.target_scale))
    return f"target i, less its shift ({shift}) and divided by its scale ({scale}){spread}"


def _list_outputs(inputs: Preprocessing) -> str:
    """List the outputs by their names, if they have some."""
    if not inputs.output_names:
        return ""
    named = [f"{i} {shorten(name, 40, quote=False)}" for i, name in enumerate(inputs.output_names[:NAMES])]
    more = f", … (all in {PREPROCESSING})" if len(inputs.output_names) > NAMES else ""
    return f" By number: {', '.join(named)}{more}."


def _in_torch(results: Results, exported: ExportedModel) -> str:
    load = f'model.load_state_dict(load_file("{WEIGHTS}"))\nmodel.eval()'
    if exported.plain:
        head = "from safetensors.torch import load_file\nfrom torch import nn\n\n"
        return f"{head}model = {exported.plain}\n{load}"
    inputs = exported.preprocessing
    head = "from pathlib import Path\n\nfrom hpo.export.format import read_preprocessing\n"
    head += "from hpo.study.input.config_file import read_parameters\n"
    head += "from hpo.training.models import build_model\nfrom safetensors.torch import load_file\n\n"
    built = f'build_model(read_parameters(Path("{CONFIG}")), read_preprocessing(Path()).input_shape, {inputs.classes})'
    own = (
        "# after the import of the module that registers the model\n"
        if any(results.definition.modules.values())
        else ""
    )
    return f"{own}{head}model = {built}\n{load}"


def _training(row: TrialRow, exported: ExportedModel) -> list[Block]:
    assert row.config is not None
    rows = [[name, value_text(value)] for name, value in row.config.effective().items()]
    environment = ", ".join(f"{name} {value}" for name, value in exported.environment.items())
    environment = environment or "versions that were not recorded"
    return [
        Code(f"hpo train --config {CONFIG}"),
        Table(["parameter", "value"], rows),
        Text(f"{count_text(row.parameter_count)} weights. Trained with {environment}."),
    ]


def _limits(results: Results, exported: ExportedModel, *, tested: bool) -> list[Block]:
    inputs = exported.preprocessing
    others = {
        "classification": "assigns a class to any other sample as well, often with a high probability",
        "multilabel": "gives labels to any other sample as well, often with a high probability",
        "regression": "predicts a number for any other sample as well, which may be far off",
    }[inputs.task]
    if inputs.reconstructs:
        others = "reconstructs others badly"
    lines = [f"The model only knows samples like those of {_data(results)}, and {others}."]
    if not tested:
        lines.append("It has not been tested: its score is of validation data. `hpo evaluate` tests it.")
    return [Text(line) for line in lines]
