"""Notebooks import and call, define nothing, and run on a small trained model."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

from vit import attention
from vit.attention import Mechanism, Pattern

nbclient = pytest.importorskip("nbclient", reason="notebooks need pip install nbclient nbformat ipykernel")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
FIGURES = [0, 1, 1, 1, 1, 0, 0, 1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0]
"""In each cell of attention_mechanisms."""
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_define_nothing_and_carry_no_output(path: Path):
    for cell in _code(nbformat.read(path, as_version=4)):
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        defined = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DEFINITIONS)]
        assert not defined, f"line {defined[0].lineno} of a cell defines something: it belongs into vit/"
        assert not cell.outputs
        assert cell.execution_count is None


@pytest.fixture(scope="module")
def small_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from vit import run

    small = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--data.augment=none")
    small += ("--model.net.backbone.depth=2", "--model.net.backbone.embed_dim=48")
    folder = tmp_path_factory.mktemp("runs") / "run"
    run.fit(["-c", "quickstart", "--run", str(folder), *small])
    return folder


def test_attention_rollout_draws_its_figures(small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("VIT_RUN", str(small_run))
    cells = _executed("attention_rollout", tmp_path, monkeypatch)
    assert len(cells) == 7
    assert [_figures(cell) for cell in cells] == [0, 1, 1, 1, 1, 1, 1]
    assert "read at: " in cells[3].outputs[0].text


def test_attention_mechanisms_draws_its_figures_and_its_numbers_are_right(
    small_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("VIT_RUN", str(small_run))
    monkeypatch.setenv("VIT_RECALL_STEPS", "3")
    cells = _executed("attention_mechanisms", tmp_path, monkeypatch)
    printed = "".join(output.text for cell in cells for output in cell.outputs if output.get("name") == "stdout")
    assert [_figures(cell) for cell in cells] == FIGURES
    assert "8 x 8 patches, 2 heads of width 24, 2 layers" in printed
    assert "224 x 224 pixels: 196 patches" in printed
    assert "sets:   softmax, dot, general, additive, ReLU, ReLU over its sum" in printed
    for exact in ("from the mechanism's output by", "largest difference to each sequence alone", "all at once:"):
        assert float(re.search(rf"{exact} (\S+e-\d+|0e\+00)", printed)[1]) < 1e-5
    assert "'neighbourhood': [9, 25, 49]" in printed
    assert "'identity': [1, 1, 1]" in printed
    _check_claims(printed)


def _check_claims(printed: str) -> None:
    """What the text of attention_mechanisms says of numbers, seconds left out."""
    far = {name: float(value) for name, value in re.findall(r"^(\S.*\S) +from softmax +(\d\.\d+) ", printed, re.M)}
    apart = dict(re.findall(r"^(\S.*\S) +from softmax .* between two pictures +(\d\.\d+)", printed, re.M))
    assert far["softmax"] == 0
    assert far["Nyström"] < far["efficient"] < far["Linformer"], far
    assert [apart[name] for name in ("random synthesizer", "factorized random")] == ["0.00", "0.00"]
    assert min(float(apart[name]) for name in ("dense synthesizer", "factorized dense")) > 0.01
    off = [float(value) for value in re.findall(r"^scores of spread .* 'Performer': '(\S+)'", printed, re.M)]
    assert off[1] < 0.5 * off[0], off
    spread = [float(value) for value in re.findall(r"^scores of spread (\S+):", printed, re.M)]
    assert spread[1] == pytest.approx(spread[0] / 10, abs=0.01)
    scores, values = 32, 32
    shares = [values, 8 + values, scores + values, 2 + values]  # rank 8, and 2 sqrt(1024) of 1024 scores
    names = ("random synthesizer", "factorized random", "dense synthesizer", "factorized dense")
    said = {name: f"{share / (scores + values):.2f}" for name, share in zip(names, shares, strict=True)}
    assert f"of softmax's multiply-adds, n = 1024: {said}" in printed
    columns, rows = re.search(r"columns of S sum to one within (\S+), rows within (\S+)", printed).groups()
    assert float(columns) < 1e-2
    assert float(rows) < 1e-5
    assert int(re.search(r"(\d+)% of the strided pairs are none of Longformer's", printed)[1]) > 0
    moved = re.findall(r"^(identity|attention) +(\w+Positions) +(\S+)$", printed, re.M)
    assert {(block, place): float(value) > 1e-5 for block, place, value in moved} == {
        (block, place): place == "LearnedPositions"
        for block in ("identity", "attention")
        for place in ("NoPositions", "LearnedPositions")
    }


def test_attention_mechanisms_shows_every_mechanism_and_pattern():
    notebook = nbformat.read(ROOT / "notebooks" / "attention_mechanisms.ipynb", as_version=4)
    sources = "\n".join(cell.source for cell in _code(notebook))
    every = (getattr(attention, name) for name in attention.__all__)
    kinds = [kind for kind in every if isinstance(kind, type) and issubclass(kind, (Mechanism, Pattern))]
    shown = [kind.__name__ for kind in kinds if kind not in (Mechanism, Pattern)]
    assert not [name for name in shown if not re.search(rf"attention\.{name}\b", sources)]


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _figures(cell) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


def _executed(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list:
    """Code cells of a notebook run from its own folder, with this Python and nothing of the user's, nothing to say."""
    notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
    kernel = folder / "jupyter" / "kernels" / "here" / "kernel.json"
    kernel.parent.mkdir(parents=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    kernel.write_text(json.dumps({"argv": argv, "display_name": "here", "language": "python"}))
    monkeypatch.setenv("JUPYTER_PATH", str(folder / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="here", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
    cells = _code(notebook)
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    return cells
