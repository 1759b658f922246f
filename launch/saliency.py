"""Ranks the layers by the sums that extraction gathered; model.layer=saliency reads the chosen one (saliency.json)."""

from launch import cli
from seremo_jax import ranking


def main(config, workdir):
    """Writes the ranking and prints the curve."""
    summary = ranking.summarise(workdir, config)
    print(f"mean |correlation| with {summary['use']}, {summary['num_utterances']} training utterances:")
    for layer, score in zip(summary["layers"], summary["score"], strict=True):
        print(f"  layer {layer:2d}  {score:.4f}{'  <- chosen' if layer == summary['chosen'] else ''}")


if __name__ == "__main__":
    cli.run(main)
