"""Evaluates the trained members, speaker by speaker, with intervals (predictions/, results.jsonl).

With --model, a trained model is scored on the corpus of --config, which may be another one than it was trained on; the
scores lie in a --workdir of their own:

    python -m launch.evaluate --model=models/simulated --config=configs/crema_d.py --config.corpus.root=CREMA-D \\
      --workdir=runs/crema_d_on_simulated

--model is a folder of launch.export or a workdir with a finished training. Every utterance of the corpus is scored,
unless --config.eval.splits names splits. What the model has settled (backbone, layer, level, classes) is the model's.
"""

from absl import app, flags

from launch import cli, paths
from launch.cores import num_cores

_MODEL = paths.define("model", None, "folder or workdir of a trained model, to score it on the corpus of --config")
_MEMBERS = flags.DEFINE_multi_string("member", [], "with --model of a workdir: a name, a pattern, or best; all if none")
_BACKBONE = paths.define("backbone", None, "with --model: where its backbone is, if not where the model says")


def main(config, workdir):
    """Evaluates the training of this workdir, or a model on another corpus."""
    if _MODEL.value is not None:
        from seremo_jax.predict import cross_corpus

        places = {"members": _MEMBERS.value, "backbone": _BACKBONE.value}
        cross_corpus.run(config, _MODEL.value, workdir, **places, asked=cli.asked())
        return
    if _MEMBERS.value or _BACKBONE.value is not None:
        raise app.UsageError("--member and --backbone belong to --model, which names a trained model")
    from seremo_jax.evaluation import evaluate

    evaluate.run(config, workdir)


if __name__ == "__main__":
    cli.run(main, num_cpu_devices=num_cores())
