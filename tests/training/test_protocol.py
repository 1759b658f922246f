"""Which store fits a training: what it holds decides, and not how it was extracted."""

import dataclasses

import pytest

from seremo_jax import backbones
from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError, fingerprint_of
from seremo_jax.core.config import Config
from seremo_jax.training import protocol
from tests.support.toy_corpus import config_of, extracted, fresh, install_toy, make_corpus


@pytest.fixture
def stores(tmp_path):
    """A store in small batches, the same in one batch and one shard, and one of another dtype; and their config."""
    corpus = make_corpus(tmp_path)
    install_toy()
    settings = ({"extract__batch_seconds": 1.5}, {"extract__batch_seconds": 60.0, "extract__shard_utterances": 22})
    asked = [*settings, {"extract__dtype": "float16"}]
    yield config_of(corpus), [extracted(corpus, fresh(corpus, tmp_path, f"w{i}"), **a) for i, a in enumerate(asked)]
    del backbones.LOADERS["toy"]


def test_a_store_extracted_again_in_other_batches_fits_its_training(stores):
    config, (small, large, rounded) = stores
    members = [vars(member) for member in ensemble.members(config, 2)]
    trained = protocol.run_identity(config, small, members)
    assert small.manifest["files"] != large.manifest["files"]
    protocol.require_run("it", trained, protocol.run_identity(config, large, members), large, "No.")
    other = protocol.run_identity(config, rounded, members)
    with pytest.raises(ArtefactError, match=r"it does not fit: store.dtype: 'float32' there, 'float16' asked for. No."):
        protocol.require_run("it", trained, other, rounded, "No.")
    # Earlier versions named the store by its whole manifest, which fits the very same store only.
    before = {name: value for name, value in trained.items() if not name.startswith("store.")}
    before["store"] = fingerprint_of(small.manifest)
    protocol.require_run("it", before, trained, small, "No.")
    with pytest.raises(ArtefactError, match=r"store: '\w+' there, None asked for"):
        protocol.require_run("it", before, trained, large, "No.")


def test_a_training_from_before_a_field_is_the_same_run_as_one_of_now(stores):
    config, (store, *_) = stores
    members = [vars(member) for member in ensemble.members(config, 2)]
    before = protocol.run_identity(config, store, members)
    assert not before.keys() & protocol._SINCE.keys()
    falls = dataclasses.replace(config, optim=dataclasses.replace(config.optim, schedule="cosine"))
    asked = protocol.run_identity(falls, store, members)
    with pytest.raises(ArtefactError, match=r"it does not fit: optim.schedule: 'constant' there, 'cosine' asked for"):
        protocol.require_run("it", before, asked, store, "No.")
    for path, value in protocol._SINCE.items():
        section, name = path.split(".")
        assert getattr(getattr(Config(), section), name) == value
