"""The walk-through as a notebook: made of its percent cells, executed, and written with its outputs."""

import os
from pathlib import Path

import jupytext
import nbclient
import nbconvert
import nbformat

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "launch" / "walkthrough.py"
NAME = "walkthrough"


class NotebookError(Exception):
    """A cell failed."""


NotebookError.__module__ = "seremo_jax.site"


def write(folder: Path, work: Path, options: list[str]) -> Path:
    """Executes the walk-through, and writes it as a page and as the file that the page offers.

    Args:
      folder: Where the page goes, `walkthrough.md`, and the notebook, `walkthrough.ipynb`.
      work: Where the notebook runs.
      options: Options of the script, e.g. `--small`.

    Returns:
      The workdir of the run.

    Raises:
      NotebookError: A cell failed.
    """
    notebook = jupytext.read(SCRIPT)
    # A kernel has arguments of its own, so the options are given where a reader of the notebook sees them.
    given = f"import sys\n\nsys.argv[1:] = {options!r}  # options, as on the command line"
    notebook.cells.insert(1, nbformat.v4.new_code_cell(given))
    # The cells import this checkout. What IPython and the kernel keep lies in the folder, too.
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH")))),
        "IPYTHONDIR": str(work / "ipython"),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = nbclient.NotebookClient(
        notebook, timeout=None, kernel_name="python3", resources={"metadata": {"path": str(work)}},
        extra_arguments=["--IPKernelApp.log_level=ERROR"],
    )  # fmt: skip
    try:
        client.execute(env=environment)
    except nbclient.exceptions.CellExecutionError as error:
        raise NotebookError(f"{SCRIPT.relative_to(ROOT)} as a notebook: {error}") from error
    folder.mkdir(parents=True)
    nbformat.write(notebook, folder / f"{NAME}.ipynb")
    page, _ = nbconvert.MarkdownExporter().from_notebook_node(notebook)
    title, _, rest = page.lstrip().partition("\n")
    offer = f"[This page as a notebook]({NAME}.ipynb), with the outputs of the run that is shown."
    (folder / f"{NAME}.md").write_text(f"{title}\n\n{offer}\n{rest}", encoding="utf-8")
    return work / "runs" / "walkthrough"
