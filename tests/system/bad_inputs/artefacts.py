"""Bad workdirs and model folders: what is missing, cut off, changed, or of something else."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from seremo_jax.core.artefacts import fingerprint_of
from tests.system.bad_inputs import Case, Place

TINY = "--config=configs/simulated.py:tiny"
_GOLDEN = [TINY, "--config.corpus.num_speakers=6", "--config.corpus.utterances_per_speaker=1", "--workdir=DIR"]
_STAGES = ("extract", "saliency", "train", "evaluate", "baseline", "report", "conditions", "export")


def _empty(launcher: str) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        (place.folder / "w").mkdir()
        return [*_flags(launcher, place), f"--workdir={place.folder / 'w'}"]

    return make


def _flags(launcher: str, place: Place) -> list[str]:
    to = [f"--to={place.folder / 'to'}"] if launcher in ("conditions", "export") else []
    return to if launcher == "export" else [TINY, *to]


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


def _to_folder(path: Path) -> None:
    _remove(path)
    path.mkdir()


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _garble(path: Path) -> None:
    path.write_bytes(b"\x93garbage" * 40)


def _empty_file(path: Path) -> None:
    path.write_bytes(b"")


_DAMAGE: dict[str, Callable[[Path], None]] = {
    "missing": _remove,
    "a folder": _to_folder,
    "cut off": _cut,
    "garbage": _garble,
    "no bytes": _empty_file,
}
# File -> who reads it, in a workdir that was trained.
_FILES = {
    "ingest.json": "export",
    "utterances.parquet": "export",
    "ratings.parquet": "export",
    "store/manifest.json": "export",
    "store/index.parquet": "export",
    "train/finished.json": "export",
    "train/config.json": "export",
    "results.jsonl": "report",
    "store/norm.npz": "export",
}


def _damaged(launcher: str, name: str, damage: Callable[[Path], None]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        workdir = place.workdir()
        damage(workdir / name)
        member = ["--member=best"] if launcher == "export" else []
        return [*_flags(launcher, place), *member, f"--workdir={workdir}"]

    return make


def _model(spoil: Callable[[Path], None]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        model = place.model()
        spoil(model)
        (place.folder / "good.wav").write_bytes(place.recording())
        return [f"--model={model}", str(place.folder / "good.wav")]

    return make


def _rewritten(**fields: Any) -> Callable[[Path], None]:
    """A record with other fields, whose fingerprint fits."""

    def spoil(model: Path) -> None:
        path = model / "model.json"
        record = json.loads(path.read_text()) | fields
        record.pop("fingerprint")
        path.write_text(json.dumps(record | {"fingerprint": fingerprint_of(record)}))

    return spoil


def _backbone(**fields: Any) -> Callable[[Path], None]:
    def spoil(model: Path) -> None:
        backbone = json.loads((model / "model.json").read_text())["backbone"]
        _rewritten(backbone=backbone | fields)(model)

    return spoil


def _to_file(model: Path) -> None:
    shutil.rmtree(model)
    model.write_text("text")


def _change(model: Path) -> None:
    path = model / "model.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))


def _linked(model: Path) -> None:
    shutil.move(model / "weights.safetensors", model.parent / "weights.safetensors")
    (model / "weights.safetensors").symlink_to(model.parent / "weights.safetensors")


MODELS: dict[str, tuple[Callable[[Path], None], str]] = {
    **{
        f"{name}, {what}": (lambda model, name=name, damage=damage: damage(model / name), name)
        for name in ("model.json", "weights.safetensors", "head.stablehlo")
        for what, damage in _DAMAGE.items()
    },
    "a field changed": (_change, "fingerprint"),
    "another format": (_rewritten(format_version=9), "format of"),
    "no head": (_rewritten(head=None), "head is None"),
    "another head": (_rewritten(head={"gru_units": 9}), "number of classes"),
    "no layers": (_rewritten(layers=[]), "layers is"),
    "layers in words": (_rewritten(layers=["first"]), "layers is"),
    "no members": (_rewritten(members=[]), "does not fit|members"),
    "members in words": (_rewritten(members=["a"]), "members is"),
    "no files": (_rewritten(files={}), "does not fit model.json"),
    "a file above": (_rewritten(files={"../x": {}}), "does not lie in this folder"),
    "an absolute file": (_rewritten(files={"/etc/passwd": {}}), "does not lie in this folder"),
    "a link out": (_linked, "does not lie in this folder"),
    "backbone of the hub": (_backbone(location="someone/something"), "--backbone=someone/something"),
    "backbone that is not there": (_backbone(location="/nowhere/x"), "/nowhere/x.*--backbone"),
    "unknown backbone": (_backbone(location="mellog"), "logmel"),
    "another backbone": (_backbone(revision="0123"), "revision"),
    "backbone of other features": (_backbone(num_features=81), "num_features"),
    "backbone of another type": (_backbone(dtype="float8"), "backbone.dtype"),
    "backbone without a place": (_backbone(location=None), "backbone.location is None"),
    "a file in its place": (_to_file, "is no model"),
    "nothing in its place": (lambda model: shutil.rmtree(model), "is no model"),
    "attributes in words": (_rewritten(attributes=["valence"]), "attributes is"),
    "attributes without factor": (_rewritten(attributes=[{"name": "valence"}] * 3), r"attributes\[0\]\.is_trained"),
    "classes in numbers": (_rewritten(classes=[1, 2]), "classes is"),
    "too few classes": (_rewritten(classes=["sad"]), "classes"),
    "calibration in words": (_rewritten(calibration="hot"), "calibration"),
    "calibration of another form": (_rewritten(calibration={"temperature": "hot"}), "calibration"),
}

# What is wrong -> who gets it, its flags (DIR is a trained workdir), and what must be said.
WORKDIRS = {
    "other settings of the corpus": ("ingest", [TINY, "--workdir=DIR"], "num_speakers"),
    "another split": ("ingest", [*_GOLDEN, "--config.data.split_seed=3"], "split_seed"),
    "other settings of the training": (
        "evaluate",
        [*_GOLDEN, "--config.optim.learning_rate=0.5"],
        "there, .* asked for",
    ),
    "no such member": ("export", ["--workdir=DIR", "--to=DIR/to", "--member=nobody"], "no member is called 'nobody'"),
    "export onto a folder": ("export", ["--workdir=DIR", "--to=DIR/store", "--member=best"], "is there already"),
    "results of before": ("report", [TINY, "--workdir=DIR"], "launch.evaluate"),
    "table of one that is not there": (
        "report",
        ["--table=targets", "--workdirs=DIR/no"],
        r"results\.jsonl is missing",
    ),
    "members of an exported model": ("predict", ["--model=MODEL", "--member=best", "x.wav"], "is an exported model"),
    "workdir is a file": ("ingest", [TINY, "--workdir=DIR/ingest.json"], "ingest.json"),
    "workdir below a file": ("ingest", [TINY, "--workdir=DIR/ingest.json/w"], "ingest.json"),
    "sweep without a generator": ("sweep", [TINY, "--workdir=DIR", "--sweep=none"], "none"),
    "unknown split to render": ("conditions", [*_GOLDEN, "--to=DIR/to", "--split=holdout"], "holdout"),
    "output below a file": ("predict", ["--model=MODEL", "DIR/good.wav", "--out=DIR/ingest.json/x"], "ingest.json"),
    "output is a folder": ("predict", ["--model=MODEL", "DIR/good.wav", "--out=DIR/store"], "store"),
}


def _workdir(flags: list[str]) -> Callable[[Place], list[str]]:
    def make(place: Place) -> list[str]:
        workdir, model = place.workdir(), place.model()
        (workdir / "good.wav").write_bytes(place.recording())
        return [flag.replace("DIR", str(workdir)).replace("MODEL", str(model)) for flag in flags]

    return make


def cases() -> Iterator[Case]:
    """Every stage without the one before it, every file of a workdir and of a model damaged, and what does not fit."""
    for launcher in _STAGES:
        yield Case("workdir", "empty", launcher, _empty(launcher), r"python -m launch\.\w+|missing")
    for name, launcher in _FILES.items():
        for what, damage in _DAMAGE.items():
            yield Case("workdir", f"{name}: {what}", launcher, _damaged(launcher, name, damage), Path(name).name)
    for what, (launcher, flags, word) in WORKDIRS.items():
        yield Case("workdir", what, launcher, _workdir(flags), word)
    for what, (spoil, word) in MODELS.items():
        yield Case("model", what, "predict", _model(spoil), word)
