"""Renders utterances in every condition of eval.conditions as WAV files, to listen to (--to=FOLDER, manifest.csv)."""

from absl import flags

from launch import cli, paths
from seremo_jax.conditions import listening

_TO = paths.define("to", None, "folder to write", required=True)
_SPLIT = flags.DEFINE_string("split", "test", "split to take utterances of")
_NUM = flags.DEFINE_integer("num", 5, "utterances, drawn by eval.condition_seed", lower_bound=1)


def main(config, workdir):
    """Writes the folder and says where its manifest is."""
    print(listening.run(config, workdir, _TO.value, _SPLIT.value, _NUM.value))


if __name__ == "__main__":
    cli.run(main)
