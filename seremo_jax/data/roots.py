"""Where recordings lie: the folders of the corpora of an experiment, which are no settings, since folders move."""

import os
from collections.abc import Sequence
from pathlib import Path, PurePath

import pyarrow as pa
import pyarrow.compute as pc

from seremo_jax.core import further_corpora
from seremo_jax.core.artefacts import ArtefactError, place_of
from seremo_jax.core.config import Config
from seremo_jax.core.schema import CorpusInfo
from seremo_jax.data import audio

SIMULATED = "simulated"
"""Corpus whose recordings are made in the workdir."""


class IngestError(Exception):
    """A corpus cannot be ingested. The message says what to do."""


def require_root(
    config: Config, workdir: str | os.PathLike, utterances: pa.Table, corpora: Sequence[CorpusInfo]
) -> None:
    """Refuses a folder of recordings that is there and holds none of those that the tables are about.

    Where a corpus lies is no setting, as folders move: two corpora of one parser differ in nothing else.

    Args:
      config: The experiment; a folder that is not there is refused by whoever hears it.
      workdir: Its folder.
      utterances: Utterance table of the workdir.
      corpora: What it says of its corpora, in the order of the config.

    Raises:
      ArtefactError: Of the first, the middle and the last utterance no recording is there as ingest heard it.
    """
    for alone, info in zip((config, *further_corpora.configs(config)), corpora, strict=True):
        own = utterances if len(corpora) == 1 else utterances.filter(pc.equal(utterances["corpus"], info.corpus))
        _require_root(alone, workdir, own, info)


def _require_root(config: Config, workdir: str | os.PathLike, utterances: pa.Table, info: CorpusInfo) -> None:
    root = Path(config.corpus.root).expanduser()
    if config.corpus.name == SIMULATED or not config.corpus.root or not root.is_dir():
        return
    probes = sorted({0, utterances.num_rows // 2, utterances.num_rows - 1})
    paths, hashes = (utterances[name].take(probes).to_pylist() for name in ("audio", "audio_sha256"))
    if not any(_is_there(root / path, sha256) for path, sha256 in zip(paths, hashes, strict=True)):
        raise ArtefactError(
            f"{workdir} holds the corpus {info.corpus} ({info.release}), and --config.corpus.root={root} holds other "
            f"recordings than its tables name ({paths[0]!r} first): give the folder that they were made from, or "
            f"another --workdir. A model that was trained here is scored on the corpus in {root} by python -m "
            f"launch.evaluate --model={workdir} with this --config and a --workdir of its own"
        )


def _is_there(path: Path, sha256: str) -> bool:
    """Whether a recording is the one that ingest heard."""
    if not sha256:
        return path.is_file()
    return audio.check(path, 0.0, float("inf")).sha256 == sha256


def from_roots(
    config: Config, workdir: str | os.PathLike, utterances: pa.Table, corpora: Sequence[CorpusInfo]
) -> pa.Table:
    """The utterances with the folders of further corpora before the paths in `audio`, which are relative in the file.

    Where no folder is given, the paths stay as they are; `audio_root` refuses that once audio is to be heard.

    Args:
      config: The experiment.
      workdir: Its folder.
      utterances: Utterance table of the workdir.
      corpora: What it says of its corpora, in the order of the config.
    """
    if len(corpora) == 1:
        return utterances
    roots = {}
    for info, alone in zip(corpora[1:], further_corpora.configs(config), strict=True):
        if alone.corpus.root or alone.corpus.name == SIMULATED:
            roots[info.corpus] = audio_root(alone, workdir, is_there=False)
    pairs = zip(utterances["corpus"].to_pylist(), utterances["audio"].to_pylist(), strict=True)
    paths = [os.fspath(roots[corpus] / path) if path and corpus in roots else path for corpus, path in pairs]
    position = utterances.schema.get_field_index("audio")
    return utterances.set_column(position, utterances.schema.field(position), pa.array(paths, pa.string()))


def audio_root(config: Config, workdir: str | os.PathLike, is_there: bool = True) -> PurePath:
    """Folder that the column `audio` is relative to; paths of further corpora are whole ones.

    Args:
      config: The experiment.
      workdir: Its folder.
      is_there: Whether the folders must be there.

    Raises:
      IngestError: `corpus.root`, or a folder of `corpus.also_roots`, is not set or is no folder.
    """
    for alone in further_corpora.configs(config):
        audio_root(alone, workdir, is_there)
    if config.corpus.name == SIMULATED:
        return place_of(workdir) / "audio"
    if not config.corpus.root:
        raise IngestError(
            f"corpus {config.corpus.name} is not part of this project: say where it lies, --config.corpus.root=FOLDER "
            "(for those of corpus.also: --config.corpus.also_roots)"
        )
    root = Path(config.corpus.root).expanduser()
    if is_there and not root.is_dir():
        raise IngestError(f"--config.corpus.root={config.corpus.root} is no folder")
    return root
