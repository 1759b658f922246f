"""Serves a page that listens: drop a recording or use the microphone, see what a trained model says of it.

    python -m launch.demo --model=models/crema_d

--model is a folder of launch.export, hf://ORG/NAME[@REVISION] or a trained workdir, as for launch.predict, whose
answers these are. The page is for this machine alone, nothing is kept, and Ctrl+C ends it.
"""

import signal
import sys

from absl import app, flags

from launch import paths, plain

_MODEL = paths.define("model", None, "folder of the model, or hf://ORG/NAME", required=True)
_MEMBERS = flags.DEFINE_multi_string("member", [], "member of a workdir: a name, a pattern, or best")
_BACKBONE = paths.define("backbone", None, "where the backbone is, if not where the model says; names what to download")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "address of this machine to be reached at; others hear it unencrypted")
_PORT = flags.DEFINE_integer("port", 8765, "port; 0 for any that is free", lower_bound=0, upper_bound=65_535)


def main(arguments: list[str]) -> int:
    """Serves until it is interrupted, and returns the exit code."""
    if arguments:
        raise app.UsageError(f"the page is given recordings in the browser, and no argument here: {arguments[0]}")
    from seremo_jax.predict import demo_server, predictor

    # A service that is told to stop removes its temporary file, as on Ctrl+C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with demo_server.Server(_HOST.value, _PORT.value) as server:
        model = predictor.load(_MODEL.value, members=_MEMBERS.value, backbone=_BACKBONE.value)
        print(f"open {server.address} (Ctrl+C ends it)", flush=True)
        try:
            server.serve(model, _MODEL.value)
        except KeyboardInterrupt:
            print("ends as soon as the recording at hand, if any, is heard", file=sys.stderr)
    return 0


if __name__ == "__main__":
    plain.run(main)
