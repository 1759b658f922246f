"""What members read of a store, fold by fold."""

import dataclasses

import numpy as np
import pytest

from seremo_jax import backbones
from seremo_jax.core import ensemble
from seremo_jax.data import tables
from seremo_jax.data.screening import with_column
from seremo_jax.data.splits import DERIVED
from seremo_jax.predict import model_folder
from seremo_jax.saliency.question import ask
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


@pytest.mark.parametrize("policy", ["keep", "drop", "train_only"])
def test_the_split_column_of_the_table_says_nothing_of_other_folds(corpus, data, policy):
    """The column is that of fold 0. Shuffled, it changes nothing that members of other folds read, layers included."""
    changes = {"data__split_kind": "kfold", "data__keep_no_agreement": policy, "ensemble__folds": (1, 2)}
    changes["loss__speaker_balance"] = 0.5
    config = config_of(corpus, **changes)
    utterances, ratings, fingerprint = tables.read_tables(corpus / "workdir")
    splits = utterances["split"].to_pylist()
    other = with_column(utterances, "split", splits[7:] + splits[:7])
    assert other["split"].to_pylist() != splits
    members = ensemble.members(config, {1: 0, 2: 3})

    def read(table):
        here = Data.of(config, data.store, (table, ratings), members)
        yield here.splits
        yield here.labels()._asdict()
        yield [here.labelled_rows(fold, split) for fold in (1, 2) for split in DERIVED]
        yield here.class_weights(members)
        yield here.weights(members)
        yield here.normalisation([1, 2])
        yield here.is_heard(members)
        yield here.is_heard(members[1:])
        yield model_folder.describe_attributes(config, table, ratings, here.targets, here.is_heard(members))
        yield [dataclasses.asdict(ask(config, table, ratings, fingerprint, fold)) for fold in (1, 2)]

    for ours, theirs in zip(read(utterances), read(other), strict=True):
        np.testing.assert_equal(theirs, ours)
    # The reader of the column itself does change.
    assert not np.array_equal(ask(config, other, ratings, "").rows, ask(config, utterances, ratings, "").rows)
    # Members read the layers of their own folds.
    here = Data.of(config, data.store, (utterances, ratings), members)
    assert [here.layers_of(member) for member in members] == [(0,), (3,)]
