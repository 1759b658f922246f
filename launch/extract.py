"""One pass over the audio: saliency sums of every layer, hidden states of the chosen ones (store/, saliency.npz)."""

from launch import cli

if __name__ == "__main__":
    from seremo_jax.core import mesh
    from seremo_jax.features import extract

    cli.run(lambda config, workdir: extract.run(config, workdir, mesh=mesh.make_data_mesh()))
