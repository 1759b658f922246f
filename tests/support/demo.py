"""The server of the page that listens, in a thread of the test."""

import contextlib
import threading
from collections.abc import Iterator

from seremo_jax.predict import demo_server
from seremo_jax.predict.predictor import Predictor


@contextlib.contextmanager
def serving(model: Predictor) -> Iterator[demo_server.Server]:
    """A server at a free port that answers with the model, which it calls `models/logmel`, until the context ends."""
    with demo_server.Server("127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve, args=(model, "models/logmel"))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
