"""Takes a backbone out of a wrapper, and merges LoRA: a folder that --config.backbone.name takes like a published one.

    python -m launch.convert --checkpoint=ser/model.safetensors --prefix=ssl_model. --kind=wavlm --to=models/wavlm_ser
    python -m launch.convert --checkpoint=microsoft/wavlm-large --adapter=ser/lora --to=models/wavlm_lora

--kind is needed where no config.json of the backbone itself lies beside the weights. Its config is then made out from
the shapes of its tensors. METHOD.md, section 13.2, says how.
"""

from absl import app, flags

from launch import paths, plain

_CHECKPOINT = paths.define("checkpoint", None, "folder, weight file, or hub id (org/name[@revision])", required=True)
_TO = paths.define("to", None, "folder to write", required=True)
_KIND = flags.DEFINE_string("kind", "", "model_type of the backbone: wavlm, hubert, wav2vec2, whisper and so on")
_PREFIX = flags.DEFINE_string(
    "prefix", "", "what stands before the names of its tensors; found, where there is one backbone"
)
_ADAPTER = paths.define("adapter", None, "folder with adapter_config.json and adapter_model.safetensors, to merge")
_ALPHA = flags.DEFINE_float("lora_alpha", None, "alpha of LoRA inside the checkpoint; 0 if it has been merged already")


def main(arguments: list[str]) -> None:
    """Writes the folder and says what is in it."""
    if arguments:
        raise app.UsageError(f"unexpected argument {arguments[0]!r}: see --help")
    from seremo_jax.backbones import conversion

    change = conversion.Change(_PREFIX.value, _ADAPTER.value or "", _ALPHA.value)
    path = conversion.convert(_CHECKPOINT.value, _TO.value, _KIND.value, change)
    print(f"{path}: {(path / conversion.ORIGIN).read_text()}")
    print(f"next: --config.backbone.name={path}")


if __name__ == "__main__":
    plain.run(main)
