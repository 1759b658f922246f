"""Where checkpoints are found: folders, the hub's cache, its errors; and what their settings may not do."""

import builtins
import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from seremo_jax import backbones
from seremo_jax.backbones import hub
from seremo_jax.backbones.weights import CheckpointError, open_checkpoint, read_tensors
from tests.backbones.test_torch_files import archive_of, state_of, tensor

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "wav2vec2" / "wavlm-large"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def folder(tmp_path):
    """A checkpoint to change."""
    return shutil.copytree(GOLDEN, tmp_path / "wavlm")


def change(path, **settings):
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))


# ---- the hub


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache of the hub; the network is off (HF_HUB_OFFLINE, in conftest)."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_a_cached_snapshot_works_without_a_network(cache):
    snapshots = cache / "models--microsoft--wavlm" / "snapshots"
    shutil.copytree(GOLDEN, snapshots / COMMIT)
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs" / "main").write_text(COMMIT)
    by_hand = open_checkpoint(str(GOLDEN))
    for model_id in ("microsoft/wavlm", f"microsoft/wavlm@{COMMIT}", "microsoft/wavlm@main"):
        checkpoint = open_checkpoint(model_id)
        assert (checkpoint.name, checkpoint.commit) == ("microsoft/wavlm", COMMIT)
        assert checkpoint.shapes() == by_hand.shapes()
        assert checkpoint.revision == by_hand.revision
        assert hub.is_here(model_id)
    assert not hub.is_here("microsoft/wavlm@other")
    assert not hub.is_here("microsoft/hubert")
    assert hub.is_here("logmel")
    (snapshots / COMMIT / "model.safetensors").unlink()  # settings alone, of a model that was refused
    assert not hub.is_here("microsoft/wavlm")
    with pytest.raises(CheckpointError, match="microsoft/wavlm@other is not cached and cannot be downloaded"):
        open_checkpoint("microsoft/wavlm@other")


def hub_error(name):
    import httpx2
    from huggingface_hub import errors

    if name == "ProxyError":
        return httpx2.ProxyError("503 from the proxy")
    response = httpx2.Response(404, request=httpx2.Request("GET", "https://hub.example"))
    return getattr(errors, name)("404 Client Error.\n\nand more", response=response)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ("ProxyError", "503 from the proxy"),
        ("GatedRepoError", "accept its terms on the hub and log in"),
        ("RepositoryNotFoundError", "the hub has no such model, or it is private"),
        ("RevisionNotFoundError", "the hub has no such revision of it"),
        ("HfHubHTTPError", "404 Client Error."),
        (OSError(28, "No space left on device"), "No space left on device"),
        (AssertionError(), "AssertionError"),
    ],
)
def test_every_failed_download_is_one_line_with_its_reason_and_the_remedy(error, reason, monkeypatch):
    import huggingface_hub

    def fail(*args, **kwargs):
        raise hub_error(error) if isinstance(error, str) else error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(CheckpointError) as caught:
        hub.locate("org/name@v1")
    message = str(caught.value)
    assert "\n" not in message
    assert f"cannot be downloaded ({reason}" in message or f"[Errno 28] {reason}" in message
    assert "there is no folder org/name@v1 here" in message
    assert "place its config.json, preprocessor_config.json and model.safetensors (or pytorch_model.bin)" in message


def test_the_second_format_is_taken_from_the_commit_of_the_first_look(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []

    def download(repository, revision, allow_patterns):
        asked.append((revision, allow_patterns))
        (tmp_path / COMMIT).mkdir(exist_ok=True)
        if "pytorch_model.bin" in allow_patterns:
            (tmp_path / COMMIT / "pytorch_model.bin").write_bytes(b"")
        return str(tmp_path / COMMIT)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    place = hub.locate("org/name")
    assert place == hub.Place("org/name", tmp_path / COMMIT, COMMIT)
    assert asked == [(None, ["config.json", "preprocessor_config.json", "processor_config.json"])]
    hub.fetch_weights(place)
    assert [revision for revision, _ in asked] == [None, COMMIT, COMMIT]
    assert "model.safetensors" in asked[1][1]
    assert not {"pytorch_model.bin", "*.bin"} & set(asked[1][1])
    assert "pytorch_model.bin" in asked[2][1]


@pytest.mark.parametrize(
    ("settings", "layers", "message"),
    [
        ({"model_type": "bert"}, None, "model_type 'bert' is not known here; known: .*wavlm.*whisper"),
        ({"num_attention_heads": 0}, None, "num_attention_heads = 0, should be a whole number from 1"),
        ({}, (9,), "layer 9 is out of range"),
    ],
)
def test_what_cannot_be_used_is_refused_before_its_weights_are_fetched(settings, layers, message, folder, monkeypatch):
    import huggingface_hub

    def download(repository, revision, allow_patterns):
        assert "model.safetensors" not in allow_patterns
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    change(folder / "config.json", **settings)
    with pytest.raises(ValueError, match=message):
        backbones.load("org/name", layers)


# ---- settings


def test_nothing_beside_a_config_is_run_nor_asked_about(folder, monkeypatch):
    """Transformers offers to run Python files that a config or preprocessor names."""
    trap = folder / "trap"
    (folder / "planted.py").write_text(f"import os\nos.mkdir({str(trap)!r})\nclass Thing: pass\n")
    monkeypatch.setattr(builtins, "input", lambda *_: pytest.fail("asked whether to run it"))
    planted = {"AutoConfig": "planted.Thing", "AutoFeatureExtractor": "planted.Thing"}
    change(folder / "config.json", auto_map=planted)
    assert open_checkpoint(str(folder)).config.model_type == "wavlm"
    change(folder / "preprocessor_config.json", auto_map=planted)
    assert open_checkpoint(str(folder)).preprocessor.sampling_rate == 16_000
    change(folder / "preprocessor_config.json", feature_extractor_type="Thing")
    with pytest.raises(
        CheckpointError, match=r"preprocessor_config\.json: feature_extractor_type 'Thing' is not that of wavlm"
    ):
        open_checkpoint(str(folder))
    change(folder / "config.json", model_type="planted")
    with pytest.raises(CheckpointError, match=r"config\.json: model_type 'planted' is not known"):
        open_checkpoint(str(folder))
    assert not trap.exists()


def test_an_early_preprocessor_that_does_not_say_its_type_is_known_by_the_model(folder, shared):
    settings = {"do_normalize": False, "sampling_rate": 8_000, "feature_size": 1, "return_attention_mask": True}
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
    preprocessor = open_checkpoint(str(folder)).preprocessor
    assert type(preprocessor).__name__ == "Wav2Vec2FeatureExtractor"
    assert (preprocessor.do_normalize, preprocessor.sampling_rate) == (False, 8_000)
    whisper = shared / "weights" / "whisper-tiny.en-encoder"
    assert type(open_checkpoint(str(whisper)).preprocessor).__name__ == "WhisperFeatureExtractor"
    (folder / "preprocessor_config.json").unlink()
    assert open_checkpoint(str(folder)).preprocessor is None


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("config.json", '{"model_type": ["wavlm"]}', r"config\.json: model_type \['wavlm'\] is not known"),
        ("config.json", "{}", r"config\.json: model_type None is not known"),
        ("config.json", "[1]", r"config\.json holds no JSON object"),
        ("config.json", b"\xff\xfe", r"config\.json cannot be read"),
        (
            "config.json",
            '{"model_type": "wavlm", "hidden_size": "x"}',
            r"config\.json: hidden_size = 'x', should be a whole number from 1",
        ),
        ("preprocessor_config.json", "{", r"preprocessor_config\.json cannot be read"),
        ("preprocessor_config.json", '{"feature_extractor_type": 3}', r"preprocessor_config\.json: feature_extractor_"),
        (
            "preprocessor_config.json",
            '{"sampling_rate": "16k"}',
            r"preprocessor_config\.json: sampling_rate = '16k', should be a whole number",
        ),
        ("model.safetensors", b"version https://git-lfs.github.com/spec/v1\n", r"model\.safetensors is a Git LFS poin"),
        ("model.safetensors", b"", r"model\.safetensors is damaged"),
    ],
)
def test_a_damaged_file_is_one_error_that_names_it(file, content, message, folder):
    (folder / file).write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(str(folder)).shapes()


def test_a_checkpoint_opens_where_pytorch_is_not_installed():
    """In a process in which importing torch fails, and without transformers' advice to install it."""
    code = (
        "import sys; sys.modules['torch'] = None\n"
        "from seremo_jax.backbones.weights import open_checkpoint, read_tensors\n"
        f"checkpoint = open_checkpoint({str(GOLDEN)!r})\n"
        "tensors = read_tensors(checkpoint, checkpoint.shapes(), lambda name: name)\n"
        "print(len(tensors), type(checkpoint.preprocessor).__name__)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[1] == "Wav2Vec2FeatureExtractor"
    assert "PyTorch" not in done.stderr
    assert not logging.getLogger("transformers").filters


# ---- tensors


@pytest.mark.parametrize("shard", ["../model.safetensors", "/etc/hostname", "sub/model.safetensors", "", 3, None, ".."])
def test_an_index_names_files_beside_it_and_no_others(shard, folder):
    (folder / "model.safetensors").rename(folder.parent / "model.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": "a.bin", "b": shard}}))
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json names .*, no weight file beside it"):
        open_checkpoint(str(folder)).shapes()


@pytest.mark.parametrize("index", ["{", "[]", "{}", '{"weight_map": {}}', '{"weight_map": ["a"]}'])
def test_a_damaged_index_is_named(index, folder):
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors.index.json").write_text(index)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json "):
        open_checkpoint(str(folder)).shapes()


def sharded_bin(folder):
    """Two files of torch.save with an index in the place of the safetensors; returns their numbers."""
    (folder / "model.safetensors").unlink()
    numbers = {"a": np.arange(4, dtype="<f4"), "b": np.arange(6, dtype="<f4")}
    names = {name: f"pytorch_model-0000{i}-of-00002.bin" for i, name in enumerate(numbers, 1)}
    for name, array in numbers.items():
        pickled = state_of(**{name: tensor(array.size, 0, array.shape, (1,))})
        archive_of(folder / names[name], pickled, [("0", array.tobytes())])
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": names}))
    return numbers, names


def test_sharded_files_of_torch_are_one_checkpoint(folder):
    numbers, names = sharded_bin(folder)
    checkpoint = open_checkpoint(str(folder))
    assert checkpoint.shapes() == {"a": (4,), "b": (6,)}
    tensors = read_tensors(checkpoint, checkpoint.shapes(), lambda name: name)
    assert all((tensors[name] == array).all() for name, array in numbers.items())
    shutil.copy(folder / names["a"], folder / names["b"])
    with pytest.raises(CheckpointError, match=r"pytorch_model-00002-of-00002\.bin lacks 1 tensors .*, b first"):
        open_checkpoint(str(folder)).shapes()
    (folder / names["b"]).unlink()
    with pytest.raises(CheckpointError, match=r"names pytorch_model-00002-of-00002\.bin, not in"):
        open_checkpoint(str(folder)).shapes()


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_numbers_keep_their_bits(dtype, folder):
    numbers = np.array([1.5, -0.0, 6e4, -2.0, 1e-7], dtype).reshape(5, 1)
    safetensors.numpy.save_file({"w": numbers}, folder / "model.safetensors")
    read = read_tensors(open_checkpoint(str(folder)), {"encoder.w": (5, 1)}, lambda name: f"encoder.{name}")
    assert read["encoder.w"].dtype == dtype
    assert read["encoder.w"].tobytes() == numbers.tobytes()


def test_all_that_is_wrong_is_one_error_that_does_not_run_on(folder):
    tensors = {
        "kept": np.zeros((3, 4), np.float32),
        "whole": np.zeros(2, np.int16),
        "flag": np.zeros(2, bool),
        **{f"strange.{i:02}": np.zeros(1, np.float32) for i in range(25)},
        "old.twice": np.zeros(1, np.float32),
        "new.twice": np.zeros(1, np.float32),
        "head": np.zeros(1, np.int8),
    }
    safetensors.numpy.save_file(tensors, folder / "model.safetensors")
    wanted = {"kept": (4, 3), "whole": (2,), "flag": (2,), "twice": (1,), "absent": (7,)}

    def canonical(name):
        return None if name == "head" else name.rpartition(".")[2] if name.endswith("twice") else name

    with pytest.raises(CheckpointError) as caught:
        read_tensors(open_checkpoint(str(folder)), wanted, canonical)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith(str(folder))
    kinds = {line.split(": ")[0].strip(): line.split(": ")[1] for line in lines[1:]}
    assert kinds["1 missing"] == "absent"
    assert kinds["1 of another shape"] == "kept (3, 4), should be (4, 3)"
    assert sorted(kinds["2 no floating-point numbers"].split(", ")) == ["flag (bool)", "whole (int16)"]
    assert sorted(kinds["1 given twice"].replace("(", "").replace(")", "").split()) == ["new.twice", "old.twice"]
    assert kinds["25 unexpected"].count("strange.") == 20
    assert kinds["25 unexpected"].endswith(" and 5 more")
    assert "head" not in str(caught.value)


def test_what_is_no_tensor_is_refused_by_name_unless_left_alone(folder):
    (folder / "model.safetensors").unlink()
    pickled = state_of(w=tensor(4, 0, (4,), (1,)), epoch=b"K\x03")
    archive_of(folder / "pytorch_model.bin", pickled, [("0", bytes(16))])
    checkpoint = open_checkpoint(str(folder))
    with pytest.raises(CheckpointError, match="1 no tensor: epoch"):
        read_tensors(checkpoint, {"w": (4,)}, lambda name: name)
    tensors = read_tensors(checkpoint, {"w": (4,)}, lambda name: None if name == "epoch" else name)
    assert tensors["w"].tolist() == [0.0] * 4


def test_tensors_left_alone_are_not_read(folder):
    """The storage of one tensor is missing altogether; nobody asks for it."""
    (folder / "model.safetensors").unlink()
    pickled = state_of(w=tensor(4, 0, (4,), (1,)), decoder=tensor(4, 0, (4,), (1,), key="1"))
    archive_of(folder / "pytorch_model.bin", pickled, [("0", bytes(16))])
    checkpoint = open_checkpoint(str(folder))
    assert dict(read_tensors(checkpoint, {"w": (4,)}, lambda name: name if name == "w" else None)).keys() == {"w"}
    tensors = read_tensors(checkpoint, {"w": (4,), "decoder": (4,)}, lambda name: name)
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin is damaged"):
        tensors["decoder"]


def test_folders_are_found_from_home_and_files_are_no_folders(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert hub.locate("~/wavlm").folder == folder
    with pytest.raises(CheckpointError, match="is a file: give the folder"):
        hub.locate(os.fspath(folder / "config.json"))
