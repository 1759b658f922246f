"""Builds the documentation as a site: guides, API, a gallery of figures, and the walk-through as an executed notebook.

    pip install -e '.[docs]' -c constraints-3.11.txt
    python -m launch.site --out=site

The walk-through runs on the simulated corpus, and the figures of the gallery are drawn from its results. A warning of
the tool is an error. The site loads nothing from other hosts, and opens from its folder or any web server.
"""

import os
import shutil
import tempfile
from pathlib import Path

from absl import app, flags

from launch import paths, plain

_OUT = paths.define("out", "site", "folder of the site; one that is there is replaced, if it is a site")
_SMALL = flags.DEFINE_bool("small", False, "the walk-through with --small: shows that everything runs")


def main(arguments: list[str]) -> None:
    """Builds the site and prints the path of its first page."""
    if arguments:
        raise app.UsageError(f"unexpected argument {arguments[0]!r}: see --help")
    out = Path(_OUT.value)
    # Anything else of that name is someone's work.
    if os.path.lexists(out) and not (out / "sitemap.xml").is_file() and not (out.is_dir() and not any(out.iterdir())):
        raise FileExistsError(f"--out={out} is there and is no site: delete it, or choose another --out")
    from launch.site import build, gallery, notebook
    from seremo_jax.core.artefacts import atomic_path

    with tempfile.TemporaryDirectory(prefix="seremo_jax-site-") as scratch:
        pages, work = Path(scratch, "pages"), Path(scratch, "work")
        for folder in (pages, work):
            folder.mkdir()
        print("running the walk-through ...", flush=True)
        workdir = notebook.write(pages / "notebook", work, ["--small"] * _SMALL.value)
        gallery.write(pages / "gallery", workdir)
        print("building the site ...", flush=True)
        built = build.build(Path(scratch))
        with atomic_path(out) as place:
            shutil.copytree(built, place)
    print(f"The site: {out / 'index.html'}")


if __name__ == "__main__":
    plain.run(main)
