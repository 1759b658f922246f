"""What is refused before a model is scored on another corpus: scores that would be lost, or would say nothing."""

from pathlib import PurePath
from typing import Any

import numpy as np
import pyarrow as pa

from seremo_jax.core import vocab
from seremo_jax.core.artefacts import ArtefactError, in_bucket
from seremo_jax.data import tables
from seremo_jax.evaluation.records import FILE
from seremo_jax.predict import cross_settings
from seremo_jax.training import protocol


def require_free(workdir: PurePath, model: PurePath) -> None:
    """Refuses a workdir in which another evaluation would be overwritten, the model's own one above all."""
    if (workdir / "train").exists():
        what = "the workdir of the model itself" if workdir in (model, model.parent) else "a workdir with a training"
        raise ArtefactError(
            f"--workdir={workdir} is {what}, whose own scores would be overwritten: name another folder for the scores "
            f"of {model} on this corpus"
        )


def require_scores_of(workdir: PurePath, about: dict[str, Any]) -> None:
    """Refuses a workdir that has the scores of another model, or of other members of this one.

    Args:
      workdir: Folder of the scores.
      about: The model's record.

    Raises:
      ArtefactError: They would be overwritten.
    """
    there = protocol.card_in(workdir / FILE)
    # What has no card, or none of a model from elsewhere, is damaged or told of by another check.
    if there is None or "trained_on" not in there:
        return
    own = {"checkpoint": about["checkpoint"], "members": [member["name"] for member in about["members"]]}
    if {name: there.get(name) for name in own} != own:
        members = ", ".join([*there["members"][:3], *["..."] * (len(there["members"]) > 3)])
        raise ArtefactError(
            f"{workdir / FILE} has the scores of another model, or of other members: {members}, trained on "
            f"{there['trained_on']['corpus']}, checkpoint {there['checkpoint'][:12]}. They would be overwritten: name "
            "another --workdir, or delete that file"
        )


def require_other(
    ingested: dict[str, Any], about: dict[str, Any], trained: dict[str, Any], splits: list[str] | None
) -> None:
    """Refuses the corpus that the model was trained on, but for splits of it that training did not see.

    Raises:
      ArtefactError: It is that corpus, and its training speakers would be scored.
    """
    info = ingested["corpus"]
    there = {"corpora": ingested["corpora"]} if "corpora" in ingested else info
    shared = cross_settings.corpora_of(there) & cross_settings.corpora_of(trained)
    if not shared:
        return
    has_folds = any(member.get("fold") is not None for member in about["members"])
    is_same_split = ingested["split_hash"] == trained["split_hash"]
    if splits and vocab.TRAIN not in splits and is_same_split and not has_folds:
        return
    if (info["corpus"], info["release"]) != (trained["corpus"], trained["release"]):
        name, release = min(shared)
        raise ArtefactError(
            f"the model was trained on {trained['corpus']}, and --config names {name} ({release}), too: speakers of "
            "its training would be scored. Its scores by corpus on its own test split are those of "
            "--config.eval.group_by=corpus without --model"
        )
    raise ArtefactError(
        f"the model was trained on {info['corpus']} ({info['release']}), and --config names the same corpus: speakers "
        "of its training would be scored. python -m launch.evaluate without --model scores its own test split; a "
        "model folder scores it with --config.eval.splits=\"('test',)\" under the data settings of its training"
    )


def require_other_recordings(utterances: pa.Table, rows_of: dict[str, np.ndarray], place: PurePath) -> None:
    """Refuses recordings that a trained workdir has among its own training recordings.

    A model folder does not say which recordings it was trained on.

    Raises:
      ArtefactError: Names one of them.
    """
    workdir = place.parent if place.name == "train" else place
    if in_bucket(workdir) or not (workdir / tables.UTTERANCES_FILE).exists():
        return
    own = tables.read_utterances(workdir)
    pairs = zip(own["audio_sha256"].to_pylist(), own["split"].to_pylist(), strict=True)
    known = {sha256 for sha256, split in pairs if split == vocab.TRAIN and sha256}
    ids, hashes = (utterances[name].to_pylist() for name in ("id", "audio_sha256"))
    if twice := [ids[row] for rows in rows_of.values() for row in rows if hashes[row] in known]:
        raise ArtefactError(
            f"{len(twice)} recordings, {twice[0]!r} first, are among those that the model of {place} was trained on: "
            "their scores would say nothing of other corpora. Leave them out of the corpus"
        )


def require_speakers(utterances: pa.Table, rows_of: dict[str, np.ndarray]) -> None:
    """Refuses a corpus of unknown speakers for a model whose features are relative to the speaker.

    Raises:
      ArtefactError: No speaker of a split is known.
    """
    speaker = np.array(utterances["speaker"].to_pylist(), object)
    for split, rows in rows_of.items():
        if (speaker[rows] == vocab.UNKNOWN).all():
            raise ArtefactError(
                f"the model hears features relative to the speaker (model.speaker_kappa_s), and no speaker of split "
                f"{split!r} is known: name speakers in the corpus, or score a model without it"
            )
