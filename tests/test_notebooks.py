"""Notebooks import and call, define nothing, and run on a small trained model."""

import ast
import json
import os
import re
import sys
from pathlib import Path

import pytest

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
    assert len(cells) == 5
    assert [_figures(cell) for cell in cells] == [0, 1, 1, 1, 1]
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
