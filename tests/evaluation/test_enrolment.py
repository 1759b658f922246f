"""Curves over utterances of test speakers: who is enrolled, who is scored, and by which numbers."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pytest

from seremo_jax.core import ensemble, vocab
from seremo_jax.core.artefacts import ArtefactError
from seremo_jax.core.config import ConfigError, from_config_dict
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.evaluation import enrolment, prototypes
from seremo_jax.evaluation import records as result_records
from seremo_jax.evaluation.speaker_priors import TrainingPriors
from seremo_jax.metrics import class_priors
from seremo_jax.metrics import prototypes as class_prototypes
from seremo_jax.reports import benchmark
from seremo_jax.training import model
from seremo_jax.training.selection import Predicted
from seremo_jax.training.zscore import normalise
from tests.support import toy_training

SPEAKERS, OF_EACH, C, SIZE = 5, 12, 4, 3
NUM = SPEAKERS * OF_EACH
SECTION = EvalConfig(enrolment=(1, 3), enrolment_draws=2, enrolment_kappa=1.5, enrolment_weight=1.0,
                     speaker_prior_kappa=3.0, num_resamples=20, num_permutations=10)  # fmt: skip
MEMBERS = ensemble.members(
    from_config_dict({"model": {"layer": 2}, "data": {"split_kind": "kfold"},
                      "ensemble": {"seeds": (0, 1), "folds": (0, 1)}}), None,
)  # fmt: skip


def table(order=range(NUM)):
    """Six speakers, the last of whom is not known by name; even ones are of the first fold."""
    names = [f"s{i // OF_EACH}" for i in range(NUM)]
    columns = {"id": [f"u{i:02}" for i in range(NUM)], "corpus": ["toy"] * NUM, "split": ["test"] * NUM,
               "speaker": [vocab.UNKNOWN if name == "s4" else name for name in names],
               "gender": [("female", "male")[i // OF_EACH % 2] for i in range(NUM)]}  # fmt: skip
    return pa.table({name: [values[i] for i in order] for name, values in columns.items()})


def curves(order=None, section=SECTION):
    """Curves of a table in some order, and its targets; of every fifth utterance raters do not agree."""
    order = np.arange(NUM) if order is None else order
    rng = np.random.default_rng(0)
    label = np.where(np.arange(NUM) % 5 == 4, -1, rng.integers(0, C, NUM))
    drawn = toy_training.targets(NUM)
    p = rng.dirichlet(np.ones(C), NUM).astype(np.float32)
    vectors = rng.normal(size=(2, NUM, SIZE)) + label[None, :, None]
    q = rng.dirichlet(np.ones(C), (2, NUM))
    targets = dataclasses.replace(
        drawn, ids=np.array([f"u{i:02}" for i in order], object), distribution=p[order],
        consensus_index=label[order].astype(np.int32), votes=np.round(6 * p[order]).astype(np.int32),
        consensus=np.eye(C, dtype=np.float32)[label[order]] * (label[order] >= 0)[:, None],
        has_consensus=label[order] >= 0,
    )  # fmt: skip
    fold = order // OF_EACH % 2
    parts = []
    for f in range(2):
        rows = np.flatnonzero(fold == f)
        ours = np.array([e for e, member in enumerate(MEMBERS) if member.fold == f])
        parts.append(Predicted(ours, rows, np.zeros((2, len(rows), 3), np.float32), q[:, order[rows]],
                               embedding=vectors[:, order[rows]]))  # fmt: skip
    heads = enrolment.Heads.of(parts, MEMBERS)
    learned = np.random.default_rng(1)
    means = [class_prototypes.class_means(learned.normal(size=(30, SIZE)), np.eye(C)[learned.integers(0, C, 30)])
             for _ in MEMBERS]  # fmt: skip
    known = prototypes.Prototypes(learned.dirichlet(np.full(C, 5.0), len(MEMBERS)), tuple(means))
    who = enrolment.speakers(heads, table(order), targets, max(section.enrolment), section.seed)
    return enrolment.Curves(heads, who, targets, MEMBERS, known, None, section)


@pytest.fixture(scope="module")
def made():
    return curves()


def test_no_enrolled_utterance_is_scored_and_more_hold_fewer(made):
    assert len(made.speakers) == 4  # nobody knows who the fifth is
    for speaker in made.speakers:
        assert len(speaker.scored) == 6
        drawn = [{size: speaker.enrolled(0, draw, size) for size in (1, 3)} for draw in range(2)]
        for by_size in drawn:
            assert not set(by_size[3]) & set(speaker.scored)
            assert by_size[3][0] == by_size[1][0]
            assert (made.targets.consensus_index[by_size[3]] >= 0).all()
        for size in (1, 2, 5, 40):
            beside = speaker.beside(0, 0, size)
            assert beside.shape == (6, min(size, 12))
            np.testing.assert_array_equal(beside[:, 0], speaker.scored)
            assert all(len(set(row)) == len(row) and set(row) <= set(speaker.every) for row in beside.tolist())
    assert any(set(speaker.enrolled(0, 0, 3)) != set(speaker.enrolled(0, 1, 3)) for speaker in made.speakers)


def test_points_are_those_of_plain_numbers(made):
    heads = made.heads
    after = made.enrolled(3, 1)
    for speaker in made.speakers:
        rows = speaker.enrolled(0, 1, 3)
        for m in range(2):
            means = made.known.means[next(e for e, x in enumerate(MEMBERS) if (x.fold, x.seed) == (speaker.fold, m))]
            own = means.mean.copy()
            for c in set(made.targets.consensus_index[rows].tolist()):
                here = heads.embedding[m][[row for row in rows if made.targets.consensus_index[row] == c]]
                own[c] = (here.sum(0) + 1.5 * means.mean[c]) / (len(here) + 1.5)
            for i in speaker.scored:
                e, q = heads.embedding[m, i], heads.distribution[m, i]
                near = [[(e - mu) @ means.precision @ (e - mu) for mu in mus] for mus in (own, means.mean)]
                expected = q * np.exp(-0.5 * (np.array(near[0]) - np.array(near[1])))
                np.testing.assert_allclose(after[m, i], expected / expected.sum(), rtol=1e-9)
    untouched = np.setdiff1d(np.arange(NUM), np.concatenate([speaker.scored for speaker in made.speakers]))
    np.testing.assert_array_equal(after[:, untouched], heads.distribution[:, untouched])
    ((_, mean, _),) = heads.models()
    given = heads.distribution.mean(0)
    for size in (1, 5, None):
        corrected = made.with_prior(given, mean, size, 1)
        for speaker in made.speakers:
            prior = made.known.prior[[e for e, member in enumerate(MEMBERS) if member.fold == speaker.fold]].mean(0)
            beside = [speaker.every] * 6 if size is None else speaker.beside(0, 1, size)
            for i, rows in zip(speaker.scored, beside, strict=True):
                own = class_priors.fit(given[None, rows], prior[None], 3.0)[0]
                expected = given[i] * own / prior
                np.testing.assert_allclose(corrected[i], expected / expected.sum(), rtol=1e-8)


def test_records_do_not_depend_on_the_order_of_the_table_and_make_a_table(made, tmp_path):
    card = {"corpus": "toy", "notes": [], "settings": {"eval.num_resamples": 20}, "commit": "c"}
    records = enrolment.records(made, table(), "test", card)
    order = np.random.default_rng(5).permutation(NUM)
    others = enrolment.records(curves(order), table(order), "test", card)
    assert [record.metrics for record in records] == [record.metrics for record in others]
    whole = {record.system: record for record in records if record.group == "all"}
    assert list(whole) == [
        "mean of 2 heads, votes", "mean of 2 heads, 1 enrolled, votes", "mean of 2 heads, 3 enrolled, votes",
        *(f"mean of 2 heads, prior of the speaker, {words} (transductive), votes"
          for words in ("1 utterance", "2 utterances", "5 utterances", "10 utterances", "all utterances")),
    ]  # fmt: skip
    base = whole["mean of 2 heads, votes"]
    assert base.num_utterances == 24
    assert all(record.num_scored == base.num_scored for record in whole.values())
    assert len(base.metrics["UAR"]["members"]) == 2
    assert {row["than"] for row in whole["mean of 2 heads, 3 enrolled, votes"].states["differences"]} == {base.system}
    (tmp_path / "w" / "enrolment").mkdir(parents=True)
    for folder in (tmp_path / "w", tmp_path / "w" / "enrolment"):
        result_records.write(folder / result_records.FILE, records)
    built = benchmark.build("enrolment", [tmp_path / "w"])
    first = built.parts[0]
    assert [row.labels[1] for row in first.rows] == ["none", "1", "3"]
    assert [row.labels[1] for row in built.parts[1].rows] == ["none", "1", "2", "5", "10", "all"]
    assert (
        first.rows[2].cells[0].numbers["value"] == whole["mean of 2 heads, 3 enrolled, votes"].metrics["UAR"]["value"]
    )
    assert first.rows[0].cells[-1].numbers["value"] == min(speaker["uar"][0] for speaker in base.speakers)
    names = [path.name for path in benchmark.write(built, tmp_path / "out")]
    assert names == ["enrolment.md", "enrolment.csv", "enrolment.tex", "enrolment.png"]
    assert (tmp_path / "out" / "enrolment.png").read_bytes()[:4] == b"\x89PNG"


def test_too_few_utterances_are_refused():
    with pytest.raises(ArtefactError, match="asks for 9 labelled utterances of a speaker, and of 0 test speakers"):
        curves(section=dataclasses.replace(SECTION, enrolment=(1, 9)))
    with pytest.raises(ConfigError, match=r"eval\.enrolment must be at least 1, is 0"):
        from_config_dict({"eval": {"enrolment": (0, 1)}})


def test_embeddings_and_prototypes_of_a_training_are_those_of_each_utterance_alone():
    config = toy_training.config(ensemble={"layers": (2,), "class_targets": ("votes",), "seeds": (0, 1)})
    mesh = toy_training.mesh(1)
    loop = toy_training.loop(config, mesh)
    params = loop.canonical_state().params
    data, members = toy_training.data_of(config), loop.members
    known = prototypes.of_training(data, TrainingPriors.of(data, members), params, mesh)
    rows = [i for i in range(toy_training.NUM) if i % 4]
    mean, sd = (values[0] for values in data.store.arrays("norm").values())
    sizes = model.Sizes(num_features=3, num_attributes=3, num_classes=4, gru_units=6, gru_layers=1, embedding_size=5)
    apply = jax.jit(functools.partial(model.apply, sizes))
    for e in range(2):
        own = jax.tree.map(lambda x, e=e: x[e], params)
        vectors = []
        for frames in data.store.read(2, rows):
            valid = jnp.ones((len(frames), 1), bool)
            features = normalise(jnp.asarray(frames)[:, None], valid, jnp.asarray(mean), jnp.asarray(sd))
            reset = np.arange(len(frames))[:, None] == 0
            inputs = features, reset, np.zeros(reset.shape, np.int32), np.array([len(frames) - 1])
            vectors.append(np.asarray(apply(own, *inputs).embedding[0], np.float64))
        has = data.targets.has_consensus[rows]
        label = data.targets.consensus_index[rows]
        for c in range(4):
            expected = np.mean([v for v, h, y in zip(vectors, has, label, strict=True) if h and y == c], axis=0)
            np.testing.assert_allclose(known.means[e].mean[c], expected, rtol=0, atol=2e-6)
    again = prototypes.Prototypes.from_arrays(known.arrays(), (2, 4, 5))
    np.testing.assert_array_equal(again.means[1].precision, known.means[1].precision)
    with pytest.raises(ValueError, match="mean is no finite array of shape"):
        prototypes.Prototypes.from_arrays(known.arrays(), (2, 4, 6))
