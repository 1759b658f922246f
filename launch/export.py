"""Writes a trained model as one self-contained folder, all members of a system or some of them.

    python -m launch.export --workdir=runs/crema_d --to=models/crema_d --member='layer01-votes-*'

--member takes a name, a pattern, or `best`, and may be given several times; one member makes a single model.
"""

from absl import app, flags

from launch import paths, plain

_WORKDIR = paths.define("workdir", None, "workdir with a finished training", required=True)
_TO = paths.define("to", None, "folder to write", required=True)
_PROTOTYPES = flags.DEFINE_bool("prototypes", False, "adds what adapting the model to a speaker takes (launch.predict)")
_MEMBERS = flags.DEFINE_multi_string("member", [], "member to export: a name, a pattern, or best")


def main(arguments: list[str]) -> None:
    """Writes the folder and says what is in it."""
    if arguments:
        raise app.UsageError(f"unexpected argument {arguments[0]!r}: see --help")
    from seremo_jax.core import commands
    from seremo_jax.evaluation import calibration_fit
    from seremo_jax.predict import model_folder

    path = model_folder.export(_WORKDIR.value, _TO.value, _MEMBERS.value, with_prototypes=_PROTOTYPES.value)
    about = model_folder.read(path).about
    print(f"{path}: {', '.join(member['name'] for member in about['members'])}")
    print(commands.as_called(calibration_fit.described(about["calibration"])))
    print(commands.as_called(f"next: python -m launch.predict --model={path} FILE"))


if __name__ == "__main__":
    plain.run(main)
