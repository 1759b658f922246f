"""Models as folders: what a trained workdir says, said again by its export; damage and mismatch refused."""

import hashlib
import json
import re
import shutil

import huggingface_hub
import numpy as np
import pyarrow.parquet as pq
import pytest
from huggingface_hub import constants

from seremo_jax.core import ensemble, sharding
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, read_json, write_json
from seremo_jax.core.config import read_config, write_config
from seremo_jax.data import level, tables
from seremo_jax.data.policies import target_policies
from seremo_jax.data.targets import build
from seremo_jax.evaluation import calibration_fit, evaluate
from seremo_jax.features.store import Reader
from seremo_jax.metrics import calibration
from seremo_jax.predict import export, model_folder, predictor
from seremo_jax.predict.files import to_record
from seremo_jax.training import train
from tests.support import toy_corpus

HEAD = {
    "model__gru_units": 8, "model__gru_layers": 1, "model__embedding_size": 4, "train__max_epochs": 2,
    "model__conv_kind": "dense", "model__conv_filters": 5, "model__embedding_activation": "tanh",
    "model__bidirectional": True,
    "ensemble__layers": (1, 3), "ensemble__seeds": (0, 1), "saliency__targets": "votes", "eval__coverage": 0.5,
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _toy():
    toy_corpus.install_toy()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return toy_corpus.make_corpus(tmp_path_factory.mktemp("toy"))


@pytest.fixture(scope="module")
def workdir(corpus):
    """The toy corpus extracted, four members trained and evaluated."""
    config = toy_corpus.config_of(corpus, **HEAD)
    workdir = toy_corpus.fresh(corpus, corpus, "trained")
    reader = toy_corpus.extracted(corpus, workdir, **HEAD)
    members = ensemble.members(config, None)
    pair, mesh = tables.read_tables(workdir)[:2], sharding.make_mesh(len(members))
    train.train(config, reader, pair, mesh, members=members, workdir=workdir, is_quiet=True)
    evaluate.run(config, workdir, is_quiet=True)
    return workdir


@pytest.fixture(scope="module")
def exported(workdir):
    return model_folder.export(workdir, workdir / "models" / "layer3", ["layer03-*"])


def evaluated(workdir, **wanted):
    """Rows of the test split's predictions, by utterance."""
    rows = pq.read_table(workdir / "predictions" / "test_clean.parquet").to_pylist()
    rows_of = {}
    for row in rows:
        if all(row[name] == value for name, value in wanted.items()):
            rows_of.setdefault(row["utterance"], []).append(row)
    return rows_of


def tempered(workdir, model, distribution):
    """A mean distribution at the temperature that evaluation fitted for exactly these members."""
    entries = json.loads((workdir / "calibration.json").read_text())["entries"]
    (entry,) = (item for item in entries if sorted(item["members"]) == sorted(model.members))
    return calibration.tempered(np.asarray(distribution, np.float64)[None], entry["temperature"])[0]


def test_an_exported_model_says_what_evaluation_said(corpus, workdir, exported):
    model = predictor.load(exported)
    assert model.members == ("layer03-votes-seed0", "layer03-votes-seed1")
    assert model.attributes == ("valence", "activation")
    trained = [u["id"] for u in tables.read_tables(workdir)[0].to_pylist() if u["split"] == "train"]
    levels = [level.active_dbfs(toy_corpus.read_waveform(corpus, name), 16_000) for name in trained]
    assert model.about["levels_dbfs"] == [min(levels), max(levels)]
    assert (model.about["backbone"]["level"], model.about["backbone"]["level_dbfs"]) == ("none", -26.0)
    expected = evaluated(workdir, layer=3)
    assert len(expected) == 4
    paths = [corpus / "audio" / f"{utterance}.wav" for utterance in expected]
    for rows, result in zip(expected.values(), model.files(paths), strict=True):
        mean = np.mean([[row[f"p_{name}"] for name in model.classes] for row in rows], axis=0)
        np.testing.assert_allclose(list(result.distribution.values()), tempered(workdir, model, mean), atol=1e-5)
        for name, value in result.attributes.items():
            in_units = 4 + 3 * np.array([row[name] for row in rows])  # rated from 1 to 7, targets in [-1, 1]
            assert value == pytest.approx(in_units.mean(), abs=1e-4)
            assert result.attributes_sd[name] == pytest.approx(in_units.std(ddof=1), abs=1e-4)


def test_a_workdir_is_a_model_as_well(corpus, workdir, exported):
    path = corpus / "audio" / "u04.wav"
    expected = to_record(predictor.load(exported).file(path))
    for place in (workdir, workdir / "train"):
        assert to_record(predictor.load(place, members=["layer03-*"]).file(path)) == expected


def test_one_member_makes_a_single_model(corpus, workdir):
    folder = model_folder.export(workdir, workdir / "models" / "single", ["layer01-votes-seed1"])
    model = predictor.load(folder)
    ((utterance, (row,)), *_) = evaluated(workdir, layer=1, seed=1).items()
    result = model.file(corpus / "audio" / f"{utterance}.wav")
    expected = tempered(workdir, model, [row[f"p_{name}"] for name in model.classes])
    np.testing.assert_allclose(list(result.distribution.values()), expected, atol=1e-5)
    assert result.distribution_sd is None
    assert result.attributes_sd is None
    best = json.loads((workdir / "train" / "finished.json").read_text())["best_score"]
    members = model_folder.from_workdir(workdir, ["best"]).about["members"]
    assert [member["name"] for member in members] == [evaluated_names(workdir)[int(np.argmax(best))]]


def test_the_best_of_members_with_losses_of_several_kinds_is_not_picked_by_them():
    members = [{"class_target": "votes", "class_kind": kind, "label_smoothing": 0.0} for kind in ("ccc", "kl")]
    members = [member | {"attribute_task_weight": 1.0, "class_task_weight": 1.0} for member in members]
    trained = {"members": members, "best_score": [-2.0, -1.0], "run": {"train.selection": "loss"}}
    with pytest.raises(ArtefactError, match="losses of several kinds, which do not compare"):
        model_folder.pick(trained, ["a", "b"], ["best"])
    assert model_folder.pick(trained | {"members": members[:1] * 2}, ["a", "b"], ["best"]) == [1]


def evaluated_names(workdir):
    return ensemble.names(json.loads((workdir / "train" / "finished.json").read_text())["members"])


def test_members_must_be_one_system_or_be_named(workdir):
    with pytest.raises(ArtefactError, match=r"differ in more than their seed.*--member 'layer01-votes-\*'.*layer03-"):
        predictor.load(workdir)
    with pytest.raises(ArtefactError, match=r"no member is called 'layer02-\*'; there are: layer01-votes-seed0"):
        predictor.load(workdir, members=["layer01-*", "layer02-*"])


def test_a_calibrated_model_gives_the_conformal_set(corpus, workdir, exported, tmp_path):
    """As evaluation would: every class above the threshold of the development split."""
    calibration = json.loads((exported / "model.json").read_text())["calibration"]
    assert calibration["temperature"] != 1.0
    assert calibration["level"] == 0.5
    assert 0 < calibration["conformal_threshold"] < 1
    model, paths = predictor.load(exported), sorted((corpus / "audio").glob("u0*.wav"))
    for result in model.files(paths):
        inside = {name for name, value in result.distribution.items() if value >= calibration["conformal_threshold"]}
        assert set(result.conformal_set) == inside
        assert result.conformal_set == result.ranked[: len(inside)]
    words = calibration_fit.described(calibration)
    assert re.fullmatch(
        r"temperature \d+\.\d\d; conformal sets of classes above 0\.\d{3}, to hold 50 % of votes", words
    )
    mixed = predictor.load(
        model_folder.export(workdir, tmp_path / "mix", ["layer01-votes-seed1", "layer03-votes-seed1"])
    )
    assert mixed.about["calibration"] == calibration_fit.NOTHING
    assert mixed.file(paths[0]).conformal_set is None
    assert calibration_fit.described(calibration_fit.NOTHING).startswith(
        "not calibrated: nothing was fitted for exactly these"
    )


def test_what_was_fitted_belongs_to_its_training(workdir, tmp_path):
    path = workdir / calibration_fit.FILE
    kept = path.read_text()
    record = read_json(path, "")
    try:
        path.unlink()
        assert model_folder.from_workdir(workdir, ["best"]).about["calibration"] == calibration_fit.NOTHING
        write_json(path, record | {"checkpoint": "other"})
        with pytest.raises(ArtefactError, match=r"checkpoint of .*calibration\.json.*other.*launch\.evaluate"):
            model_folder.from_workdir(workdir, ["best"])
        write_json(path, {"checkpoint": record["checkpoint"], "level": 0.5})
        with pytest.raises(ArtefactError, match=r"calibration\.json is damaged \(it lacks 'entries'\)"):
            model_folder.from_workdir(workdir, ["best"])
        for entry in record["entries"]:
            entry["lac"] = None
        write_json(path, record)
        calibration = model_folder.from_workdir(workdir, ["best"]).about["calibration"]
        assert calibration["temperature"] is not None
        assert calibration["conformal_threshold"] is None
        assert calibration_fit.described(calibration).endswith(
            "no conformal sets: too few development utterances for the level"
        )
    finally:
        path.write_text(kept)


def test_the_folder_says_all_there_is_to_know(exported):
    record = json.loads((exported / "model.json").read_text())
    assert record["classes"] == list(toy_corpus.CLASSES)
    assert record["backbone"]["name"] == "toy"
    assert record["backbone"]["revision"] == "1"
    assert record["layers"] == [3]
    assert record["protocol"]["corpus"] == "toy"
    assert record["calibration"]["num_utterances"] == 4
    assert [attribute["is_trained"] for attribute in record["attributes"]] == [True, True, False]
    assert sorted(path.name for path in exported.iterdir()) == ["head.stablehlo", "model.json", "weights.safetensors"]


def _flip(path):
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def _edit(path):
    path.write_text(path.read_text().replace('"layer": 3', '"layer": 2'))


@pytest.mark.parametrize(
    ("file", "damage", "message"),
    [
        ("weights.safetensors", _flip, r"SHA-256 of \S+weights.safetensors.*'\w+' there, '\w+' asked for"),
        ("weights.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-9]), r"size of .* there, \d+ asked"),
        ("head.stablehlo", lambda path: path.unlink(), r"head.stablehlo is missing, though model.json lists it"),
        ("model.json", _edit, r"fingerprint of \S+model.json.*'\w+' there, '\w+' asked for.*was changed"),
        ("model.json", lambda path: path.write_text("{"), r"model.json is damaged"),
        ("model.json", lambda path: path.write_text('{"format_version": 9}'), r"format of .* 9 there, 1 asked for"),
    ],
)
def test_damage_is_refused(exported, tmp_path, file, damage, message):
    folder = shutil.copytree(exported, tmp_path / "model")
    damage(folder / file)
    with pytest.raises(ArtefactError, match=message):
        predictor.load(folder)


def _rewrite(folder, **fields):
    """A record of other fields, as whoever knows the format could write it."""
    record = json.loads((folder / "model.json").read_text()) | fields
    record.pop("fingerprint")
    (folder / "model.json").write_text(json.dumps(record | {"fingerprint": fingerprint_of(record)}))


@pytest.mark.parametrize("kind", ["up", "absolute", "below", "link"])
def test_files_of_a_model_lie_in_its_folder(exported, tmp_path, kind):
    folder, outside = shutil.copytree(exported, tmp_path / "model"), tmp_path / "secret"
    outside.write_bytes(b"s")
    (folder / "sub").mkdir()
    (folder / "sub" / "secret").write_bytes(b"s")
    (folder / "linked").symlink_to(outside)
    name = {"up": "../secret", "absolute": str(outside), "below": "sub/secret", "link": "linked"}[kind]
    files = json.loads((folder / "model.json").read_text())["files"]
    _rewrite(folder, files=files | {name: {"num_bytes": 1, "sha256": hashlib.sha256(b"s").hexdigest()}})
    with pytest.raises(ArtefactError, match=rf"model.json: files names '{name}', which does not lie in this folder"):
        predictor.load(folder)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"head": None}, "head is None"),
        ({"head": {"num_layers": 1}}, r"number of classes in .*: \d there, None asked for"),
        ({"classes": ["sad"]}, r"number of classes in .*: 1 there, \d asked for"),
        ({"calibration": {"temperature": "hot"}}, r"calibration.temperature is 'hot'"),
        ({"attributes": [{"name": "valence"}] * 3}, r"attributes\[0\].is_trained is None"),
        ({"backbone": {"location": "logmel"}}, "backbone.name is None"),
        ({"layers": []}, r"layers is \[\]"),
        ({"members": ["x"]}, r"members is \['x'\]"),
        ({"members": [{"layer": 3, "name": "x"}] * 9}, "does not fit model.json"),
        ({"files": {}}, "does not fit model.json"),
        ({"levels_dbfs": ["quiet", 3.0]}, r"levels_dbfs is \['quiet', 3.0\]"),
        ({"files": {"weights.safetensors": 3}}, "size of .*weights.safetensors in bytes"),
    ],
)
def test_records_of_something_else_are_refused(exported, tmp_path, fields, message):
    folder = shutil.copytree(exported, tmp_path / "model")
    _rewrite(folder, **fields)
    with pytest.raises(ArtefactError, match=message):
        predictor.load(folder)


@pytest.mark.parametrize(("field", "value"), [("level", "loud"), ("level_dbfs", "-26")])
def test_a_level_that_no_model_has_is_refused(exported, tmp_path, field, value):
    folder = shutil.copytree(exported, tmp_path / "model")
    backbone = json.loads((folder / "model.json").read_text())["backbone"]
    _rewrite(folder, backbone=backbone | {field: value})
    with pytest.raises(ArtefactError, match=f"backbone.{field} is '{value}', which no model has"):
        predictor.load(folder)


def test_a_backbone_that_a_model_names_is_downloaded_only_if_asked_for(exported, tmp_path, monkeypatch):
    folder, asked = shutil.copytree(exported, tmp_path / "model"), []
    backbone = json.loads((folder / "model.json").read_text())["backbone"]
    _rewrite(folder, backbone=backbone | {"location": "someone/something@v1"})
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda name, **_: asked.append(name) or 1 / 0)
    with pytest.raises(ArtefactError, match="ask for it yourself with --backbone=someone/something@v1"):
        predictor.load(folder)
    assert not asked
    with pytest.raises(ArtefactError, match="cannot be downloaded"):
        predictor.load(folder, backbone="someone/something@v1")
    assert asked == ["someone/something"]


def test_what_is_no_model_says_so(workdir, exported, tmp_path):
    with pytest.raises(ArtefactError, match=r"is no model: .*model\.json.*launch\.export.*finished\.json"):
        predictor.load(tmp_path)
    with pytest.raises(ArtefactError, match="is an exported model"):
        predictor.load(exported, members=["best"])
    with pytest.raises(ArtefactError, match=r"layer3 is there already"):
        model_folder.export(workdir, exported, ["layer03-*"])
    with pytest.raises(ValueError, match="the hop must be above 0"):
        predictor.load(exported, window_s=1, hop_s=2)


def test_the_config_beside_the_training_must_be_its_own(corpus, workdir, tmp_path):
    folder = shutil.copytree(workdir, tmp_path / "w")
    other = toy_corpus.config_of(corpus, **HEAD, optim__learning_rate=0.5)
    write_config(folder / "train", other)
    with pytest.raises(ArtefactError, match=r"optim\.learning_rate: 0\.0005 there, 0\.5 asked for"):
        predictor.load(folder, members=["best"])
    (folder / "train" / "config.json").unlink()
    with pytest.raises(ArtefactError, match=r"config\.json is missing.*which settings"):
        predictor.load(folder, members=["best"])


def test_the_config_comes_back_as_it_was_and_foreign_fields_are_refused(corpus, tmp_path):
    config = toy_corpus.config_of(corpus, **HEAD, loss__attribute_weights=(0.5, 0.25, 0.25))
    write_config(tmp_path, config)
    assert read_config(tmp_path) == config
    path = tmp_path / "config.json"
    tree = read_json(path, "")
    write_json(path, tree | {"train": tree["train"] | {"patients": 1}})
    with pytest.raises(
        ArtefactError, match=r"config\.json does not fit.*train\.patients; did you mean train\.patience"
    ):
        read_config(tmp_path)


def test_an_export_cut_off_leaves_nothing(workdir, tmp_path, monkeypatch):
    def fail(*arguments):
        raise OSError("no space left")

    monkeypatch.setattr(export, "to_stablehlo", fail)
    with pytest.raises(OSError, match="no space"):
        model_folder.export(workdir, tmp_path / "model", ["best"])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("scale", ["centered", "unit", "raw", "minmax"])
def test_attributes_come_back_on_the_corpus_scale(corpus, workdir, scale):
    utterances, ratings, _ = tables.read_tables(workdir)
    config = toy_corpus.config_of(corpus, targets__attribute_scale=scale)
    targets = build(utterances, ratings, target_policies(config))
    raw = build(utterances, ratings, target_policies(toy_corpus.config_of(corpus, targets__attribute_scale="raw")))
    is_train = np.array(utterances["split"].to_pylist()) == "train"
    described = model_folder.describe_attributes(config, utterances, ratings, targets, is_train)
    assert [item["name"] for item in described if item["is_trained"]] == ["valence", "activation"]
    for a, item in enumerate(described[:2]):
        back = targets.attributes[:, a] * item["factor"] + item["offset"]
        rated = targets.has_attribute[:, a]
        np.testing.assert_allclose(back[rated], raw.attributes[rated, a], rtol=0, atol=1e-5)


def test_the_store_reader_is_not_needed_by_an_exported_model(exported, tmp_path, corpus, monkeypatch):
    folder = shutil.copytree(exported, tmp_path / "elsewhere")
    monkeypatch.setattr(Reader, "__init__", lambda *arguments: pytest.fail("opened a store"))
    assert predictor.load(folder).file(corpus / "audio" / "u04.wav").duration_s > 0
