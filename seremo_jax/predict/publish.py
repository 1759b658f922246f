"""A trained model on the model hub: its folder and its model card, as one commit."""

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from seremo_jax.core.artefacts import place_of
from seremo_jax.core.lock import at_work
from seremo_jax.evaluation.records import FILE
from seremo_jax.predict import hub_folder, model_card, model_folder, model_record
from seremo_jax.reports import report


def run(
    workdir: str | os.PathLike,
    url: str,
    members: Sequence[str] = (),
    *,
    licence: str | None = None,
    is_public: bool = False,
    with_prototypes: bool = False,
    more: Callable[[model_folder.Model], dict[str, bytes]] | None = None,
) -> tuple[str, dict[str, Any]]:
    """Writes a model and its card to the hub.

    Args:
      workdir: Workdir with a finished training; with the scores of `python -m launch.evaluate` they are on the card.
      url: `hf://ORG/NAME`; the repository is made where there is none.
      members: Which members, see `model_folder.pick`.
      licence: The hub's word for the licence of the model, as `cc-by-4.0`; None says that none was stated.
      is_public: Whether everybody may read a repository that is made here.
      with_prototypes: See `model_folder.from_workdir`.
      more: See `model_folder.export`.

    Returns:
      The URL with the commit, and the content of `model.json`.

    Raises:
      ArtefactError: See `model_folder.from_workdir`, `report.load` and `hub_folder.upload`; nothing was uploaded then.
    """
    repository = hub_folder.to_write(url)
    scores = report.markdown_summary(workdir) if (place_of(workdir) / FILE).exists() else ""
    with tempfile.TemporaryDirectory(prefix="seremo_jax-") as scratch:
        folder = Path(scratch) / "model"
        with at_work(workdir, "export"):
            model = model_folder.from_workdir(workdir, members, with_prototypes=with_prototypes)
        about = model_record.without_places(model.about)
        model_folder.write(model._replace(about=about), folder, more)
        card = model_card.card(repository, about, scores.strip(), licence)
        (folder / model_card.FILE).write_text(card, encoding="utf-8")
        return hub_folder.upload(folder, repository, is_public=is_public), about
