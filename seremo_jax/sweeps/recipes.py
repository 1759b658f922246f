"""Recipes that a sweep writes beside its results: of its best system, and of each program as it was trained. No JAX."""

import dataclasses
import pprint
from collections.abc import Mapping, Sequence
from typing import Any

from seremo_jax.core.config import Config, from_config_dict
from seremo_jax.sweeps import plan

FILE = "recipe.py"


def of_system(program: Mapping[str, Any], members: Sequence[int], evaluation: dict[str, Any], about: str) -> str:
    """A recipe that trains some members of a program anew, and evaluates as the recipe of the sweep says.

    Args:
      program: A program of the manifest.
      members: Places of the members.
      evaluation: Section `eval` of the recipe that was swept.
      about: The recipe's docstring.
    """
    return _text(plan.alone(from_config_dict(program["config"]), members, evaluation), about)


def of_program(program: Mapping[str, Any], members: Sequence[int], evaluation: dict[str, Any], about: str) -> str:
    """A recipe that evaluates the training in the folder of a program, with the arguments of `of_system`.

    The members keep their order, by which the training is known.
    """
    config = from_config_dict(program["config"])
    if len(members) < program["num_members"]:
        config = plan.keep(config, members)
    return _text(from_config_dict(dataclasses.asdict(config) | {"eval": evaluation}), about)


def _text(config: Config, about: str) -> str:
    return (
        f'"""{about}"""\n\n'
        "from seremo_jax.core.config import from_config_dict, to_config_dict\n\n"
        f"CONFIG = {pprint.pformat(dataclasses.asdict(config), width=100, sort_dicts=False)}\n\n\n"
        'def get_config(arg: str = ""):\n    """The recipe."""\n    return to_config_dict(from_config_dict(CONFIG))\n'
    )
