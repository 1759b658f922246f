"""config: strict reading, rules across fields, and a fingerprint of exactly what changes results."""

import ast
import dataclasses
import importlib
import math
import re
import typing
from collections.abc import Iterator
from pathlib import Path

import ml_collections
import pytest

from seremo_jax.core.config import Config, ConfigError, describe, from_config_dict, to_config_dict

pytestmark = pytest.mark.stack

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_EFFECT_ON_RESULTS = {
    "corpus.root",
    "corpus.also_roots",
    "extract.batch_seconds",
    "backbone.shards_params",
    "extract.num_buckets",
    "extract.num_threads",
    "extract.shard_utterances",
    "train.member_map",
    "train.keep_checkpoints",
    "train.micro_batches",
    "train.data_shards",
    "train.device_cache",
    "train.checkpoint_batches",
    "train.tracker",
    "train.tracker_project",
    *(f"{section}.{name}" for section in ("eval", "extract") for name in ("noise_dir", "rir_dir")),
}
FIELDS = [
    f"{section.name}.{field.name}"
    for section in dataclasses.fields(Config)
    for field in dataclasses.fields(section.type)
]


def _recipes() -> list[tuple[str, str]]:
    """(module, arg) of every recipe and of every variant it compares `arg` with."""
    actual = []
    for path in sorted((ROOT / "configs").glob("*.py")):
        variants = {""}
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Compare) and ast.unparse(node.left) == "arg":
                variants |= {item.value for item in ast.walk(node) if isinstance(item, ast.Constant)}
        actual += [(f"configs.{path.stem}", variant) for variant in sorted(variants) if path.stem != "__init__"]
    return actual


def _with(path: str, value: object) -> Config:
    """The default config with one field changed, unchecked."""
    section, name = path.split(".")
    return dataclasses.replace(Config(), **{section: dataclasses.replace(getattr(Config(), section), **{name: value})})


def _other_value(path: str) -> object:
    section, name = path.split(".")
    value = getattr(getattr(Config(), section), name)
    hint = typing.get_type_hints(type(getattr(Config(), section)))[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, tuple):
        return (*value, {str: "more", int: 7}.get(typing.get_args(hint)[0], 0.5))
    return value + "x" if isinstance(value, str) else value + 1


def _read(path: str, value: object) -> Config:
    section, name = path.split(".")
    return from_config_dict({section: {name: value}})


@pytest.mark.parametrize(("module", "arg"), _recipes())
def test_every_recipe_and_variant_is_a_valid_config(module: str, arg: str):
    recipe = importlib.import_module(module)
    config = from_config_dict(recipe.get_config(arg))
    assert config == from_config_dict(to_config_dict(config))
    assert arg in recipe.get_config.__doc__
    with pytest.raises(ValueError, match="no variant 'nonsense'"):
        recipe.get_config("nonsense")


def test_variants_are_found():
    assert {("configs.simulated", "tiny"), ("configs.crema_d", "subset24")} <= set(_recipes())


def test_defaults_survive_the_way_through_a_config_dict():
    assert from_config_dict(to_config_dict(Config())) == from_config_dict({}) == Config()


def _fields() -> Iterator[tuple[str, typing.Any]]:
    """Path and default of every field."""
    for section in dataclasses.fields(Config):
        for field in dataclasses.fields(section.type):
            yield f"{section.name}.{field.name}", typing.get_type_hints(section.type)[field.name]


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400])
def test_no_field_takes_a_number_that_is_not_finite(number: float):
    """A rule that compares would let NaN through."""
    paths = [path for path, hint in _fields() if hint is float or hint == tuple[float, ...]]
    assert len(paths) > 20
    for path in paths:
        is_tuple = dict(_fields())[path] is not float
        with pytest.raises(ConfigError, match=rf"{re.escape(path)}(\[0\])? must be a finite number"):
            _read(path, (number,) if is_tuple else number)


def test_every_seed_is_one_that_random_generators_take():
    paths = [path for path, _ in _fields() if path.endswith(("seed", "seeds"))]
    assert len(paths) == 10
    for path in paths:
        for seed in (-1, 2**32):
            with pytest.raises(ConfigError, match=rf"{path} must be at least 0 and below 2\^32, is {seed}"):
                _read(path, (seed,) if path.endswith("seeds") else seed)


@pytest.mark.parametrize("path", ["model.layer", "extract.layers", "ensemble.layers"])
def test_negative_layers_are_refused(path: str):
    """-1 stands for the learned sum inside the program, and trained layer 0 where it came in from outside."""
    for value in (-1, -7):
        with pytest.raises(ConfigError, match=rf"{path} has {value}: layers are counted from 0"):
            _read(path, value if path == "model.layer" else (value,))


def test_what_is_named_twice_is_refused():
    for path, value in (("eval.splits", "test"), ("eval.conditions", "noise:white:5db"), ("eval.snr_db", 5.0)):
        with pytest.raises(ConfigError, match=rf"{path} names {value!r} twice"):
            _read(path, (value, value))


def test_folders_of_the_user_are_found(monkeypatch):
    monkeypatch.setenv("HOME", "/people/me")
    for path in ("corpus.root", "backbone.name", "eval.noise_dir", "eval.rir_dir", "extract.noise_dir"):
        section, name = path.split(".")
        assert getattr(getattr(_read(path, "~/there"), section), name) == "/people/me/there"


@pytest.mark.parametrize("as_config_dict", [False, True])
@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"optim": {"learning_rte": 1.0}}, r"optim\.learning_rte; did you mean optim\.learning_rate"),
        ({"trian": {"seed": 1}}, r"unknown config field trian; did you mean train"),
        ({"zzz": {}}, r"unknown config field zzz; known here: .*backbone"),
        ({"train": 3}, r"train must be a section with fields, is 3"),
        ({"train": None}, r"train must be a section with fields, is None"),
        ({"train": {"seed": {"a": 1}}}, r"train\.seed must be int, is .*a"),
        ({"train": {"seed": None}}, r"train\.seed must be int, is None \(NoneType\)"),
        ({"train": {"seed": 1.0}}, r"train\.seed must be int, is 1\.0 \(float\)"),
        ({"train": {"seed": "1"}}, r"train\.seed must be int, is '1' \(str\)"),
        ({"train": {"seed": True}}, r"train\.seed must be int, is True \(bool\)"),
        ({"optim": {"learning_rate": "fast"}}, r"optim\.learning_rate must be float"),
        ({"optim": {"clip_norm": False}}, r"optim\.clip_norm must be float"),
        ({"data": {"reverse_activation": 1}}, r"data\.reverse_activation must be bool"),
        (
            {"data": {"keep_no_agreement": "no"}},
            r"data\.keep_no_agreement = 'no': choose one of keep, drop, train_only",
        ),
        ({"corpus": {"name": 5}}, r"corpus\.name must be str"),
        ({"ensemble": {"seeds": (0, "one")}}, r"ensemble\.seeds\[1\] must be int, is 'one'"),
        ({"ensemble": {"seeds": (0, 1.5)}}, r"ensemble\.seeds\[1\] must be int"),
        ({"ensemble": {"seeds": 3}}, r"ensemble\.seeds must be .*tuple"),
        ({"targets": {"attributes": "valence"}}, r"targets\.attributes must be .*tuple"),
        ({"extract": {"layers": ("all",)}}, r"extract\.layers must be"),
        ({"model": {"layer": 2.0}}, r"model\.layer must be"),
    ],
)
def test_what_config_dict_alone_would_let_through_is_refused(tree: dict, message: str, as_config_dict: bool):
    with pytest.raises(ConfigError, match=message):
        from_config_dict(ml_collections.ConfigDict(tree) if as_config_dict else tree)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("optim.clip_norm", 2, 2.0),
        ("ensemble.seeds", [3, 4], (3, 4)),
        ("data.split_shares", [0.5, 0.25, 0.25], (0.5, 0.25, 0.25)),
        ("model.layer", "4", 4),
        ("model.layer", "saliency", "saliency"),
        ("extract.layers", [1, 2], (1, 2)),
        ("extract.layers", "(1, 2)", (1, 2)),
        ("extract.layers", "1,2,", (1, 2)),
        ("extract.layers", "all", "all"),
        ("extract.batch_seconds", "24", 24.0),
        ("model.speaker_kappa_s", "20", 20.0),
        ("model.speaker_kappa_s", "inf", "inf"),
        ("ensemble.speaker_kappas_s", (0, "inf", "2.5"), (0.0, "inf", 2.5)),
        ("extract.batch_seconds", 60, 60.0),
        ("extract.batch_seconds", "auto", "auto"),
    ],
)
def test_harmless_conversions(path: str, value: object, expected: object):
    section, name = path.split(".")
    actual = getattr(getattr(_read(path, value), section), name)
    assert actual == expected
    assert type(actual) is type(expected)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"model": {"layer": "best"}}, "model.layer = 'best': give a layer number"),
        ({"extract": {"layers": "some"}}, "extract.layers = 'some': give 'all'"),
        ({"data": {"split_shares": (0.5, 0.5)}}, "three positive shares"),
        ({"data": {"split_shares": (0.8, 0.2, 0.0)}}, "three positive shares"),
        ({"data": {"split_shares": (0.6, 0.3, 0.2)}}, "sum to 1"),
        ({"data": {"min_seconds": 5.0, "max_seconds": 4.0}}, "data.min_seconds must be below"),
        ({"backbone": {"level_dbfs": 3.0}}, "backbone.level_dbfs = 3: full scale is 0"),
        ({"backbone": {"level": "loud"}}, "backbone.level = 'loud': choose one of none, rms"),
        ({"model": {"speaker_kappa_s": "nan"}}, "model.speaker_kappa_s has 'nan': give seconds of speech, or inf"),
        ({"ensemble": {"speaker_kappas_s": (-1,)}}, "ensemble.speaker_kappas_s must be at least 0, is -1"),
        (
            {"model": {"speaker_kappa_s": 3, "feature_norm": "none"}},
            "model.speaker_kappa_s = 3.0 is of the z-score, which model.feature_norm = 'none' leaves out",
        ),
        ({"extract": {"batch_seconds": "large"}}, "extract.batch_seconds = 'large': give seconds of audio, or 'auto'"),
        ({"extract": {"batch_seconds": "0.5"}}, "extract.batch_seconds must be at least 1, is 0.5"),
        ({"model": {"conv_kernel": 4}}, "model.conv_kernel must be odd"),
        ({"model": {"conv_kernel": 0, "conv_kind": "dense"}}, "model.conv_kind = 'dense' means nothing for"),
        ({"model": {"conv_kind": "none"}}, "model.conv_kind = 'none': choose one of depthwise, dense"),
        (
            {"loss": {"cvar_share": 1.5}},
            "loss.cvar_share = 1.5: give a share of the groups above 0 and at most 1",
        ),
        ({"ensemble": {"speaker_balances": (0.0, -1.0)}}, "ensemble.speaker_balances must be at least 0, is -1.0"),
        (
            {"train": {"selection": "wa"}},
            "train.selection = 'wa': choose one of ccc, class_ccc, uar, macro_f1, worst_sp",
        ),
        ({"optim": {"schedule": "step"}}, "optim.schedule = 'step': choose one of constant, cosine"),
        ({"model": {"dropout": 1.0}}, "model.dropout must be in"),
        ({"model": {"dropout": -0.1}}, "model.dropout must be at least 0"),
        ({"ensemble": {"dropouts": (0.1, 1.0)}}, "model.dropout must be in"),
        ({"ensemble": {"learning_rates": (0.1, -1.0)}}, "ensemble.learning_rates must be at least 0, is -1"),
        ({"ensemble": {"folds": (0, 1)}}, "ensemble.folds means nothing for data.split_kind = auto"),
        (
            {"ensemble": {"folds": (0, 5)}, "data": {"split_kind": "kfold"}, "model": {"layer": 1}},
            "the folds are 0 to 4",
        ),
        ({"ensemble": {"class_kinds": ("ccc", "hard_ce")}}, "loss.class_kind = 'hard_ce' is cross-entropy"),
        ({"model": {"layer": "sum"}}, "model.layer = 'sum' reads every stored layer"),
        ({"loss": {"attribute_weights": (0.5, 0.5)}}, "one weight for each of targets.attributes"),
        ({"loss": {"attribute_weights": (0.5, 0.5, 0.5)}}, "summing to 1"),
        ({"targets": {"attributes": ("valence", "valence")}}, "names an attribute twice"),
        ({"targets": {"attributes": ("arousal",)}}, "this project says 'activation'"),
        ({"targets": {"class_set": "six"}}, "targets.class_set = 'six': choose one of msp8"),
        ({"eval": {"pa_uar_thresholds": (50, 100)}}, "percentages between 0 and 100"),
        ({"eval": {"nbest": (1, 7)}}, "no N can exceed the number of classes"),
        ({"eval": {"nbest": (2,)}}, "must include 1"),
        ({"data": {"fold": 1}}, "data.fold = 1 means nothing for data.split_kind = auto"),
        ({"model": {"layer": "sum", "top_features": 3}, "extract": {"layers": "all"}}, "adds layers up: choose one"),
        ({"targets": {"smoothing": 0.5, "distribution_of": "dawid_skene"}}, "it means nothing for"),
        ({"ensemble": {"only": (1,)}}, "ensemble.only names a member beyond the 1 of the product"),
        ({"eval": {"splits": ("dev",)}}, "eval.splits = 'dev': choose one of train"),
        ({"ensemble": {"class_targets": ("vote",)}}, "ensemble.class_targets = 'vote'"),
        ({"ensemble": {"seeds": (1, 1)}}, "ensemble.seeds names a value twice"),
        ({"ensemble": {"layers": (1, 2)}}, "set extract.layers to 'all'"),
        ({"ensemble": {"layers": (1, 2)}, "extract": {"layers": (1, 3)}}, "not among extract.layers"),
        ({"model": {"layer": 2}, "extract": {"layers": (1, 3)}}, "not among extract.layers"),
        ({"train": {"batch_size": 1}}, "train.batch_size must be at least 2, is 1"),
        ({"optim": {"learning_rate": -1.0}}, "optim.learning_rate must be at least 0"),
    ],
)
def test_rules(tree: dict, message: str):
    with pytest.raises(ConfigError) as error:
        from_config_dict(tree)
    assert message in str(error.value)


def test_rules_let_the_opposite_through():
    assert from_config_dict({"ensemble": {"layers": (1, 2)}, "extract": {"layers": (1, 2, 3)}})
    assert from_config_dict({"ensemble": {"layers": (1, 2)}, "extract": {"layers": "all"}})
    assert from_config_dict({"model": {"layer": 3}, "extract": {"layers": (1, 3)}})
    assert from_config_dict({"loss": {"attribute_weights": (0.5, 0.25, 0.25)}, "model": {"conv_kernel": 0}})


@pytest.mark.parametrize("path", FIELDS)
def test_fingerprint_covers_exactly_what_changes_results(path: str):
    changed, section = _with(path, _other_value(path)), path.split(".")[0]
    changes_results = path not in WITHOUT_EFFECT_ON_RESULTS
    assert changed != Config()
    assert (changed.fingerprint() != Config().fingerprint()) == changes_results
    assert (changed.fingerprint(section) != Config().fingerprint(section)) == changes_results
    others = [field.name for field in dataclasses.fields(Config) if field.name != section]
    assert changed.fingerprint(*others) == Config().fingerprint(*others)


def test_fields_that_are_new_leave_results_without_them_as_they_are():
    fields = Config().results_fields()
    assert not [path for path in fields if path.startswith("extract.") and ("condition" in path or "cop" in path)]
    assert not {"train.copy_share", "ensemble.copy_shares"} & fields.keys()
    heard = from_config_dict({"extract": {"conditions": ("gain:0..3db",)}, "train": {"copy_share": 0.5}})
    added = {"extract.conditions": ["gain:0..3db"], "train.copy_share": 0.5}
    assert heard.results_fields() == fields | added


def test_fingerprint_is_the_same_in_every_process_and_form():
    from_lists = from_config_dict({"data": {"split_shares": [0.6, 0.2, 0.2]}, "optim": {"clip_norm": 1}})
    assert from_lists.fingerprint() == Config().fingerprint()
    assert from_config_dict({"eval": {"seed": 1}}).results_fields("eval")["eval.seed"] == 1
    assert len(Config().fingerprint()) == 16


@pytest.mark.parametrize("path", FIELDS)
def test_help_names_every_field_and_its_meaning(path: str):
    section, name = path.split(".")
    (field,) = [field for field in dataclasses.fields(getattr(Config(), section)) if field.name == name]
    _, found, rest = describe().partition(f"--config.{path}={field.default!r}\n      {field.metadata['doc']}")
    assert found
    own = rest.partition("--config.")[0]
    for word, meaning in field.metadata["choices"].items():
        assert (f"{word} ({meaning})" if meaning else word) in own
