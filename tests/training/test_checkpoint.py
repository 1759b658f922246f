"""Checkpoints: restore onto another mesh, refusal of another run, damaged ones skipped."""

import shutil
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest

from seremo_jax.core import sharding
from seremo_jax.core.artefacts import ArtefactError, read_json
from seremo_jax.training import checkpoint
from seremo_jax.training.checkpoint import Position

pytestmark = pytest.mark.stack

RUN = {"optim.learning_rate": 0.1, "members": [{"seed": 0}]}


def _state(value, num_devices=2):
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]).reshape(num_devices, 1), ("member", "data"))
    tree = {"w": np.full((4, 3), value, np.float32), "n": {"step": np.arange(4, dtype=np.int32)}}
    return jax.device_put(tree, sharding.by_member(mesh))


def _save(folder, *epochs, keep=2):
    checkpoints = checkpoint.Checkpoints(folder, RUN, keep=keep)
    for epoch in epochs:
        checkpoints.save(Position(epoch), _state(epoch))
    checkpoints.close()


def _restore(folder, run=RUN, num_devices=4):
    checkpoints = checkpoint.Checkpoints(folder, run)
    try:
        like = _state(0, num_devices)
        return checkpoints.restore(
            lambda num: jax.tree.map(
                lambda x: jax.ShapeDtypeStruct((num, *x.shape[1:]), x.dtype, sharding=x.sharding), like
            )
        )
    finally:
        checkpoints.close()


def test_newest_comes_back_on_another_mesh(tmp_path):
    _save(tmp_path / "c", 1, 2, 3)
    position, state = _restore(tmp_path / "c")
    assert position == (3, 0)
    np.testing.assert_array_equal(state["w"], 3)
    np.testing.assert_array_equal(state["n"]["step"], np.arange(4))
    assert len(state["w"].sharding.device_set) == 4
    assert sorted(int(path.name) for path in (tmp_path / "c").iterdir() if path.name.isdigit()) == [
        Position(2).number,
        Position(3).number,
    ]


def test_a_position_inside_an_epoch_is_between_epochs(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", RUN, keep=5)
    for position in (Position(1), Position(1, 7), Position(2)):
        checkpoints.save(position, _state(position.batch))
    checkpoints.close()
    shutil.rmtree(tmp_path / "c" / str(Position(2).number))
    position, state = _restore(tmp_path / "c")
    assert position == (1, 7)
    np.testing.assert_array_equal(state["w"], 7)


def test_nothing_to_restore(tmp_path):
    assert _restore(tmp_path / "c") is None


def test_another_run_is_refused_naming_both_sides(tmp_path):
    _save(tmp_path / "c", 1)
    with pytest.raises(ArtefactError, match=r"optim.learning_rate: 0.1 there, 0.2 asked for"):
        _restore(tmp_path / "c", RUN | {"optim.learning_rate": 0.2})


@pytest.mark.parametrize("damage", ["state", "meta"])
def test_damaged_checkpoint_is_skipped_for_the_one_before(tmp_path, damage):
    _save(tmp_path / "c", 1, 2)
    for path in (tmp_path / "c" / str(Position(2).number) / damage).rglob("*"):
        if path.is_file():
            path.write_bytes(b"")
    with pytest.warns(UserWarning, match=r"damaged and skipped"):
        position, state = _restore(tmp_path / "c")
    assert position == (1, 0)
    np.testing.assert_array_equal(state["w"], 1)


def _files(folder):
    return [path for path in sorted(folder.rglob("*")) if path.is_file()]


def _flip(path, seed):
    content, rng = bytearray(path.read_bytes()), np.random.default_rng(seed)
    content[rng.integers(len(content))] ^= 1 << rng.integers(8)
    path.write_bytes(content)


def test_a_checkpoint_with_a_flipped_bit_is_skipped_for_the_one_before(tmp_path):
    _save(tmp_path / "c", 1, 2)
    for seed, path in enumerate(_files(tmp_path / "c" / str(Position(2).number))):
        whole = path.read_bytes()
        if not whole:
            continue
        _flip(path, seed)
        with pytest.warns(UserWarning, match=r"20000000 is damaged and skipped: .*20000000/\S+"):
            position, state = _restore(tmp_path / "c")
        assert position == (1, 0)
        np.testing.assert_array_equal(state["w"], 1)
        path.write_bytes(whole)
    assert _restore(tmp_path / "c")[0] == (2, 0)


def test_every_checkpoint_that_is_kept_has_hashes_of_all_its_files(tmp_path):
    checkpoints = checkpoint.Checkpoints(tmp_path / "c", RUN, keep=2)
    for epoch in (1, 2, 3):
        checkpoints.save(Position(epoch), _state(epoch))
    checkpoints.wait()  # as a run does that is asked to stop
    for epoch in (2, 3):
        folder = tmp_path / "c" / str(Position(epoch).number)
        names = {path.relative_to(folder).as_posix() for path in _files(folder)}
        assert set(read_json(folder / "hashes.json", "")) == names - {"hashes.json"}
    checkpoints.close()


def test_a_checkpoint_of_an_earlier_version_has_no_hashes_and_is_read(tmp_path):
    _save(tmp_path / "c", 1)
    (tmp_path / "c" / str(Position(1).number) / "hashes.json").unlink()
    assert _restore(tmp_path / "c")[0] == (1, 0)


def test_parameters_with_a_flipped_bit_are_refused_naming_the_file(tmp_path):
    files = checkpoint.save_params(tmp_path / "best", _state(5))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0, 1))
    for seed, path in enumerate(_files(tmp_path / "best")):
        whole = path.read_bytes()
        if not whole:
            continue
        _flip(path, seed)
        with pytest.raises(ArtefactError, match=rf"SHA-256 of {path} .*delete finished\.json.*launch\.train"):
            checkpoint.load_params(tmp_path / "best", like, files)
        path.write_bytes(whole)
    np.testing.assert_array_equal(checkpoint.load_params(tmp_path / "best", like, files)["w"], 5)


def test_best_parameters_round_trip(tmp_path):
    checkpoint.save_params(tmp_path / "best", _state(5))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0, 1))
    np.testing.assert_array_equal(checkpoint.load_params(tmp_path / "best", like)["w"], 5)
    shutil.rmtree(tmp_path / "best")
    with pytest.raises(ArtefactError, match=r"launch.train"):
        checkpoint.load_params(tmp_path / "best", like)


class _Before(NamedTuple):
    w: Any
    n: Any


class _Now(NamedTuple):
    w: Any
    n: Any
    later: Any = None


def test_a_state_from_before_a_part_that_nothing_needs_comes_back(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "_held", lambda state: state)
        with checkpoint.Checkpoints(tmp_path / "c", RUN) as checkpoints:
            checkpoints.save(Position(1), _Before(**_state(5)))
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), _state(0))
    with checkpoint.Checkpoints(tmp_path / "c", RUN) as checkpoints:
        _, state = checkpoints.restore(lambda num: _Now(**like))
    assert (type(state), state.later) == (_Now, None)
    np.testing.assert_array_equal(state.w, 5)
