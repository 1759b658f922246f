"""Ranks the layers by the sums that extraction gathered; model.layer=saliency reads the chosen one (saliency.json)."""

from launch import cli
from seremo_jax.saliency import ranking

WORDS = {
    "ccs": "ccs: mean |correlation|",
    "dccs": "dccs: share of variance explained",
    "probe": "probe: CCC on held-out speakers",
}


def main(config, workdir):
    """Writes the ranking and prints all curves."""
    summary = ranking.summarise(workdir, config)
    curves = {kind: curve for kind, curve in summary["curves"].items() if curve is not None}
    print(f"{summary['use']}, {summary['num_utterances']} training utterances; [95 % interval over speakers]")
    print("          " + "".join(f"{WORDS[kind]:37s}" for kind in curves).rstrip())
    for place, layer in enumerate(summary["layers"]):
        cells = [
            _cell(curve, place) + ("  <- largest" if layer == curve["chosen"] else "") for curve in curves.values()
        ]
        print(f"layer {layer:2d}  " + "".join(f"{cell:37s}" for cell in cells).rstrip())
    print("share of variance between (mean over features, less what chance gives)")
    for factor, entry in summary["variance_shares"].items():
        if "absent" in entry:
            print(f"  {factor:8s}  none: {entry['absent']}")
        else:
            print(f"  {factor:8s}  " + "  ".join(map("{:.3f}".format, entry["share"])) + f"  ({entry['num_values']})")
    print(f"layer {summary['chosen']} chosen by {summary['kind']} (saliency.kind)")
    for entry in summary.get("folds", ()):
        print(
            f"  fold {entry['fold']}: layer {entry['chosen']}, by its own {entry['num_utterances']} training utterances"
        )


def _cell(curve, place):
    low, high = curve["low"][place], curve["high"][place]
    return f"{curve['score'][place]:.4f}" + ("" if low is None else f" [{low:.4f}, {high:.4f}]")


if __name__ == "__main__":
    cli.run(main)
