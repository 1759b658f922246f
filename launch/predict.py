"""Scores a file, a folder or a list (.txt, one path a line) of speech with a trained model.

    python -m launch.predict --model=models/crema_d recordings --out=scores.parquet --format=parquet

--model is a folder of launch.export, hf://ORG/NAME[@REVISION] or a trained workdir. Without --out it prints. A run that
was cut off goes on where it was. Exit code 2: some files could not be used; they are listed, also in OUT.bad.csv. What
--enrol, --speaker, --speaker_prior (recordings of one speaker) and --speakers see of a speaker: launch/README.md.
"""

import sys

from absl import app, flags

from launch import paths, plain

_MODEL = paths.define("model", None, "folder of the model, or hf://ORG/NAME", required=True)
_MEMBERS = flags.DEFINE_multi_string("member", [], "member of a workdir: a name, a pattern, or best")
_BACKBONE = paths.define("backbone", None, "where the backbone is, if not where the model says; names what to download")
_FORMAT = flags.DEFINE_enum("format", "json", ["json", "csv", "parquet"], "format of the results; json has lines")
_OUT = paths.define("out", None, "file to write")
_SPEAKERS = paths.define("speakers", None, "who speaks, for models that must know: CSV of file and speaker; or: one")
_TIMELINE = flags.DEFINE_bool("timeline", False, "table and figure of each long recording, in the folder OUT.timeline")
_EMBEDDING = flags.DEFINE_bool("embedding", False, "adds the embedding of every member")
_WINDOW_S = flags.DEFINE_float("window_s", 10.0, "windows of long recordings, in seconds", lower_bound=0.1)
_HOP_S = flags.DEFINE_float("hop_s", 5.0, "from one window to the next, in seconds", lower_bound=0.1)
_ENROL = paths.define("enrol", None, "folder of one speaker's recordings, labelled by labels.csv (file,class) or not")
_SAVE_SPEAKER = paths.define("save_speaker", None, "file for what --enrol learned")
_SPEAKER = paths.define("speaker", None, "such a file, made with this model")
_SPEAKER_PRIOR = flags.DEFINE_bool("speaker_prior", False, "corrects all recordings by the prior they show together")


def main(arguments: list[str]) -> int:
    """Predicts, enrols, or both, and returns the exit code."""
    if len(arguments) != 1 and not (_ENROL.value and _SAVE_SPEAKER.value and not arguments):
        raise app.UsageError("give one file, folder or list; none with --enrol and --save_speaker")
    if _FORMAT.value == "parquet" and _OUT.value is None:
        raise app.UsageError("--format=parquet needs --out")
    if not 0 < _HOP_S.value <= _WINDOW_S.value < float("inf"):
        raise app.UsageError("--hop_s must be above 0 and at most --window_s, and both finite")
    if (_SAVE_SPEAKER.value and not _ENROL.value) or (_ENROL.value and _SPEAKER.value):
        raise app.UsageError("--save_speaker needs --enrol, which takes no --speaker")
    from seremo_jax.predict import files, predictor, speakers

    audio_files = files.find(arguments[0], _SPEAKERS.value) if arguments else None
    places = {"members": _MEMBERS.value, "backbone": _BACKBONE.value, "window_s": _WINDOW_S.value}
    model = predictor.load(_MODEL.value, **places, hop_s=_HOP_S.value)
    model, after = speakers.asked_for(model, _ENROL.value, _SAVE_SPEAKER.value, _SPEAKER.value, _SPEAKER_PRIOR.value)
    if audio_files is None:
        return 0
    options = {"with_embedding": _EMBEDDING.value, "with_timeline": _TIMELINE.value, "after": after}
    outcome = files.run(model, audio_files, _OUT.value, _FORMAT.value, **options)
    if _OUT.value is None:
        print(files.to_text(outcome, _FORMAT.value), end="")
    print(*files.sentences(outcome, audio_files), sep="\n", file=sys.stderr)
    return 2 if outcome.bad else 0


if __name__ == "__main__":
    plain.run(main)
