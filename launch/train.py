"""Trains every member in one program, best epoch kept by the development split (train/)."""

from absl import flags

from launch import cli, pages
from launch.cores import num_cores

_PROFILE = flags.DEFINE_bool(
    "profile", False, "traces steps 10 to 20 of this command into train/profile/, for TensorBoard and Perfetto"
)


def main(config, workdir):
    """Trains on the store of this workdir."""
    from seremo_jax.core import preemption
    from seremo_jax.training import train

    try:
        train.run(config, workdir, is_profiled=_PROFILE.value)
    except preemption.PreemptedError as notice:
        print(f"{notice}: saved, the same command goes on from there")


if __name__ == "__main__":
    pages.restart()
    cli.run(main, num_cpu_devices=num_cores())
