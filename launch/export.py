"""Writes a trained model as one self-contained folder, all members of a system or some of them.

    python -m launch.export --workdir=runs/crema_d --to=models/crema_d --member='layer01-votes-*'

    python -m launch.export --workdir=runs/crema_d --to=hf://ORG/NAME --license=odbl

--member takes a name, a pattern, or `best`, and may be given several times; one member makes a single model. With hf://
the folder is written to the model hub, with a model card (README.md) that has the scores of launch.evaluate. Log in
with `hf auth login` before. A new repository is private, unless --public is given. --onnx adds head.onnx, which takes
hidden states of any backbone, and with --with_backbone model.onnx, which takes waveforms of 16 kHz (log-mel, Whisper);
--backbone says where the backbone is, if not where it was in training.
"""

from absl import app, flags

from launch import paths, plain

_WORKDIR = paths.define("workdir", None, "workdir with a finished training", required=True)
_TO = paths.define("to", None, "folder to write, or hf://ORG/NAME", required=True)
_PROTOTYPES = flags.DEFINE_bool("prototypes", False, "adds what adapting the model to a speaker takes (launch.predict)")
_MEMBERS = flags.DEFINE_multi_string("member", [], "member to export: a name, a pattern, or best")
_LICENSE = flags.DEFINE_string("license", None, "with hf://: licence of the model, by the hub's word for it")
_PUBLIC = flags.DEFINE_bool("public", False, "with hf://: everybody may read a repository that is made here")
_ONNX = flags.DEFINE_bool("onnx", False, "adds the heads as an ONNX file for any batch and length (extra onnx)")
_WITH_BACKBONE = flags.DEFINE_bool("with_backbone", False, "with --onnx: also the heads behind their backbone")
_BACKBONE = paths.define("backbone", None, "with --with_backbone: where it is, if not where it was in training")


def main(arguments: list[str]) -> None:
    """Writes the folder and says what is in it."""
    if arguments:
        raise app.UsageError(f"unexpected argument {arguments[0]!r}: see --help")
    if (_WITH_BACKBONE.value and not _ONNX.value) or (_BACKBONE.value and not _WITH_BACKBONE.value):
        raise app.UsageError("--with_backbone belongs to --onnx, and --backbone to --with_backbone")
    from seremo_jax.core import commands, ensemble
    from seremo_jax.evaluation import calibration_fit
    from seremo_jax.predict import hub_folder, model_folder, onnx_files, publish

    onnx = onnx_files.OnnxFiles(_WITH_BACKBONE.value, _BACKBONE.value) if _ONNX.value else None
    options = {"with_prototypes": _PROTOTYPES.value, "more": onnx}
    if hub_folder.is_url(_TO.value):
        options |= {"licence": _LICENSE.value, "is_public": _PUBLIC.value}
        path, about = publish.run(_WORKDIR.value, _TO.value, _MEMBERS.value, **options)
    elif _LICENSE.value or _PUBLIC.value:
        raise app.UsageError("--license and --public belong to --to=hf://ORG/NAME")
    else:
        path = model_folder.export(_WORKDIR.value, _TO.value, _MEMBERS.value, **options)
        about = model_folder.read(path).about
    speakers = " --speakers=one" if any(map(ensemble.is_transductive, about["members"])) else ""
    print(f"{path}: {', '.join(member['name'] for member in about['members'])}")
    for sentence in onnx.said if onnx else ():
        print(sentence)
    print(commands.as_called(calibration_fit.described(about["calibration"])))
    print(commands.as_called(f"next: python -m launch.predict --model={path}{speakers} FILE"))


if __name__ == "__main__":
    plain.run(main)
