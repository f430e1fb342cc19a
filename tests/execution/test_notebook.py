"""Objective functions of a notebook, whose cells a real kernel runs."""

from __future__ import annotations

from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

pytestmark = pytest.mark.system
OBJECTIVE = """
import os, threading
import hpo
import torch
from torch import nn

x = torch.linspace(-1, 1, 64)[:, None]  # goes with the function

def build(width):  # and so does another function of the notebook
    return nn.Sequential(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))

def objective(trial):
    model = build(trial.suggest_int("width", 2, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=trial.suggest_float("rate", 1e-3, 1e-1, log=True))
    for epoch in range(3):
        loss = nn.functional.mse_loss(model(x), x**2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        trial.report(loss.item(), epoch)
    trial.set_user_attr("pid", os.getpid())
    return loss.item()
"""
RUN = """
study = hpo.optimize(objective, trials=6, workers=2, cpus=1, name="from_a_notebook")
print([trial.state.name for trial in study.trials] == ["COMPLETE"] * 6, study.best_value < 10)
print(os.getpid() not in {trial.user_attrs["pid"] for trial in study.trials})
"""
UNPICKLABLE = """
lock = threading.Lock()

def locked(trial):
    with lock:
        return trial.suggest_float("x", 0, 1)

hpo.optimize(locked, trials=2, workers=2, name="locked")
"""
ALONE = 'print(len(hpo.optimize(locked, trials=2, name="locked").trials))'


def test_a_cell_optimizes_with_two_workers(tmp_path: Path) -> None:
    cells = [nbformat.v4.new_code_cell(text) for text in (OBJECTIVE, RUN, UNPICKLABLE, ALONE)]
    notebook = nbformat.v4.new_notebook(cells=cells)
    client = NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}})
    with client.setup_kernel():
        client.execute_cell(cells[0], 0)
        client.execute_cell(cells[1], 1)
        with pytest.raises(CellExecutionError) as error:
            client.execute_cell(cells[2], 2)
        client.execute_cell(cells[3], 3)
    assert printed(cells[1]) == "True True\nTrue\n"
    line = "locked: cannot be sent to worker processes (TypeError: cannot pickle '_thread.lock' object); create inside"
    assert line in str(error.value)
    assert printed(cells[3]) == "2\n"


def printed(cell: nbformat.NotebookNode) -> str:
    """Return what a cell wrote to its standard output."""
    return "".join(each.text for each in cell.outputs if each.get("name") == "stdout")
