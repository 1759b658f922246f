"""Folders are walked whole: linked ones once, circles end, and what cannot be read is listed."""

import os
import socket

import pytest

from seremo_jax.core import folders


def names(root, contents):
    return [path.relative_to(root).as_posix() for path in contents.files]


@pytest.fixture
def tree(tmp_path):
    root = tmp_path / "root"
    (root / "b" / "c").mkdir(parents=True)
    (tmp_path / "elsewhere" / "d").mkdir(parents=True)
    for path in (
        root / "1.wav",
        root / "b" / "2.wav",
        root / "b" / "c" / "3.wav",
        tmp_path / "elsewhere" / "d" / "4.wav",
    ):
        path.write_bytes(b"x")
    return root


def test_linked_folders_are_walked_once_and_circles_end(tree):
    (tree / "far").symlink_to(tree.parent / "elsewhere")
    (tree / "again").symlink_to(tree.parent / "elsewhere" / "d")
    (tree / "a").symlink_to(tree / "b")  # b keeps its own name, though a comes first
    (tree / "b" / "c" / "up").symlink_to(tree)
    (tree / "itself").symlink_to(tree / "itself")
    (tree / "5.wav").symlink_to(tree / "1.wav")
    contents = folders.walk(tree)
    assert names(tree, contents) == ["1.wav", "5.wav", "again/4.wav", "b/2.wav", "b/c/3.wav"]
    [problem] = contents.unreadable
    assert (problem.path.name, problem.reason) == ("itself", "unreadable")


def test_dangling_links_pipes_sockets_and_devices_are_listed(tree, monkeypatch):
    (tree / "gone").symlink_to(tree / "nowhere")
    os.mkfifo(tree / "pipe.wav")
    (tree / "null.wav").symlink_to("/dev/null")
    monkeypatch.chdir(tree)
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.wav")
        problems = folders.walk(tree).unreadable
    assert [(problem.path.name, problem.reason) for problem in problems] == [
        ("gone", "missing"), ("null.wav", "unreadable"), ("pipe.wav", "unreadable"), ("socket.wav", "unreadable"),
    ]  # fmt: skip
    assert "not opened" in problems[1].detail


def test_a_folder_that_may_not_be_read_is_listed(tree, monkeypatch):
    scandir = os.scandir

    def refusing(path):
        if os.fspath(path).endswith("/b"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    contents = folders.walk(tree)
    assert names(tree, contents) == ["1.wav"]
    assert contents.unreadable == [(tree / "b", "unreadable", "a folder: Permission denied")]


def test_names_that_are_no_utf8_become_text():
    assert folders.printable("gr\u00fc\u00dfe.wav") == "gr\u00fc\u00dfe.wav"
    assert folders.printable(os.fsdecode(b"gr\xfc\xdfe.wav")) == r"gr\xfc\xdfe.wav"
