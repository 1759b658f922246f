"""The member axis: which members a config asks for, in which order, under which names."""

import dataclasses
import itertools
import os
from collections.abc import Sequence
from pathlib import Path

from seremo_jax.artefacts import ArtefactError, read_json
from seremo_jax.config import Config


@dataclasses.dataclass(frozen=True)
class Member:
    """One head of the ensemble axis.

    Attributes:
      layer: Backbone layer it reads.
      class_target: `votes` or `consensus`.
      seed: Seed of its initial parameters and dropout.
    """

    layer: int
    class_target: str
    seed: int

    @property
    def name(self) -> str:
        """Name in logs."""
        return f"layer{self.layer:02d}-{self.class_target}-seed{self.seed}"


def members(config: Config, chosen_layer: int | None) -> list[Member]:
    """The product of the ensemble axes, layers outermost, seeds innermost.

    Args:
      config: The experiment.
      chosen_layer: Layer of largest saliency; needed where `model.layer` is `saliency`.

    Raises:
      ArtefactError: `model.layer` is `saliency`, and no layer was chosen.
    """
    layer = chosen_layer if config.model.layer == "saliency" else config.model.layer
    if layer is None and not config.ensemble.layers:
        raise ArtefactError("model.layer is 'saliency', but no saliency was computed: run python -m launch.saliency")
    axes = (
        config.ensemble.layers or (layer,),
        config.ensemble.class_targets or (config.targets.class_target,),
        config.ensemble.seeds or (config.train.seed,),
    )
    return [Member(*point) for point in itertools.product(*axes)]


def layers(wanted: Sequence[Member]) -> tuple[int, ...]:
    """Layers the members read, ascending."""
    return tuple(sorted({member.layer for member in wanted}))


def chosen_layer(workdir: str | os.PathLike) -> int | None:
    """Layer of largest saliency as `saliency.json` has it; None where no saliency was ranked."""
    path = Path(workdir) / "saliency.json"
    return read_json(path, "run python -m launch.saliency again")["chosen"] if path.exists() else None
