"""One pass over the audio: saliency sums of every layer, hidden states of the chosen ones (store/, saliency.npz)."""

from launch import cli
from launch.cores import num_cores


def main(config, workdir):
    """Extracts the utterances of this workdir, on all devices of this process."""
    from seremo_jax.core import sharding
    from seremo_jax.features import extract

    extract.run(config, workdir, mesh=sharding.make_data_mesh())


if __name__ == "__main__":
    # A device a core: so many batches are heard at once.
    cli.run(main, num_cpu_devices=num_cores())
