"""Compiled programs on the disk: damaged ones go, whole ones stay, and a launcher compiles the others again."""

import pytest

from seremo_jax.core import compiled_programs
from tests.support import launchers


@pytest.fixture
def folder(tmp_path):
    """Two programs that were listed."""
    for name in ("a-cache", "b-cache"):
        (tmp_path / name).write_bytes(name.encode())
    assert compiled_programs.remove_damaged(tmp_path) == []
    return tmp_path


def test_a_changed_program_is_removed_and_its_successor_is_listed(folder):
    (folder / "a-cache").write_bytes(b"A-cache")
    assert compiled_programs.remove_damaged(folder) == ["a-cache"]
    assert [path.name for path in folder.glob("*-cache")] == ["b-cache"]
    (folder / "a-cache").write_bytes(b"compiled again")
    assert compiled_programs.remove_damaged(folder) == []
    (folder / "a-cache").write_bytes(b"Compiled again")
    assert compiled_programs.remove_damaged(folder) == ["a-cache"]


@pytest.mark.parametrize("text", ["", "[]", '{"a-cache": "0"', "{\x00"])
def test_nothing_is_believed_where_the_list_is_damaged(folder, text):
    (folder / compiled_programs.LIST_FILE).write_text(text)
    assert compiled_programs.remove_damaged(folder) == ["a-cache", "b-cache"]
    assert list(folder.glob("*-cache")) == []


def test_a_folder_that_is_not_there_stays_so(tmp_path):
    assert compiled_programs.remove_damaged(tmp_path / "no") == []
    assert not (tmp_path / "no").exists()


def test_a_launcher_names_what_it_compiles_again(tmp_path, monkeypatch, caplog):
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    workdir = tmp_path / "w"
    compiled = workdir / "compiled"
    compiled.mkdir(parents=True)
    (compiled / "jit_step-cache").write_bytes(b"whole")
    compiled_programs.remove_damaged(compiled)
    (compiled / "jit_step-cache").write_bytes(b"wHole")
    _, output = launchers.run("evaluate", "--config=configs/simulated.py:tiny", f"--workdir={workdir}")
    assert f"damaged in {compiled}: jit_step-cache" in output + caplog.text
    assert not (compiled / "jit_step-cache").exists()
