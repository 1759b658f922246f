"""Lists the recipes that --config finds, or copies some of them into the folder configs, to edit them there.

    python -m launch.recipes
    python -m launch.recipes crema_d small_corpus

--config=configs/NAME.py is a file of the current folder; where there is none, it is the recipe of that name that comes
with the package. A copy therefore takes its place for every command that is called in this folder. A recipe of your own
may build on any of them: from configs import crema_d.
"""

import difflib
import os
import sys
from pathlib import Path

from launch import paths, plain, recipe_files

_TO = paths.define("to", recipe_files.FOLDER, "folder to copy into")


def main(arguments: list[str]) -> None:
    """Prints the list, or where the copies are."""
    known = recipe_files.names()
    if not arguments:
        width = max(map(len, known))
        for name in known:
            mark = "(in this folder) " if os.path.exists(name) else ""
            print(f"{name:{width}s}  {mark}{recipe_files.first_line(recipe_files.find(name))}")
        return
    copies = {}
    for argument in arguments:
        file = recipe_files.PACKAGED / f"{Path(argument).name.removesuffix('.py')}.py"
        copies[Path(_TO.value) / file.name] = file
        if not file.is_file():
            near = difflib.get_close_matches(file.stem, [Path(name).stem for name in known], n=1)
            sys.exit(f"error: the package has no recipe {argument!r}{f'; did you mean {near[0]}?' if near else ''}")
    for copy in copies:
        if os.path.lexists(copy):
            sys.exit(f"error: {copy} is there already: delete it, or copy into another folder with --to=FOLDER")
    for copy, file in copies.items():
        copy.parent.mkdir(parents=True, exist_ok=True)
        with copy.open("x", encoding="utf-8") as written:
            written.write(file.read_text(encoding="utf-8"))
        print(copy)


if __name__ == "__main__":
    plain.run(main)
