"""Stands in for s3fs: objects in memory under s3://bucket, no folders but the prefixes of their names."""

import contextlib

import fsspec
from etils.epath import backend
from fsspec.implementations.memory import MemoryFileSystem
from fsspec.registry import _registry


class Bucket(MemoryFileSystem):
    """fsspec's file system in memory, under the scheme of S3."""

    protocol = ("s3",)
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol("memory://" + str(path).removeprefix("s3://"))


@contextlib.contextmanager
def mounted():
    """s3://bucket is there, and empty, inside the block."""
    fsspec.register_implementation("s3", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = ["", "/bucket"]
    try:
        yield Bucket()
    finally:
        backend.fsspec_backend._get_filesystem.cache_clear()
        _registry.pop("s3")
