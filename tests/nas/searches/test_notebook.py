"""The notebook of docs runs from its first cell to its last."""

import json
import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.nas.programs import PATIENCE, ROOT

NOTEBOOK = ROOT / "docs" / "run_from_python.ipynb"
EXECUTE = """
import sys
import nbformat
from nbclient import NotebookClient

notebook = nbformat.read(sys.argv[1], as_version=4)
nbformat.validate(notebook)
here = {"metadata": {"path": "."}}
NotebookClient(notebook, timeout=int(sys.argv[3]), kernel_name="python3", resources=here).execute()
nbformat.write(notebook, sys.argv[2])
"""


@pytest.mark.slow
@pytest.mark.xdist_group("ray")
def test_the_notebook_of_docs_runs_to_its_end(tmp_path: Path) -> None:
    """In a process of its own: whoever runs notebooks has no warnings as errors."""
    for package in ("nbclient", "nbformat", "ipykernel"):
        pytest.importorskip(package)
    done_path = tmp_path / "done.ipynb"
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    command = [sys.executable, "-c", EXECUTE, str(NOTEBOOK), str(done_path), str(PATIENCE)]
    with TemporaryDirectory() as short:  # Ray's sockets lie below it, and their paths may not be long
        environment |= {"TMPDIR": short, "IPYTHONDIR": str(tmp_path / "ipython")}
        done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    cells = [cell for cell in json.loads(done_path.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    shown = [output.get("data", {}) for cell in cells for output in cell["outputs"]]
    pages = ["".join(data["text/html"]) for data in shown if "text/html" in data]
    assert any("<caption>run first</caption>" in page for page in pages)
    assert sum('class="dataframe"' in page for page in pages) == 3
    assert any("application/vnd.plotly.v1+json" in data for data in shown)
    assert any("torch.Size([1, 10])" in "".join(data.get("text/plain", "")) for data in shown)


def test_the_notebook_is_kept_without_what_it_printed() -> None:
    cells = json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]
    assert all(cell["outputs"] == [] for cell in cells if cell["cell_type"] == "code")
