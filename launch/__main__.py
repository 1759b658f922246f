"""The command `seremo STAGE --FLAG=VALUE ...`, in a checkout also `python -m launch STAGE`: runs one launcher."""

import difflib
import runpy
import sys
from pathlib import Path

import seremo_jax
from launch import pipes, recipe_files

STAGES = (
    *("recipes", "validate", "ingest", "extract", "saliency", "train", "evaluate", "baseline", "report", "export"),
    *("predict", "demo", "convert", "conditions", "sweep", "compile", "bench", "site"),
)
"""In the order of the pipeline; what serves no stage in particular comes last."""
_FOLDER = Path(__file__).resolve().parent


def described() -> str:
    """What `seremo --help` prints: every stage with the first line of its launcher, none of which is imported."""
    usage = f"usage: seremo STAGE [--FLAG=VALUE ...]\n\n{seremo_jax.__doc__}\n"
    lines = [f"  {stage:11s} {recipe_files.first_line(_file(stage))}" for stage in STAGES if _file(stage).is_file()]
    more = "\nseremo STAGE --help lists the flags of a stage, and every setting of a recipe with its default."
    return "\n".join([usage, *lines, more])


def main() -> None:
    """Runs the stage that the first argument names, with the others."""
    stage, *rest = sys.argv[1:] or [""]
    if stage in ("-h", "--help", "help"):
        print(described())
    elif stage == "--version":
        print(f"seremo_jax {seremo_jax.__version__}")
    elif not stage:
        sys.exit(described())
    elif stage.startswith("-"):
        sys.exit(f"error: the name of a stage comes first, before {stage}: see seremo --help")
    elif stage not in STAGES:
        near = difflib.get_close_matches(stage, STAGES, n=1)
        sys.exit(f"error: there is no stage {stage!r}; {f'did you mean {near[0]}?' if near else 'see seremo --help'}")
    elif not _file(stage).is_file():
        sys.exit(f"error: {stage} runs from a checkout of the source, and is no part of the installed package")
    else:
        sys.argv[1:] = rest
        try:
            runpy.run_module(f"launch.{stage}", run_name="__main__", alter_sys=True)
        except KeyboardInterrupt:
            # A launcher says so itself once it has imported what it needs.
            sys.exit("interrupted: the same command goes on from here")


def _file(stage: str) -> Path:
    file = _FOLDER / f"{stage}.py"
    return file if file.is_file() else _FOLDER / stage / "__main__.py"


if __name__ == "__main__":
    pipes.run(main)
