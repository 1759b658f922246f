"""What a corpus takes on 1, 8 and 64 accelerators, estimated from settings: hours, bytes, members, and what binds.

    python -m launch.scale --accelerator=h100 --devices=1,8,64

The default is MSP-Podcast 2.0 with WavLM large, heads on every layer. Nothing is run, and no weights are needed.
"""

import dataclasses
import re

from absl import app, flags

from launch import paths, plain
from seremo_jax.backbones import costs
from seremo_jax.sweeps import scale, scale_table, scale_terms, workload

_BACKBONE = flags.DEFINE_string(
    "backbone", "microsoft/wavlm-large", f"one of {', '.join(costs.PUBLISHED)}, or a folder"
)
_WORKDIR = paths.define("workdir", None, "takes the lengths of its utterances instead of drawing them")
_NUM = flags.DEFINE_integer("num_utterances", 264_705, "utterances", lower_bound=1)
_MEAN_S = flags.DEFINE_float("mean_s", 5.7, "their mean length, in seconds")
_RANGE_S = flags.DEFINE_list("range_s", ["2.75", "11"], "shortest and longest, in seconds")
_IS_PAIR = re.compile(r"\d+(\.\d*)?,\d+(\.\d*)?").fullmatch
flags.register_validator("range_s", lambda ends: bool(_IS_PAIR(",".join(ends))), "two lengths, as --range_s=2.75,11")
_DEVICES = flags.DEFINE_list("devices", ["1", "8", "64"], "numbers of devices")
_NAME = flags.DEFINE_enum("accelerator", "h100", sorted(scale_terms.ACCELERATORS), "its maker's figures; cpu: measured")
_SHARE = flags.DEFINE_float(
    "share", None, "of the peak that large products reach (0.4; cpu: 0.82, measured)", 0.001, 1.0
)
_SEEDS = flags.DEFINE_integer("seeds", 5, "seeds of each layer and target", lower_bound=1)
_FORMAT = flags.DEFINE_enum("format", "markdown", ["markdown", "csv"], "csv is unrounded")
for field in dataclasses.fields(scale_terms.Assumptions):
    define = flags.DEFINE_integer if field.type is int else flags.DEFINE_float
    define(field.name, field.default, field.metadata["doc"], lower_bound=0)


def main(arguments: list[str]) -> None:
    """Prints the table."""
    if arguments or not all(count.isdigit() and int(count) for count in _DEVICES.value):
        raise app.UsageError("give numbers of devices as --devices=1,8,64, and no arguments")
    values = {field.name: flags.FLAGS[field.name].value for field in dataclasses.fields(scale_terms.Assumptions)}
    device = scale_terms.ACCELERATORS[_NAME.value]
    if _SHARE.value:
        device = dataclasses.replace(device, share=_SHARE.value, is_measured=False)
    backbone = costs.published_config(_BACKBONE.value)
    if _WORKDIR.value:
        num_samples = scale.lengths_of(_WORKDIR.value)
    else:
        num_samples = workload.draw_lengths(_NUM.value, _MEAN_S.value, *map(float, _RANGE_S.value))
    corpus = scale.Corpus(scale.config_of(_SEEDS.value), backbone, num_samples, scale_terms.Assumptions(**values))
    rows = scale_table.rows_of(corpus, device, [int(count) for count in _DEVICES.value])
    form = scale_table.markdown if _FORMAT.value == "markdown" else scale_table.csv_text
    print(form(corpus, _NAME.value, device, rows), end="")


if __name__ == "__main__":
    plain.run(main)
