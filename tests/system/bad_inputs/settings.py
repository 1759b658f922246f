"""Bad settings and flags: made of what the config says of its fields, and of its rules."""

import dataclasses
from collections.abc import Iterator

from seremo_jax.core.config import Config
from tests.system.bad_inputs import Case, Place

TINY = "--config=configs/simulated.py:tiny"
_RULES = {
    "--config.targets.class_set=crema7": r"targets\.class_set = 'crema7': choose one of",
    "--config.targets.class_set=angry,other": "'other' cannot be a class",
    "--config.targets.attributes=()": r"targets\.attributes is empty",
    "--config.eval.splits=()": r"eval\.splits is empty",
    "--config.eval.conditions=()": r"eval\.conditions is empty",
    "--config.targets.attributes=('arousal',)": "this project says 'activation'",
    "--config.targets.attributes=('valence','valence')": "names an attribute twice",
    "--config.targets.other_map=('a=b','a=b')": r"targets\.other_map names 'a=b' twice",
    "--config.model.layer=best": r"model\.layer = 'best': give a layer number",
    "--config.model.layer=-1": "layers are counted from 0",
    "--config.model.layer=9 --config.extract.layers=(0,1)": "not among extract.layers",
    "--config.model.conv_kernel=4": "must be odd",
    "--config.model.dropout=1.0": "must be in",
    "--config.extract.layers=some": "give 'all', 'saliency' or a list",
    "--config.ensemble.seeds=(1,1)": r"ensemble\.seeds names a value twice",
    "--config.ensemble.layers=(0,1)": "extract.layers",
    "--config.ensemble.only=(99,)": "beyond the",
    "--config.ensemble.folds=(0,1)": "means nothing for data.split_kind",
    "--config.data.fold=1": "means nothing for data.split_kind",
    "--config.data.split_shares=(0.5,0.5)": "three positive shares",
    "--config.data.split_shares=(0.9,0.2,-0.1)": "three positive shares",
    "--config.data.max_seconds=0.01": "must be below data.max_seconds",
    "--config.eval.nbest=(2,3)": "must include 1",
    "--config.eval.nbest=(1,99)": "number of classes",
    "--config.eval.pa_uar_thresholds=(0,)": "percentages between 0 and 100",
    "--config.eval.coverage=1.0": "between 0 and 1",
    "--config.eval.conditions=('nois',)": r"eval\.conditions has 'nois'",
    "--config.eval.noise_kinds=('b lue',)": r"eval\.noise_kinds has 'b lue'",
    "--config.extract.conditions=('noise:rain:9..1db',)": "runs downwards",
    "--config.train.copy_share=0.5": "there are no copies to hear",
    "--config.loss.class_kind=hard_ce": "set targets.class_target",
    "--config.loss.attribute_weights=(0.5,0.5)": "one weight for each",
    "--config.loss.label_smoothing=1.0": "must be below 1",
    "--config.loss.cvar_share=0.0": "above 0 and at most 1",
    "--config.train.group_by=kmeans:1": r"train\.group_by = 'kmeans:1': write kmeans:K",
    "--config.model.speaker_kappa_s=all": r"model\.speaker_kappa_s has 'all': give seconds of speech, or inf",
    "--config.corpus.name=crema": "crema_d",
    "--config.data.word_map=('X=sad',)": "means nothing for corpus simulated",
    "--config.targets.class_set=": "choose one of",
    "--config.targets.class_set=crema6+msp9": r"targets\.class_set = 'msp9': choose one of",
    "--config.corpus.also=('simulated',)": "simulated is named twice",
    "--config.corpus.also=('crema',)": "did you mean crema_d",
    "--config.corpus.also=('crema_d',)": r"say where it lies, .*corpus\.also_roots",
    "--config.corpus.also=('crema_d;modality',)": "must read FIELD=VALUE",
    "--config.corpus.also=('crema_d;modality=nose',)": r"corpus\.also, crema_d: data\.modality = 'nose'",
    "--config.corpus.also=('crema_d',) --config.corpus.also_roots=('a','b')": r"corpus\.also_roots has 2 folders",
    "--config.corpus.also=('crema_d',) --config.targets.attribute_scale=raw": "is a scale of one corpus",
}
_FLAGS = [
    ("ingest", (TINY,), "--workdir"),
    ("ingest", ("--workdir=W",), "--config"),
    ("ingest", (TINY, "--workdir="), "it is empty"),
    ("ingest", (TINY, "--workdir=W", "stray"), "unexpected argument 'stray'"),
    ("ingest", (TINY, "--workdir=W", "--explian"), "explian"),
    ("ingest", (TINY, "--workdir=W", "--explain=perhaps"), "explain"),
    ("ingest", ("--config=configs/nosuch.py", "--workdir=W"), r"configs/nosuch\.py"),
    ("ingest", ("--config=configs", "--workdir=W"), "configs"),
    ("ingest", ("--config=configs/simulated.py:huge", "--workdir=W"), "no variant 'huge'"),
    ("ingest", ("--config=configs/table.py:x", "--workdir=W"), "knows no variant 'x'"),
    ("ingest", (TINY, "--workdir=ftp://bucket/w"), "begins with gs://"),
    ("ingest", (TINY, "--workdir=s3://nowhere/w"), "s3"),
    ("extract", (TINY, "--workdir=W", "--config.trian.seed=1"), r"did you mean --config\.train\.seed"),
    ("train", (TINY, "--workdir=W", "--config.train.sead=1"), r"did you mean --config\.train\.seed"),
    ("train", (TINY, "--workdir=W", "--config.train=3"), r"train"),
    ("train", (TINY, "--workdir=W", "--profle"), "profle"),
    ("evaluate", (TINY, "--workdir=W", "--config.eval.split=test"), r"did you mean --config\.eval\.splits"),
    ("evaluate", (TINY, "--workdir=W", "--model=nosuch"), "is no model"),
    ("evaluate", (TINY, "--workdir=W", "--backbone=b"), "belong to --model"),
    ("sweep", (TINY, "--workdir=W", "--sweep=nosuch"), "nosuch"),
    ("sweep", (TINY, "--workdir=W", "--index=-1"), "index"),
    ("conditions", (TINY, "--workdir=W"), "--to"),
    ("conditions", (TINY, "--workdir=W", "--to=T", "--num=0"), "num"),
    ("predict", ("--model=W",), "give one file, folder or list"),
    ("predict", ("a.wav",), "--model"),
    ("predict", ("--model=W", "a.wav", "b.wav"), "give one file, folder or list"),
    ("predict", ("--model=W", "a.wav", "--format=xml"), "format"),
    ("predict", ("--model=W", "a.wav", "--format=parquet"), "needs --out"),
    ("predict", ("--model=W", "a.wav", "--window_s=0"), "window_s"),
    ("predict", ("--model=W", "a.wav", "--window_s=nan"), "window_s"),
    ("predict", ("--model=W", "a.wav", "--window_s=inf"), "window_s"),
    ("predict", ("--model=W", "a.wav", "--hop_s=20"), "at most --window_s"),
    ("export", ("--workdir=W",), "--to"),
    ("export", ("--workdir=W", "--to=T", "x"), "unexpected argument 'x'"),
    ("report", ("--table=targets",), "--workdirs"),
    ("report", ("--table=nosuch", "--workdirs=W"), "nosuch|targets"),
    ("report", ("--table=targets", "--workdirs=W"), "W"),
    ("bench", ("--suite=nosuch",), "there is no suite nosuch"),
]


def _ingest(flag: str):
    return lambda place: [TINY, f"--workdir={place.folder / 'w'}", *flag.split(" --")[:1], *_further(flag)]


def _further(flag: str) -> list[str]:
    return [f"--{text}" for text in flag.split(" --")[1:]]


def _flags(arguments: tuple[str, ...]):
    def make(place: Place) -> list[str]:
        return [
            argument.replace("=W", f"={place.folder / 'W'}").replace("=T", f"={place.folder / 'T'}")
            for argument in arguments
        ]

    return make


def _of_fields() -> Iterator[tuple[str, str]]:
    """A flag that breaks what is said of a field, and a pattern with the field's name."""
    for section in dataclasses.fields(Config):
        yield f"--config.{section.name}.nosuch=1", rf"unknown config field --config\.{section.name}\.nosuch"
        for field in dataclasses.fields(section.type):
            path, value = f"{section.name}.{field.name}", field.default
            is_several, single = isinstance(value, tuple), value[0] if isinstance(value, tuple) and value else value
            name = rf"{section.name}\.{field.name}"
            if field.metadata["choices"]:
                yield f"--config.{path}={('nosuch',) if is_several else 'nosuch'}", rf"{name} = 'nosuch': choose one"
            if (lowest := field.metadata["lowest"]) is not None:
                low = float(lowest) - 1 if isinstance(single, float) or "float" in str(field.type) else int(lowest) - 1
                yield f"--config.{path}={(low,) if is_several else low}", rf"{name} must be at least"
            if isinstance(value, float):
                yield f"--config.{path}=nan", rf"{name} must be a finite number"
            if isinstance(value, bool | int | float):
                yield f"--config.{path}=many", name
            if "seed" in field.name:
                yield f"--config.{path}={(-1,) if is_several else -1}", rf"{name} must be at least 0"


def cases() -> Iterator[Case]:
    """Every rule, every field and every launcher's flags."""
    for flag, word in (*_of_fields(), *_RULES.items()):
        yield Case("setting", flag, "ingest", _ingest(flag), word)
    for launcher, arguments, word in _FLAGS:
        yield Case("flag", " ".join(arguments), launcher, _flags(arguments), word)
