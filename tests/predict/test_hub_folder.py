"""Models on the hub: written with a card and read again, against a stand-in for the hub on loopback."""

import json
import re

import numpy as np
import pytest
import yaml

from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.predict import model_folder, model_record, publish
from tests.support import fake_hub, launchers, prepared


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """An empty hub, and an empty cache of its client."""
    from huggingface_hub import constants

    with fake_hub.running() as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        template = running.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        yield running


def test_a_model_is_written_with_its_card_and_read_again(hub, tmp_path, tmp_path_factory):
    finished = prepared.finished(tmp_path_factory)
    workdir = finished / "workdir"
    code, output = launchers.run("export", f"--workdir={workdir}", "--to=hf://org/emotion", "--license=odbl")
    assert code == 0, output
    ((oid, files),) = hub.repositories["org/emotion"].items()
    assert f"next: python -m launch.predict --model=hf://org/emotion@{oid} FILE" in output
    assert hub.private == {"org/emotion": True}
    by_hand = tmp_path / "by_hand"
    by_hand.mkdir()
    for name in ("model.json", "weights.safetensors", "head.stablehlo"):
        (by_hand / name).write_bytes(files[name])
    assert files["weights.safetensors"] == (finished / "model" / "weights.safetensors").read_bytes()

    front, _, text = files["README.md"].decode().removeprefix("---\n").partition("\n---\n")
    assert yaml.safe_load(front)["license"] == "odbl"
    records = map(json.loads, (workdir / "results.jsonl").read_text().splitlines())
    record = next(record for record in records if record["group"] == "all")
    entry = record["metrics"]["UAR"]
    shown = rf"\| UAR +\| +{entry['value']:.3f} ± [\d.]+ \[{entry['low']:.3f}, {entry['high']:.3f}\]"
    assert re.search(shown, text)
    assert f"{record['num_speakers']} speakers" in text
    for word in (*record["protocol"]["classes"], record["protocol"]["split_hash"], "simulated-1-seed0", "logmel"):
        assert word in text

    hub.repositories["org/emotion"][oid]["evil.pkl"] = b"never read"
    model = model_folder.read("hf://org/emotion")
    local = model_folder.read(by_hand)
    assert model.about == local.about
    np.testing.assert_array_equal(model.heads.mean, local.heads.mean)
    assert sorted(hub.downloads) == sorted(
        f"org/emotion@{oid}/{name}" for name in set(files) - {"README.md", "evil.pkl"}
    )

    # A later commit does not change what an earlier one is.
    record = json.loads(files["model.json"]) | {"longest_s": 99.0}
    later = hub.commit("org/emotion", {"model.json": json.dumps(record).encode()})
    assert model_folder.read(f"hf://org/emotion@{oid}").about == local.about
    with pytest.raises(ArtefactError, match=r"fingerprint of .*model\.json"):
        model_folder.read(f"hf://org/emotion@{later}")
    with pytest.raises(ArtefactError, match=r"hf://org/emotion@v9 .*: the hub has no such revision of it"):
        model_folder.read("hf://org/emotion@v9")


def test_further_files_are_written_for_others_and_never_downloaded(hub, tmp_path_factory):
    workdir = prepared.finished(tmp_path_factory) / "workdir"
    publish.run(workdir, "hf://org/emotion", more=lambda model: {"head.onnx": b"for other runtimes"})
    ((oid, files),) = hub.repositories["org/emotion"].items()
    assert files["head.onnx"] == b"for other runtimes"
    assert json.loads(files["model.json"])["further_files"]["head.onnx"]["num_bytes"] == 18
    assert "further_files" not in model_folder.read("hf://org/emotion").about
    assert f"org/emotion@{oid}/head.onnx" not in hub.downloads


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("hf://name", "hf://name names no model of the hub: give hf://ORG/NAME or hf://ORG/NAME@REVISION"),
        ("hf://org/name/deeper", "names no model of the hub"),
        ("hf://org/none", "hf://org/none is not cached and cannot be downloaded: the hub has no such model"),
    ],
)
def test_what_is_not_there_is_told_by_its_name(hub, url, message):
    with pytest.raises(ArtefactError, match=re.escape(message)):
        model_folder.read(url)


def test_a_revision_is_not_written_to(hub, tmp_path):
    with pytest.raises(ArtefactError, match="a model is written as a new commit: leave out @v1"):
        publish.run(tmp_path, "hf://org/name@v1")
    assert not hub.repositories


def test_a_folder_of_ones_own_may_not_link_to_others(tmp_path, hub, tmp_path_factory):
    """Its links are the hub client's in the client's cache alone, however the folders are called."""
    source = prepared.finished(tmp_path_factory) / "model"
    snapshot = tmp_path / "models--org--name" / "snapshots" / "0123"
    blobs = tmp_path / "models--org--name" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)
    for name in ("model.json", "weights.safetensors", "head.stablehlo"):
        (blobs / name).write_bytes((source / name).read_bytes())
        (snapshot / name).symlink_to(blobs / name)
    with pytest.raises(ArtefactError, match="which does not lie in this folder"):
        model_folder.read(snapshot)


def test_where_folders_lie_on_a_machine_is_not_published():
    about = {"backbone": {"location": "/home/name/wavlm"}, "layers": [1, "/data/noise"], "name": "microsoft/wavlm"}
    kept = {"backbone": {"location": "wavlm"}, "layers": [1, "noise"], "name": "microsoft/wavlm"}
    assert model_record.without_places(about) == kept
