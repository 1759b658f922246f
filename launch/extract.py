"""One pass over the audio: saliency sums of every layer, hidden states of the chosen ones (store/, saliency.npz)."""

from launch import cli

if __name__ == "__main__":
    from seremo_jax.core import sharding
    from seremo_jax.features import extract

    cli.run(lambda config, workdir: extract.run(config, workdir, mesh=sharding.make_data_mesh()))
