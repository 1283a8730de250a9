"""Notebooks import and call, define nothing, and run on a small trained model."""

import ast
import json
import os
import sys
from pathlib import Path

import pytest

nbclient = pytest.importorskip("nbclient", reason="notebooks need pip install nbclient nbformat ipykernel")
nbformat = pytest.importorskip("nbformat")

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Lambda)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_define_nothing_and_carry_no_output(path: Path):
    for cell in _code(nbformat.read(path, as_version=4)):
        source = "\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))
        defined = [node for node in ast.walk(ast.parse(source)) if isinstance(node, DEFINITIONS)]
        assert not defined, f"line {defined[0].lineno} of a cell defines something: it belongs into vit/"
        assert not cell.outputs
        assert cell.execution_count is None


def test_attention_rollout_draws_its_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from vit import run

    small = ("--trainer.max_epochs=1", "--trainer.limit_train_batches=4", "--data.augment=none")
    small += ("--model.net.backbone.depth=2", "--model.net.backbone.embed_dim=48")
    folder = tmp_path / "run"
    run.fit(["-c", "quickstart", "--run", str(folder), *small])
    monkeypatch.setenv("VIT_RUN", str(folder))

    notebook = nbformat.read(ROOT / "notebooks" / "attention_rollout.ipynb", as_version=4)
    _execute(notebook, tmp_path, monkeypatch)

    cells = _code(notebook)
    assert len(cells) == 5
    assert [sum("image/png" in output.get("data", {}) for output in cell.outputs) for cell in cells] == [0, 1, 1, 1, 1]
    assert not [output for cell in cells for output in cell.outputs if output.get("name") == "stderr"]
    assert "read at: " in cells[3].outputs[0].text


def _code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def _execute(notebook, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a notebook from its own folder, with this Python and nothing of the user's."""
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
        notebook, timeout=120, kernel_name="here", resources={"metadata": {"path": str(ROOT / "notebooks")}}
    ).execute()
