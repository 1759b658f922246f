"""A workdir in a bucket: the artefact layer, and a whole run equal byte for byte to one on disk."""

import dataclasses
import stat

import jax
import numpy as np
import pytest

from configs import simulated
from seremo_jax.core import artefacts, copies, ensemble, sharding
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import from_config_dict
from seremo_jax.data import ingest, tables
from seremo_jax.evaluation import evaluate
from seremo_jax.features import extract, store
from seremo_jax.predict import model_folder
from seremo_jax.reports import report, validation
from seremo_jax.training import checkpoint, protocol, train
from seremo_jax.training.log import read_log
from tests.support import fake_bucket


@pytest.fixture(scope="module")
def bucket(tmp_path_factory):
    """s3://bucket, in memory; copies on disk go to a folder of their own."""
    with pytest.MonkeyPatch.context() as patch, fake_bucket.mounted() as files:
        patch.setenv("SEREMO_JAX_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield files


def _names(bucket, folder):
    root = f"/bucket/{folder}/"
    return {name.removeprefix(root) for name in bucket.find(root)}


class _CutOffError(Exception):
    pass


def _write_half(path):
    with artefacts.atomic_path(path) as temporary:
        temporary.write_text("half")
        raise _CutOffError


def test_files_are_put_whole_or_not_at_all(bucket):
    path = artefacts.place_of("s3://bucket/a") / "x.json"
    artefacts.write_json(path, {"a": 1})
    assert artefacts.read_json(path, "") == {"a": 1}
    with pytest.raises(_CutOffError):
        _write_half(path)
    assert artefacts.read_json(path, "") == {"a": 1}
    assert artefacts.size_of(path) == len(path.read_bytes())
    assert artefacts.size_of(path.parent / "y") is None
    with pytest.raises(ArtefactError, match=r"s3://bucket/a/y is missing; make it"):
        artefacts.read_json(path.parent / "y", "make it")


def test_folders_are_replaced_and_come_back(bucket, tmp_path):
    path = artefacts.place_of("s3://bucket/f")
    for names in (["old", "in/both"], ["new", "in/both"]):
        with artefacts.atomic_path(path) as temporary:
            for name in names:
                (temporary / name).parent.mkdir(parents=True, exist_ok=True)
                (temporary / name).write_text(name)
    assert _names(bucket, "f") == {"new", "in/both"}
    artefacts.download(path, tmp_path / "here")
    assert (tmp_path / "here" / "in" / "both").read_text() == "in/both"
    artefacts.remove_tree(path)
    artefacts.remove_tree(path)
    assert not path.exists()


def test_a_copy_on_disk_is_made_once_and_never_stale(bucket, monkeypatch):
    path = artefacts.place_of("s3://bucket/c/x")
    path.write_text("one")
    copy = copies.on_disk(path)
    assert copy.read_text() == "one"
    with monkeypatch.context() as patch:
        patch.setattr(copies, "download", None)
        assert copies.on_disk(path) == copy
    path.write_text("two")
    assert copies.on_disk(path).read_text() == "two"
    assert copies.on_disk(copy) == copy


def test_copies_are_private_and_whole(bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("SEREMO_JAX_CACHE", str(tmp_path / "new" / "cache"))
    path = artefacts.place_of("s3://bucket/p/x")
    path.write_text("one")
    copy = copies.on_disk(path)
    private = copy.parent.parent
    assert private.parent == tmp_path / "new" / "cache"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    copy.write_text("on")
    private.chmod(0o755)
    assert copies.on_disk(path).read_text() == "one", "a copy that was cut off is made again"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    copy.unlink()
    monkeypatch.setattr(copies, "download", lambda path, to: to.write_text("o"))
    with pytest.raises(ArtefactError, match="size of the copy of s3://bucket/p/x does not fit: 1 there, 3 asked for"):
        copies.on_disk(path)
    assert not copy.exists()
    private.rename(tmp_path / "theirs")
    private.symlink_to(tmp_path / "theirs")
    with pytest.raises(ArtefactError, match=r"is a link, a file, or another user's.*SEREMO_JAX_CACHE"):
        copies.on_disk(path)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("ftp://host/x", "give a folder, or a URL that begins with gs://, s3://, az://"),
        ("s3://nowhere/x", "no such bucket"),
        ("az://container/x", r"pip install 'seremo_jax\[az\]'"),
    ],
)
def test_what_cannot_be_reached_is_told_plainly(bucket, url, message):
    with pytest.raises(ArtefactError, match=message):
        artefacts.require_place(url)


def test_what_needs_a_disk_says_so(tmp_path):
    artefacts.require_disk(tmp_path, "a sweep")
    with pytest.raises(ArtefactError, match=r"a sweep needs a workdir on disk, or a mounted bucket, not s3://bucket/w"):
        artefacts.require_disk("s3://bucket/w", "a sweep")


def test_what_can_be_reached_passes(bucket, tmp_path):
    artefacts.require_place("s3://bucket/not/there/yet")
    artefacts.require_place(tmp_path / "not" / "there")


def _flip_in(bucket, folder):
    """Flips a bit of the largest file of a folder of the bucket; returns its name."""
    name = max(bucket.find(f"/bucket/{folder}"), key=lambda name: len(bucket.cat(name)))
    content = bytearray(bucket.cat(name))
    content[len(content) // 2] ^= 1
    bucket.pipe_file(name, bytes(content))
    return name


def test_checkpoints_and_parameters_in_a_bucket_are_checked(bucket):
    state = {"w": jax.numpy.ones((4, 3))}
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    with checkpoint.Checkpoints("s3://bucket/k/c", {}) as checkpoints:
        for epoch in (1, 2):
            checkpoints.save(checkpoint.Position(epoch), state)
    _flip_in(bucket, "k/c/20000000")
    with (
        checkpoint.Checkpoints("s3://bucket/k/c", {}) as checkpoints,
        pytest.warns(UserWarning, match=r"s3://bucket/k/c/20000000 is damaged and skipped: .*c/20000000/\S+"),
    ):
        assert checkpoints.restore(lambda _: like)[0] == (1, 0)
    files = checkpoint.save_params("s3://bucket/k/best", state)
    np.testing.assert_array_equal(checkpoint.load_params("s3://bucket/k/best", like, files)["w"], 1)
    _flip_in(bucket, "k/best")
    with pytest.raises(ArtefactError, match=r"SHA-256 of s3://bucket/k/best/\S+ .*launch\.train"):
        checkpoint.load_params("s3://bucket/k/best", like, files)


def _train(config, workdir):
    utterances, ratings, _ = tables.read_tables(workdir)
    members = ensemble.members(config, ensemble.chosen_layer(workdir))
    reader, mesh = store.Reader(f"{workdir}/store"), sharding.make_mesh(len(members))
    train.train(config, reader, (utterances, ratings), mesh, members=members, workdir=workdir, is_quiet=True)


def _run(config, workdir):
    ingest.run(config, workdir, is_quiet=True)
    validation.write_page(workdir)
    extract.run(config, workdir, is_quiet=True)
    _train(config, workdir)
    evaluate.run(config, workdir, is_quiet=True)
    report.run(workdir)


@pytest.mark.long
def test_a_whole_run_equals_one_on_disk(bucket, tmp_path, monkeypatch):
    config = from_config_dict(simulated.get_config("tiny"))
    extract_section = dataclasses.replace(config.extract, shard_utterances=40)
    config = dataclasses.replace(config, extract=extract_section)
    monkeypatch.chdir(tmp_path)  # A URL that is taken for a path on disk shows up as a folder here.
    monkeypatch.setattr(protocol, "commit", lambda: "the same")  # though a commit may come in between
    url, disk = "s3://bucket/w", tmp_path / "disk"
    _run(config, disk)
    with monkeypatch.context() as patch:
        # Cut off after the first checkpoint: the second try goes on from the copy in the bucket.
        def cut(*_):
            raise _CutOffError

        patch.setattr(train, "_summary", cut)
        with pytest.raises(_CutOffError):
            _run(config, url)
    assert artefacts.read_json(artefacts.place_of(url) / "train/checkpoints/whole.json", "") == [10**7]
    _run(config, url)
    assert [path.name for path in tmp_path.iterdir()] == ["disk"]

    # Orbax gives files random names, and the stamp lists them.
    varying = ("train/tensorboard/", "train/checkpoints/", "train/best/", "train/log.jsonl", "train/finished.json")
    actual = {name for name in _names(bucket, "w") if not name.startswith(varying)}
    wanted = {path.relative_to(disk).as_posix(): path for path in disk.rglob("*") if path.is_file()}
    wanted = {name: path for name, path in wanted.items() if not name.startswith(varying)}
    assert actual == set(wanted)
    differ = [name for name, path in wanted.items() if bucket.cat(f"/bucket/w/{name}") != path.read_bytes()]
    assert differ == []
    stamps = [artefacts.read_json(artefacts.place_of(f"{where}/train/finished.json"), "") for where in (url, disk)]
    # The log has times, so its hash in the stamp is another one, too.
    varying = {"files": None, "beside": None}
    assert stamps[0] | varying == stamps[1] | varying
    logs = [read_log(f"{where}/train/log.jsonl") for where in (url, disk)]
    assert [[line["train_loss"] for line in log] for log in logs] == [[line["train_loss"] for line in logs[1]]] * 2
    assert any(name.startswith("train/tensorboard/events") for name in _names(bucket, "w"))
    heads = [model_folder.read(where, ("best",)).heads for where in (url, disk)]
    for ours, other in zip(*map(jax.tree.leaves, heads), strict=True):
        np.testing.assert_array_equal(ours, other)
