"""The hidden-state store: round trip, restart, refusal of what is damaged or foreign, full disk."""

import dataclasses
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import hashed
from seremo_jax.core.artefacts import ArtefactError, read_json, write_json
from seremo_jax.features import store
from seremo_jax.features.manifest import Settings

pytestmark = pytest.mark.stack

SETTINGS = Settings(
    tables_fingerprint="0123456789abcdef",
    backbone="toy",
    backbone_revision="1",
    final_norm=False,
    layers=(0, 3),
    num_features=5,
    frame_rate_hz=50.0,
    dtype="float16",
    condition="clean",
    shard_utterances=4,
    config={"backbone.dtype": "float32"},
)
UTTERANCES = [f"u{i}" for i in range(10)]


def frames_of(utterance: str) -> np.ndarray:
    rng = np.random.default_rng(int(utterance[1:]))
    return rng.standard_normal((2, int(rng.integers(1, 9)), 5)).astype(np.float32)


def write_shard(writer: store.Writer, shard: int) -> None:
    with writer.shard(shard) as writing:
        for row in reversed(writer.shards[shard]):  # the order inside a shard is free
            writing.add(UTTERANCES[row], frames_of(UTTERANCES[row]))
        writing.sums = {"total": np.float64(shard)}


def write(path: Path, settings: Settings = SETTINGS) -> store.Reader:
    writer = store.Writer(path, UTTERANCES, settings)
    for shard in range(len(writer.shards)):
        if not writer.is_finished(shard):
            write_shard(writer, shard)
    total = sum(float(writer.sums(shard)["total"]) for shard in range(len(writer.shards)))
    writer.finalise(norm={"total": np.array(total)})
    return store.Reader(path)


def contents(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_round_trip_in_any_order(tmp_path, dtype):
    reader = write(tmp_path / "store", dataclasses.replace(SETTINGS, dtype=dtype))
    assert reader.utterances == UTTERANCES
    assert reader.layers == (0, 3)
    assert len(reader) == 10
    np.testing.assert_array_equal(reader.num_frames, [frames_of(u).shape[1] for u in UTTERANCES])
    rows = [7, 0, 9, 7, 3]
    for position, layer in enumerate(reader.layers):
        for row, frames in zip(rows, reader.read(layer, rows), strict=True):
            assert frames.dtype == dtype
            np.testing.assert_array_equal(frames, frames_of(UTTERANCES[row])[position].astype(dtype))
    assert reader.read(3, []) == []
    assert reader.arrays("norm")["total"] == 3
    assert reader.manifest["num_frames"] == reader.num_frames.sum()
    reader.verify()
    assert sorted(contents(tmp_path / "store")) == [
        "index.parquet",
        *(f"layer_{layer:02d}/shard-{i:05d}-of-00003.array_record" for layer in (0, 3) for i in range(3)),
        "manifest.json",
        "norm.npz",
    ]


def test_threads_read_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "_MAX_OPEN_SHARDS", 2)  # so that shards are opened and dropped all the time
    reader = pickle.loads(pickle.dumps(write(tmp_path / "store")))

    def read(seed: int) -> bool:
        rows = np.random.default_rng(seed).permutation(10)
        expected = [frames_of(UTTERANCES[row])[1].astype(np.float16) for row in rows]
        return all(np.array_equal(a, b) for _ in range(20) for a, b in zip(reader.read(3, rows), expected, strict=True))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(read, range(16)))


def test_a_killed_writer_continues_to_the_same_bytes(tmp_path):
    whole = write(tmp_path / "whole")
    script = f"""
        import os, signal, sys
        sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[2])]!r}
        import test_store as t
        from seremo_jax.features import store
        writer = store.Writer({str(tmp_path / "cut")!r}, t.UTTERANCES, t.SETTINGS)
        t.write_shard(writer, 0)
        with writer.shard(1) as writing:
            writing.add("u4", t.frames_of("u4"))
            os.kill(os.getpid(), signal.SIGKILL)
    """
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    with pytest.raises(ArtefactError, match="extraction did not finish"):
        store.Reader(tmp_path / "cut")
    assert list((tmp_path / "cut").rglob("*.tmp"))
    writer = store.Writer(tmp_path / "cut", UTTERANCES, SETTINGS)
    assert [writer.is_finished(shard) for shard in range(3)] == [True, False, False]
    write(tmp_path / "cut")
    assert contents(tmp_path / "cut") == contents(whole.path)
    assert not list((tmp_path / "cut").rglob("*.tmp"))


def test_a_shard_damaged_before_the_end_is_written_again(tmp_path):
    writer = store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    for shard in range(3):
        write_shard(writer, shard)
    path = tmp_path / "store" / "layer_00" / "shard-00001-of-00003.array_record"
    os.truncate(path, path.stat().st_size - 1)
    flip_a_byte(tmp_path / "store" / "parts" / "shard-00000.npz")
    again = store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    assert [again.is_finished(shard) for shard in range(3)] == [False, False, True]
    other = tmp_path / "store" / "layer_03" / "shard-00002-of-00003.array_record"
    whole = other.read_bytes()
    flip_a_byte(other)
    assert not again.is_finished(2)
    other.write_bytes(whole)
    assert again.is_finished(2)
    flip_a_byte(other)
    write_shard(again, 0)
    write_shard(again, 1)
    with pytest.raises(ArtefactError, match=r"SHA-256 of .*layer_03/shard-00002.* does not fit"):
        again.finalise()


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_other_settings_are_refused_by_naming_both_sides(tmp_path):
    other = dataclasses.replace(SETTINGS, layers=(1,), backbone_revision="2")
    store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    message = r"backbone_revision: '1' there, '2' asked for; layers: \[0, 3\] there, \[1\] asked for. Use another"
    with pytest.raises(ArtefactError, match=message):
        store.Writer(tmp_path / "store", UTTERANCES, other)
    with pytest.raises(ArtefactError, match="sums_of"):
        store.Writer(tmp_path / "store", UTTERANCES, SETTINGS, {"targets": "votes"})
    reader = write(tmp_path / "store")
    with pytest.raises(ValueError, match="is finished"):
        store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    reader.require(**SETTINGS.to_dict())
    with pytest.raises(ArtefactError, match=message):
        reader.require(**other.to_dict())
    reader.require(tables_fingerprint="0123456789abcdef")
    with pytest.raises(ArtefactError, match="tables_fingerprint: '0123456789abcdef' there, 'fedc' asked for"):
        reader.require(tables_fingerprint="fedc")
    with pytest.raises(ArtefactError, match=r"layer 2 is not in the store .*, which has 0, 3: set extract.layers"):
        reader.read(2, [0])


def test_damage_is_refused(tmp_path):
    path = write(tmp_path / "store").path
    shard = path / "layer_03" / "shard-00001-of-00003.array_record"
    good, size = shard.read_bytes(), shard.stat().st_size
    shard.write_bytes(good[:-10])
    with pytest.raises(ArtefactError, match=rf"shard-00001.* {size - 10} there, {size} asked for.*truncated.*delete"):
        store.Reader(path)
    shard.unlink()
    with pytest.raises(ArtefactError, match=r"shard-00001.* is missing"):
        store.Reader(path)
    shard.write_bytes(bytes(size))  # of the right size
    with pytest.raises(ArtefactError, match=r"shard-00001.*damaged"):
        store.Reader(path).read(3, [4])
    shard.write_bytes(good)
    flip_a_byte(shard)
    with pytest.raises(ArtefactError, match=r"SHA-256 of .*shard-00001"):
        store.Reader(path).verify()
    # Of the same size and readable: only the checksums of the records know.
    shard.write_bytes((path / "layer_00" / shard.name).read_bytes())
    reader = store.Reader(path)
    with pytest.raises(ArtefactError, match=r"CRC-32 of the frames of 'u4' in .*layer_03.shard-00001.*launch.extract"):
        reader.read(3, [4])
    reader.read(0, [4])
    manifest = path / "manifest.json"
    write_json(manifest, read_json(manifest, "") | {"format_version": 99})
    with pytest.raises(ArtefactError, match="99 there, 1 asked for"):
        store.Reader(path)
    manifest.write_text("{")
    with pytest.raises(ArtefactError, match=r"manifest.json is damaged"):
        store.Reader(path)


def test_index_and_records_must_agree(tmp_path):
    reader = write(tmp_path / "store")
    reader.num_frames[5] += 1
    with pytest.raises(ArtefactError, match=r"record of 'u5' has \d+ bytes, the index says \d+ frames of 5 features"):
        reader.read(0, [5])


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, a disk that is always full (Linux)")
def test_full_disk_leaves_nothing_half_written(tmp_path, monkeypatch):
    writer = store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    write_shard(writer, 0)
    before = contents(tmp_path / "store")
    real = store.ArrayRecordWriter
    monkeypatch.setattr(store, "ArrayRecordWriter", lambda path, options: real("/dev/full", options))
    with pytest.raises(ArtefactError, match=r"no space left on the disk while writing .*the same command continues"):
        write_shard(writer, 1)
    assert contents(tmp_path / "store") == before
    assert not list((tmp_path / "store").rglob("*.tmp"))
    monkeypatch.undo()
    write(tmp_path / "store").verify()


def test_what_is_added_is_checked(tmp_path):
    writer = store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    with pytest.raises(ValueError, match="shard 0 needs each of its 4"), writer.shard(0) as writing:
        writing.add("u9", frames_of("u9"))
    with pytest.raises(ValueError, match="have shape"), writer.shard(0) as writing:
        writing.add("u0", frames_of("u0")[:1])
    with pytest.raises(ArtefactError, match=r"shard-00000.json is missing; extraction did not finish"):
        writer.finalise()
    assert not (tmp_path / "store" / "manifest.json").exists()


@pytest.mark.parametrize("name", ["index.parquet", "norm.npz"])
def test_a_flipped_bit_in_the_small_files_is_noticed_when_the_store_is_opened(tmp_path, name):
    writer = store.Writer(tmp_path / "store", UTTERANCES, SETTINGS)
    for shard in range(3):
        write_shard(writer, shard)
    writer.finalise(norm={"mean": np.arange(5.0)})
    path = tmp_path / "store" / name
    whole = path.read_bytes()
    for place in np.random.default_rng(0).choice(len(whole), 40, replace=False):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        with pytest.raises(ArtefactError, match=rf"SHA-256 of \S+{name} .*is damaged.*launch\.extract"):
            store.Reader(tmp_path / "store")


def test_a_store_whose_index_was_hashed_after_the_damage_names_the_index(tmp_path):
    write(tmp_path / "store")
    index, manifest = tmp_path / "store" / "index.parquet", tmp_path / "store" / "manifest.json"
    content = bytearray(index.read_bytes())
    content[8:40] = bytes(32)
    index.write_bytes(content)
    stated = read_json(manifest, "")
    stated["files"]["index.parquet"] = hashed.describe_file(index)
    write_json(manifest, stated)
    with pytest.raises(ArtefactError, match=r"index\.parquet is damaged"):
        store.Reader(tmp_path / "store")
