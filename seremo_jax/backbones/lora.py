"""Low-rank changes of weights (LoRA), merged: W + scale B A.

Source: KNOWN: E. Hu et al., LoRA, ICLR 2022 (scale = alpha / rank); D. Kalajdzievski, rsLoRA, arXiv:2312.03732
(alpha / root of rank).
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from seremo_jax.backbones.hub import CheckpointError
from seremo_jax.backbones.settings import FLAG, Check, checked, is_there, one_of, optional, read_object, real, whole

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_PART = re.compile(r"(?P<path>.+)\.lora_(?P<part>[AB])(?:\.[\w-]+)*?(?:\.weight)?")
_NUMBERS = Check(
    lambda value: isinstance(value, dict) and all(type(n) in (int, float) and n > 0 for n in value.values()),
    "an object of numbers above 0",
)
_NONE = Check(lambda value: value in (None, {}, [], False), "absent: this project does not merge it")
_CHECKS = {
    "peft_type": one_of(("LORA",)),
    "r": whole(1, 1 << 16),
    "lora_alpha": real(0.0, 1e6),
    "use_rslora": FLAG,
    "rank_pattern": optional(_NUMBERS),
    "alpha_pattern": optional(_NUMBERS),
    "bias": one_of(("none",)),
    "use_dora": _NONE,
    "fan_in_fan_out": _NONE,
    "use_qalora": _NONE,
    "megatron_config": _NONE,
}


class Settings(NamedTuple):
    """How strongly pairs of matrices change a weight.

    Attributes:
      alpha: Numerator of the scale.
      is_root: Whether the root of the rank divides it, and not the rank.
      alphas: Pattern of a path -> its own numerator.
    """

    alpha: float
    is_root: bool = False
    alphas: Mapping[str, float] = {}

    def scale(self, path: str, rank: int) -> float:
        """What B A is multiplied by at a path."""
        matching = (alpha for pattern, alpha in self.alphas.items() if re.match(rf"(.*\.)?({pattern})$", path))
        return next(matching, self.alpha) / (math.sqrt(rank) if self.is_root else rank)


def part_of(name: str) -> tuple[str, str] | None:
    """Path of the weight that a tensor changes, and which of the two factors it is, `A` or `B`; None for others.

    Raises:
      CheckpointError: It belongs to a kind of change that is not merged here.
    """
    match = _PART.fullmatch(name)
    if match:
        return plain(match["path"]), match["part"]
    if ".lora_" in name:
        raise CheckpointError(f"{name}: of LoRA, only the factors lora_A and lora_B of linear maps are merged here")
    return None


def plain(name: str) -> str:
    """The name without what the library PEFT puts into it."""
    return name.removeprefix("base_model.model.").replace(".base_layer", "")


def read_settings(folder: Path) -> Settings:
    """Those of an `adapter_config.json`.

    Raises:
      CheckpointError: It is missing or damaged, or asks for what is not merged here.
    """
    path = folder / CONFIG
    content = checked(str(path), read_object(path), _CHECKS)
    if missing := [name for name in ("r", "lora_alpha") if name not in content]:
        raise CheckpointError(f"{path} says no {' and no '.join(missing)}: place the adapter's own file there")
    return Settings(content["lora_alpha"], content.get("use_rslora", False), content.get("alpha_pattern") or {})


def weights_of(folder: Path) -> Path:
    """The weight file of an adapter's folder.

    Raises:
      CheckpointError: There is none.
    """
    path = next((folder / name for name in WEIGHTS if is_there(folder / name)), None)
    if path is None:
        raise CheckpointError(f"{folder} has no {' and no '.join(WEIGHTS)}: give the folder of an adapter")
    return path


def merged(weight: np.ndarray, a: np.ndarray, b: np.ndarray, scale: float, name: str) -> np.ndarray:
    """The weight [out, in] with its change, float32, computed in float64.

    Raises:
      CheckpointError: Factors do not fit the weight.
    """
    if weight.ndim != 2 or a.shape != (a.shape[0], weight.shape[1]) or b.shape != (weight.shape[0], a.shape[0]):
        raise CheckpointError(f"{name} {weight.shape}: factors {a.shape} and {b.shape} of LoRA do not fit it")
    change = b.astype(np.float64) @ a.astype(np.float64)
    return (weight.astype(np.float64) + scale * change).astype(np.float32)


def require_pairs(factors: Mapping[str, Mapping[str, Any]], weights: Mapping[str, Any], place: str) -> None:
    """Refuses half a pair, and a pair without its weight.

    Raises:
      CheckpointError: Names the first of them.
    """
    for path, parts in factors.items():
        if parts.keys() != {"A", "B"}:
            raise CheckpointError(f"{place}: {path} has lora_{next(iter(parts))} and not the other factor")
        if f"{path}.weight" not in weights:
            raise CheckpointError(f"{place}: {path} has factors of LoRA and the model no such weight")
