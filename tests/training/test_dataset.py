"""What members read of a store, fold by fold."""

import dataclasses

import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.core import ensemble
from seremo_jax.data import tables
from seremo_jax.training.dataset import Data
from tests.support.toy_corpus import config_of, extracted, install_toy, make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return make_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def data(corpus):
    """Data of the toy corpus, every layer of it in the store."""
    install_toy()
    store = extracted(corpus, corpus / "workdir")
    del backbones.LOADERS["toy"]
    config = config_of(corpus, model__layer=2)
    return Data.of(config, store, tables.read_tables(corpus / "workdir")[:2], ensemble.members(config, None))


def test_statistics_of_a_fold_are_those_of_a_store_of_that_fold(data):
    """To the bit: gathered from the store as they were while it was written."""
    like_the_table = dataclasses.replace(data, splits={None: data.splits[None], 3: data.splits[None]})
    statistics = like_the_table.normalisation([None, 3])
    for layer in data.store.layers:
        for table, fold in zip(statistics[None, layer], statistics[3, layer], strict=True):
            np.testing.assert_array_equal(table, fold)
            assert table.dtype == np.float32
