"""artefacts: a file is whole or absent, whatever happens to the process that writes it."""

import dataclasses
import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import artefacts
from seremo_jax.core.artefacts import ArtefactError, atomic_path
from tests.support.house import ROOT


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_success_replaces_a_file_and_leaves_nothing_else(tmp_path: Path):
    path = tmp_path / "new" / "table.csv"
    for text in ("first", "second"):
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".csv"
            temporary.write_text(text)
            assert not path.exists() or path.read_text() != text
        assert path.read_text() == text
    assert _names(path.parent) == ["table.csv"]


def test_success_replaces_a_folder(tmp_path: Path):
    path = tmp_path / "shard"
    for name in ("a", "b"):
        with atomic_path(path) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
    assert _names(path) == ["b"]
    assert _names(tmp_path) == ["shard"]


def test_a_folder_that_cannot_be_replaced_stays_whole(tmp_path: Path, monkeypatch):
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "old").touch()

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(artefacts.os, "replace", refuse)

    def write():
        with artefacts.atomic_path(tmp_path / "report") as temporary:
            temporary.mkdir()

    with pytest.raises(OSError, match=os.strerror(errno.EIO)):
        write()
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*")] == ["report", "report/old"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_an_exception_leaves_what_was_there(tmp_path: Path, error: type[BaseException]):
    path = tmp_path / "table.csv"

    def write(text: str) -> None:
        with atomic_path(path) as temporary:
            temporary.write_text(text)
            raise error

    with pytest.raises(error):
        write("half")
    assert _names(tmp_path) == []
    path.write_text("whole")
    with pytest.raises(error):
        write("half")
    assert path.read_text() == "whole"
    assert _names(tmp_path) == ["table.csv"]


def test_a_block_that_writes_nothing_is_an_error_and_changes_nothing(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("whole")
    with pytest.raises(FileNotFoundError), atomic_path(path):
        pass
    assert path.read_text() == "whole"
    assert _names(tmp_path) == ["table.csv"]


def test_a_kill_in_the_middle_leaves_what_was_there(tmp_path: Path):
    path = tmp_path / "table.csv"
    path.write_text("whole")
    code = (
        "import sys, time\n"
        "from seremo_jax.core.artefacts import atomic_path\n"
        "with atomic_path(sys.argv[1]) as temporary:\n"
        "    with temporary.open('w') as file:\n"
        "        file.write('half')\n"
        "        file.flush()\n"
        "        print('writing', flush=True)\n"
        "        time.sleep(600)\n"
    )
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdout.readline() == b"writing\n"
        process.send_signal(signal.SIGKILL)
    assert path.read_text() == "whole"
    assert len(_names(tmp_path)) == 2, "the leftover is there and hidden"
    assert [name for name in _names(tmp_path) if not name.startswith(".")] == ["table.csv"]

    assert artefacts.remove_leftovers(tmp_path) == 1
    assert _names(tmp_path) == ["table.csv"]


def test_leftovers_are_folders_of_our_own_naming(tmp_path: Path):
    (tmp_path / ".hidden").mkdir()
    (tmp_path / "plain.tmp").mkdir()
    (tmp_path / ".file.tmp").write_text("someone else's")
    (tmp_path / ".store.abc.tmp").mkdir()
    (tmp_path / ".store.abc.tmp" / "half").write_text("x")
    assert artefacts.remove_leftovers(tmp_path) == 1
    assert _names(tmp_path) == [".file.tmp", ".hidden", "plain.tmp"]
    assert artefacts.remove_leftovers(tmp_path / "absent") == 0


def test_json_keeps_values_and_refuses_nan(tmp_path: Path):
    @dataclasses.dataclass
    class Record:
        name: str
        values: tuple[float, ...]

    value = {"b": np.float32(0.5), "a": np.arange(3), "path": Path("x/y"), "record": Record("é", (1.0, 2.0))}
    artefacts.write_json(tmp_path / "a.json", value)
    expected = {"a": [0, 1, 2], "b": 0.5, "path": "x/y", "record": {"name": "é", "values": [1.0, 2.0]}}
    assert artefacts.read_json(tmp_path / "a.json", "") == expected
    assert list(json.loads((tmp_path / "a.json").read_text())) == ["a", "b", "content_fingerprint", "path", "record"]
    with pytest.raises(ValueError, match="not JSON compliant"):
        artefacts.write_json(tmp_path / "b.json", {"uar": float("nan")})
    with pytest.raises(TypeError, match="no JSON form for set"):
        artefacts.to_json({1, 2})
    assert _names(tmp_path) == ["a.json"]


def test_reading_says_which_file_and_what_to_do(tmp_path: Path):
    path = tmp_path / "manifest.json"
    with pytest.raises(ArtefactError, match=r"manifest\.json is missing; run extract"):
        artefacts.read_json(path, "run extract")
    for damaged in (b'{"a": ', b"", b"\xff\xfe"):
        path.write_bytes(damaged)
        with pytest.raises(ArtefactError, match=r"manifest\.json is damaged \(.*\); run extract"):
            artefacts.read_json(path, "run extract")


def test_hashes(tmp_path: Path):
    path = tmp_path / "shard"
    path.write_bytes(b"frames" * 100_000)
    assert artefacts.sha256_of_file(path) == hashlib.sha256(b"frames" * 100_000).hexdigest()
    assert artefacts.fingerprint_of({"a": 1, "b": 2}) == artefacts.fingerprint_of({"b": 2, "a": 1})
    assert artefacts.fingerprint_of({"a": 1}) != artefacts.fingerprint_of({"a": 2})
    assert artefacts.fingerprint_of((1, 2)) == artefacts.fingerprint_of([1, 2]), "tuples become lists in artefacts"


def test_a_mismatch_names_both_sides():
    artefacts.require_same("store", {"layers": [1]}, {"layers": [1]}, "never shown")
    with pytest.raises(ArtefactError) as error:
        artefacts.require_same(
            "store/manifest.json",
            {"dtype": "float16", "layers": [1], "old": 0},
            {"dtype": "float16", "layers": [2]},
            "Redo.",
        )
    message = str(error.value)
    assert message == (
        "store/manifest.json does not fit: layers: [1] there, [2] asked for; old: 0 there, None asked for. Redo."
    )
    with pytest.raises(ArtefactError, match=r"^release does not fit: '1' there, '2' asked for\. Redo\.$"):
        artefacts.require_same("release", "1", "2", "Redo.")


VALUES = ({"chosen": 7, "score": [0.25, 1e-05, None], "names": {"é": True}}, [{"seed": 3}, {"seed": 4}], "text", {})


@pytest.mark.parametrize("value", VALUES)
def test_no_flipped_bit_of_a_json_file_changes_what_is_read(tmp_path, value):
    path = tmp_path / "a.json"
    artefacts.write_json(path, value)
    whole, refused = path.read_bytes(), []
    for place in range(len(whole)):
        for bit in range(8):
            path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << bit]) + whole[place + 1 :])
            try:
                assert artefacts.read_json(path, "write it again") == value
            except ArtefactError as error:
                refused.append(str(error))
    assert len(refused) > 4 * len(whole)
    assert all(str(path) in message and "write it again" in message for message in refused)


def test_what_has_no_fingerprint_is_not_checked_and_what_has_is_written_anew(tmp_path):
    path = tmp_path / "a.json"
    path.write_text('{"chosen": 7}')  # as earlier versions wrote it
    assert artefacts.read_json(path, "") == {"chosen": 7}
    artefacts.write_json(path, artefacts.sealed({"chosen": 7}) | {"chosen": 8})
    assert artefacts.read_json(path, "") == {"chosen": 8}
