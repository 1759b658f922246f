"""The protocol of an experiment: the identity of a training, and the card that travels with every number."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import pyarrow as pa

from seremo_jax import __version__
from seremo_jax.core import commands, ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of, parsed, read_json, require_same
from seremo_jax.core.config import Config
from seremo_jax.core.ensemble import MEMBER_FIELDS, SINCE
from seremo_jax.data.tables import info_of
from seremo_jax.features import manifest
from seremo_jax.features.store import Reader
from seremo_jax.metrics.catalogue import KINDS

_SINCE = {
    "model.conv_kind": "depthwise",
    "model.conv_filters": 200,
    "model.bidirectional": False,
    "model.embedding_activation": "none",
    "optim.schedule": "constant",
    "optim.warmup_steps": 0,
    "train.selection": "ccc",
    "train.group_by": "gender",
    "loss.dro_step": 0.01,
    "loss.cvar_share": 0.2,
    "loss.vrex_weight": 5.0,
    **{MEMBER_FIELDS[field]: value for field, value in SINCE.items()},
}
"""Fields that earlier versions lacked, and what stood for them: a training of theirs is the same run as one of now."""


_OF_CORPUS = ("corpus", "release", "utterances", "speakers", "not_offered")
"""What the card says of each of several corpora."""


def run_identity(
    config: Config, store: Reader, members: list[dict[str, Any]], copies: str | None = None
) -> dict[str, Any]:
    """The identity of a training: settings that change results, what the store holds, the members, what copies hold.

    Two trainings with equal identities give the same numbers, to rounding where their stores were not extracted in the
    same batches. Only then is one resumed as the other.

    Args:
      config: The experiment.
      store: The store.
      members: Fields of each member.
      copies: `training.copies.Copies.fingerprint`, or what the stamp of a training says of it; None without copies.
    """
    fields = config.results_fields("targets", "model", "loss", "optim", "train")
    if any(member["fold"] is not None for member in members):
        fields |= {f"data.{name}": getattr(config.data, name) for name in ("split_kind", "split_seed", "num_folds")}
    fields["data.modality"] = config.data.modality
    fields["data.self_reports"] = config.data.self_reports
    fields["data.keep_no_agreement"] = config.data.keep_no_agreement
    if config.model.top_features and config.saliency.kind == "dccs":
        # It chooses other features than the single correlations that chose them before there was this curve.
        fields["saliency.kind"] = config.saliency.kind
    # These fields are read from the members and not from the config: a single value (`train.seed=3`) and an axis of one
    # value (`ensemble.seeds=(3,)`) are the same run.
    for field, path in MEMBER_FIELDS.items():
        fields.pop(path, None)
        if len({member[field] for member in members}) == 1:
            fields[path] = members[0][field]
    varied = [field for field, path in MEMBER_FIELDS.items() if path not in fields]
    for path, before in _SINCE.items():
        if fields.get(path) == before:
            del fields[path]
    return fields | {
        **_of_store(store),
        **({} if copies is None else {"copies": copies, **_of_copies(config)}),
        "members": [{field: member[field] for field in varied} for member in members],
    }


def _of_copies(config: Config) -> dict[str, Any]:
    fields = {field: getattr(config.extract, field.partition(".")[2]) for field in manifest.OF_COPIES}
    return fields | {"extract.conditions": list(config.extract.conditions)}


def _of_store(store: Reader) -> dict[str, Any]:
    return {f"store.{name}": value for name, value in manifest.identity(store.manifest).items()}


def require_run(what: str, there: dict[str, Any], asked: dict[str, Any], store: Reader, remedy: str) -> None:
    """Refuses a training, or a checkpoint of one, whose identity is not the one asked for.

    Args:
      what: What is compared, with its file.
      there: Its identity.
      asked: `run_identity` of the present settings.
      store: The store at hand.
      remedy: What the user can do.

    Raises:
      ArtefactError: They differ; the message names both sides.
    """
    # Versions before named the store by all of its manifest, batches and the hashes of its files included.
    if there.get("store") == fingerprint_of(store.manifest):
        there = {name: value for name, value in there.items() if name != "store"} | _of_store(store)
    require_same(what, _SINCE | there, _SINCE | asked, remedy)


def card(
    config: Config, workdir: PurePath, utterances: pa.Table, store: Reader, trained: dict[str, Any]
) -> dict[str, Any]:
    """The protocol card: everything that a reader must know to compare a number with another.

    It says the corpus, the split, the label policies, the backbone, the model and the version of the code.

    Args:
      config: The experiment.
      workdir: Its folder.
      utterances: The utterance table.
      store: The store that the members were trained on.
      trained: Content of `train/finished.json`.
    """
    info, has_other = info_of(utterances), config.targets.other_votes == "class"
    ingest = read_json(workdir / "ingest.json", "run python -m launch.ingest with this --workdir")
    by_fold = {m["fold"]: m["layer"] for m in trained["members"] if m.get("is_layer_by_fold")}
    layers = [f"layer {layer} in fold {fold}" for fold, layer in by_fold.items()]
    further, heard = {"layers": layers} if layers else {}, transductive(trained["members"])
    if "corpora" in ingest:
        further["corpora"] = [{name: entry[name] for name in _OF_CORPUS} for entry in ingest["corpora"]]
    if heard:
        further["transductive"] = heard
    # Heads that hear no copies say nothing of them, so that their cards stay as they are.
    if (copies := trained.get("run", {}).get("copies")) is not None:
        further["copies"] = copies
    return further | {
        "corpus": info.corpus,
        "release": info.release,
        "is_simulated": info.is_simulated,
        "notes": [
            *info.notes,
            *([vocab.ADAPTED_NOTE] if config.eval.speaker_prior else []),
            *([TRANSDUCTIVE] if heard else []),
        ],
        "split_hash": ingest["split_hash"],
        "classes": [*vocab.classes_of(config.targets.class_set), *([vocab.OTHER] * has_other)],
        "backbone": store.manifest["backbone"],
        "backbone_revision": store.manifest["backbone_revision"],
        "final_norm": store.manifest["final_norm"],
        "store": fingerprint_of(manifest.identity(store.manifest)),
        "checkpoint": trained["checkpoint_id"],
        # What the tables were made under stands in their own record, and not in the settings of this command.
        "settings": config.results_fields() | ingest["settings"],
        "fingerprint": config.fingerprint(),
        # An evaluation of another catalogue lacks metrics of this one, so it must not count as up to date.
        "metrics": catalogue_fingerprint(),
        "code_version": code_version(),
        "commit": commit(),
    }


TRANSDUCTIVE = (
    "Systems called transductive hear features relative to the speaker: before they judge an utterance they have heard "
    "all audio of its speaker in the split, without labels."
)
"""What belongs under every table with such a system."""


def transductive(members: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Values of `model.speaker_kappa_s` under which members hear all audio of a test speaker; none where none does."""
    return list(dict.fromkeys(m["speaker_kappa_s"] for m in members if ensemble.is_transductive(m)))


def catalogue_fingerprint() -> str:
    """Hash of the metrics that there are."""
    return fingerprint_of([(kind.key, kind.template) for kind in KINDS.values()])


def code_version() -> str:
    """Version of the package, with the commit where it runs from a checkout."""
    described = commit()
    return __version__ if described is None else f"{__version__} ({described})"


def commit() -> str | None:
    """Commit of the checkout that the package runs from (`+` marks uncommitted changes); None outside of one."""
    if not commands.is_checkout():
        # A wheel may be installed below the repository of another project.
        return None
    command = ["git", "-C", os.fspath(Path(__file__).parent), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def is_card_of(expected: dict[str, Any], results: PurePath) -> bool:
    """Whether `results.jsonl` is there, whole, and made under this card, from whatever commit of the code."""
    there, ignored = card_in(results), dict.fromkeys(("code_version", "commit"))
    return there is not None and there | ignored == json.loads(json.dumps(expected)) | ignored


def card_in(results: PurePath) -> dict[str, Any] | None:
    """The card that `results.jsonl` was made under; None where it is not there, or not whole."""
    try:
        cards = [parsed(line, "", "")["protocol"] for line in results.read_bytes().splitlines()]
        return cards[0]
    except (OSError, ArtefactError, LookupError, TypeError):
        return None
