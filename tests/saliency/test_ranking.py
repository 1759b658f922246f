"""The question put to the layers and its answer: the seeded draw, the layer chosen, warnings, refusals."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import ArtefactError, write_json
from seremo_jax.core.config import Config, ConfigError, from_config_dict
from seremo_jax.core.schema import RATING_SCHEMA, UTTERANCE_SCHEMA, CorpusInfo
from seremo_jax.data import policies, tables, targets
from seremo_jax.data.screening import in_fold
from seremo_jax.saliency import correlation, curves, decorrelation, probe, question, ranking, variance_shares
from seremo_jax.saliency.question import Question

N = 40
BACKBONE = {"name": "toy", "revision": "1", "dtype": "float32", "final_norm": False, "layers": [0, 1, 2]}
VOTES = {"saliency": {"targets": "votes"}}


@pytest.fixture
def workdir(tmp_path) -> Path:
    """Tables of 40 utterances, 30 of them for training, with angry, happy and no other votes and no attributes."""
    info = CorpusInfo("toy", "1", "crema6", {})
    text = {name: ["x"] * N for name in ("corpus", "release", "gender", "audio_sha256", "audio")}
    ids = [f"u{i}" for i in range(N)]
    splits = ["test" if i % 4 == 3 else "train" for i in range(N)]
    speakers = [f"s{i % 8}" for i in range(N)]
    columns = {**text, "id": ids, "split": splits, "speaker": speakers, "duration_s": [1.0] * N}
    utterances = tables.make_table(columns, UTTERANCE_SCHEMA, info)
    num_angry = np.random.default_rng(0).integers(0, 5, N)
    columns = {
        "utterance": np.repeat(ids, 4).tolist(),
        "rater": ["r"] * 4 * N,
        "modality": ["voice"] * 4 * N,
        "primary": [word for n in num_angry for word in ["angry"] * n + ["happy"] * (4 - n)],
        "secondary": [[]] * 4 * N,
        **{name: [None] * 4 * N for name in ("valence", "activation", "dominance")},
    }
    ratings = tables.make_table(columns, RATING_SCHEMA, info)
    tables.write_table(tmp_path / tables.UTTERANCES_FILE, utterances)
    tables.write_table(tmp_path / tables.RATINGS_FILE, ratings)
    write_json(tmp_path / tables.STAMP_FILE, {"fingerprint": tables.tables_fingerprint(utterances, ratings)})
    return tmp_path


def ask(workdir: Path, config: Config) -> Question:
    return question.ask(config, *tables.read_tables(workdir))


def answer(workdir: Path, config: Config, strengths: list[float]) -> np.ndarray:
    """Writes `saliency.npz` for layers that hold the share of angry as strongly as asked; returns the means."""
    asked = ask(workdir, config)
    rng = np.random.default_rng(1)
    share = asked.values[:, 3]
    means = np.stack([s * share[:, None] + rng.normal(0, 0.2, (N, 5)) for s in strengths]).astype(np.float32)
    means[1, :, 4] = 7.0  # a feature that never varies
    write(workdir, means, asked)
    return means


def write(workdir: Path, means: np.ndarray, *asked: Question) -> None:
    """Writes the sums of the questions, from the means [K, N, D] of the utterances that any of them is about."""
    drawn = np.unique(np.concatenate([one.rows for one in asked]))
    parts = [curves.part(means[:, rows], rows.tolist()) for rows in np.array_split(drawn, 2)]

    def read(shard: int, names: tuple[str, ...]) -> dict[str, np.ndarray]:
        return {name: parts[shard][name] for name in names}

    for one in asked:
        ranking.write(workdir, *curves.measure(2, read, one, len(means), True), one, BACKBONE)


def test_the_draw_is_seeded_and_from_the_training_split(workdir):
    def rows(**saliency_fields) -> list[int]:
        return ask(workdir, from_config_dict({"saliency": {"targets": "votes", **saliency_fields}})).rows.tolist()

    train = [i for i in range(N) if i % 4 != 3]
    assert rows() == train
    assert rows(num_utterances=10) == rows(num_utterances=10) == sorted(rows(num_utterances=10))
    assert set(rows(num_utterances=10)) < set(train)
    assert rows(num_utterances=10) != rows(num_utterances=10, seed=1)
    asked = ask(workdir, from_config_dict({"saliency": {"targets": "votes", "num_utterances": 10}}))
    assert np.flatnonzero(asked.mask.any(axis=1)).tolist() == asked.rows.tolist()
    assert not asked.mask[:, :3].any()
    assert asked.mask[:, 3:].sum() == 60


@pytest.mark.parametrize("policy", ["keep", "train_only", "drop"])
def test_layers_are_asked_for_the_targets_that_training_sees(workdir, policy):
    """A tie of two angry and two happy votes is no agreement: its votes count, or not, here as they do in training."""
    config = from_config_dict(VOTES | {"data": {"keep_no_agreement": policy}})
    utterances, ratings, _ = tables.read_tables(workdir)
    built = targets.build(utterances, ratings, policies.target_policies(config))
    asked = ask(workdir, config)
    np.testing.assert_array_equal(asked.mask[asked.rows, 3], built.has_votes[asked.rows])
    np.testing.assert_array_equal(asked.values[:, 3:], built.distribution)
    assert asked.mask[asked.rows, 3].all() == (policy != "drop")
    shared = config_with_ties_shared(config)
    assert (ask(workdir, shared).about == asked.about) == (policy != "drop")
    assert ask(workdir, shared).mask[asked.rows, 3].all()


def config_with_ties_shared(config: Config) -> Config:
    return dataclasses.replace(config, targets=dataclasses.replace(config.targets, tie_rule="share"))


def test_sums_made_before_a_policy_of_no_effect_stay_valid(workdir):
    """What a question is about names no setting that changes nothing, so that such a setting asks for no new pass."""
    about = ask(workdir, from_config_dict(VOTES)).about
    assert not {"data.keep_no_agreement", "targets.tie_rule", "targets.attribute_scale"} & about.keys()


def test_attributes_are_never_replaced_silently(workdir):
    with pytest.raises(ConfigError, match=r"no training utterance has any of valence.*--config.saliency.targets=votes"):
        ask(workdir, from_config_dict({}))


def test_summary(workdir):
    config = from_config_dict(VOTES)
    means = answer(workdir, config, [0.1, 2.0, 0.5])
    summary = ranking.summarise(workdir, config)
    asked = ask(workdir, config)
    with np.errstate(invalid="ignore"):
        wanted = np.array(
            [
                [
                    np.mean(
                        [abs(np.corrcoef(means[k, asked.rows, j], asked.values[asked.rows, y])[0, 1])
                         if np.ptp(means[k, asked.rows, j]) > 0 else 0.0 for j in range(5)]
                    )
                    for y in (3, 6)
                ]
                for k in range(3)
            ]
        )  # fmt: skip
    curve = summary["curves"]["ccs"]
    np.testing.assert_allclose(np.array(curve["per_layer"])[:, [3, 6]], wanted, rtol=1e-5)
    assert summary["varies"] == [False] * 3 + [True, False, False, True, False, False]
    np.testing.assert_allclose(curve["score"], wanted.mean(axis=1), rtol=1e-5)
    assert all(low < score < high for low, score, high in zip(curve["low"], curve["score"], curve["high"], strict=True))
    assert (summary["chosen"], summary["use"], summary["num_utterances"]) == (1, "votes", 30)
    assert summary["num_constant"] == [0, 1, 0]
    assert summary["targets"] == summary["attributes"] + summary["classes"]
    assert summary["warnings"] == ["features that never vary count as saliency 0: 1 in layer 1"]
    assert (workdir / "saliency.json").exists()


def test_the_last_layer_is_warned_of(workdir):
    config = from_config_dict(VOTES)
    answer(workdir, config, [0.1, 0.5, 2.0])
    summary = ranking.summarise(workdir, config)
    assert summary["chosen"] == 2
    assert "saliency chose the last layer, 2" in summary["warnings"][0]


def test_sums_of_other_settings_or_damaged_are_refused(workdir):
    config = from_config_dict(VOTES)
    with pytest.raises(ArtefactError, match=r"saliency.npz is missing; run python -m launch.extract"):
        ranking.summarise(workdir, config)
    answer(workdir, config, [1.0, 1.0, 1.0])
    other = dataclasses.replace(config, targets=dataclasses.replace(config.targets, smoothing=0.5))
    with pytest.raises(ArtefactError, match=r"targets.smoothing: 0.0 there, 0.5 asked for"):
        ranking.summarise(workdir, other)
    ranking.require(workdir, ask(workdir, config), BACKBONE)
    with pytest.raises(ArtefactError, match="revision: '1' there, '2' asked for"):
        ranking.require(workdir, ask(workdir, config), BACKBONE | {"revision": "2"})
    with pytest.raises(ConfigError, match="none of the attributes varies"):
        ranking.summarise(workdir, from_config_dict({}))
    path = workdir / "saliency.npz"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(ArtefactError, match=r"saliency.npz is damaged"):
        ranking.summarise(workdir, config)


def ccc(prediction: np.ndarray, target: np.ndarray) -> float:
    covariance = np.cov(prediction, target, bias=True)
    return 2 * covariance[0, 1] / (np.trace(covariance) + (prediction.mean() - target.mean()) ** 2)


def test_the_probe_picks_where_single_features_mislead(workdir):
    """Layer 0: every feature goes with the target, all with one noise; layer 2: two whose noise cancels."""
    config = from_config_dict({"saliency": {"targets": "votes", "kind": "probe", "num_folds": 4}})
    asked = ask(workdir, config)
    rng = np.random.default_rng(2)
    share = asked.values[:, 3] - asked.values[:, 3].mean()
    means = rng.normal(0, 1, (3, N, 5))
    means[0] = (share + rng.normal(0, 0.3, N))[:, None] + rng.normal(0, 0.01, (N, 5))
    noise = rng.normal(0, 3, N)
    means[2, :, 0], means[2, :, 1] = share + noise, share - noise
    means = means.astype(np.float32)
    write(workdir, means, asked)
    summary = ranking.summarise(workdir, config)
    assert (summary["kind"], summary["chosen"], summary["curves"]["ccs"]["chosen"]) == ("probe", 2, 0)
    assert summary["num_folds"] == 4
    assert len(set(asked.fold[asked.rows])) == 4
    curve = summary["curves"]["probe"]
    for k in range(3):
        x, y, fold = (
            means[k, asked.rows].astype(np.float64),
            asked.values[asked.rows, 3],
            asked.fold[asked.rows],
        )
        prediction = np.zeros(len(y))
        for f in range(4):
            train = fold != f
            scaler = StandardScaler().fit(x[train])
            ridge = Ridge(alpha=curve["ridge"][k][3] * train.sum()).fit(scaler.transform(x[train]), y[train])
            prediction[~train] = ridge.predict(scaler.transform(x[~train]))
        assert curve["per_layer"][k][3] == pytest.approx(ccc(prediction, y), abs=1e-5)
    assert curve["ridge"][0][0] is None  # no attributes here
    assert set(np.array(curve["ridge"])[:, 3]) <= set(probe.RIDGES)
    assert curve["behind"][2] == curve["behind_low"][2] == curve["behind_high"][2] == 0
    assert curve["behind_low"][1] > 0


def copies_and_cues(asked: Question) -> np.ndarray:
    """Means [3, N, 8]: layer 0 has copies of one weak cue of the share of angry, layer 2 two halves of the share."""
    rng = np.random.default_rng(5)
    share = asked.values[:, 3] - asked.values[:, 3].mean()
    means = rng.normal(0, 1, (3, N, 8))
    means[0] = (share + rng.normal(0, 0.6, N))[:, None] + rng.normal(0, 0.05, (N, 8))
    half = rng.normal(0, 0.5, N)
    means[2, :, 0], means[2, :, 1] = share + half, share - half
    return means.astype(np.float32)


def test_the_multiple_correlation_picks_where_copies_mislead(workdir):
    config = from_config_dict({"saliency": {"targets": "votes", "kind": "dccs"}, "model": {"top_features": 2}})
    asked = ask(workdir, config)
    means = copies_and_cues(asked)
    write(workdir, means, asked)
    summary = ranking.summarise(workdir, config)
    assert (summary["kind"], summary["chosen"], summary["curves"]["ccs"]["chosen"]) == ("dccs", 2, 0)
    curve, targets = summary["curves"]["dccs"], asked.values[asked.rows][:, [3, 6]]
    for k in range(3):
        rows = decorrelation.standardised(means[k, asked.rows])
        alone = decorrelation.compute(decorrelation.update(decorrelation.empty(1, 8, 2), rows[None], targets))
        np.testing.assert_allclose(np.array(curve["per_layer"])[k, [3, 6]], alone.multiple[0], rtol=1e-9)
        assert curve["score"][k] == pytest.approx(alone.multiple.mean())
        assert curve["shrinkage"][k][3] == pytest.approx(alone.shrinkage[0])
        assert curve["low"][k] < curve["score"][k] < curve["high"][k]
    assert not np.array(curve["per_layer"])[:, [0, 1, 2, 4, 5, 7, 8]].any()
    features = ranking.top_features(workdir, config, [2])[2]
    np.testing.assert_array_equal(features, [0, 1])
    by_ccs = dataclasses.replace(config, saliency=dataclasses.replace(config.saliency, kind="ccs"))
    single = correlation.compute(ranking.read(workdir)[0]).correlation[2, :, [3, 6]].mean(axis=0)
    assert set(ranking.top_features(workdir, by_ccs, [2])[2]) == set(np.argsort(-single)[:2])


def test_no_number_of_shards_changes_a_bit_of_it(workdir):
    config = from_config_dict(VOTES)
    asked = ask(workdir, config)
    means = copies_and_cues(asked)

    def measured(num_shards: int) -> ranking.Curves:
        parts = [curves.part(means[:, rows], rows.tolist()) for rows in np.array_split(asked.rows, num_shards)]
        return curves.measure(num_shards, lambda s, names: {n: parts[s][n] for n in names}, asked, 3, True)[1]

    one, many = measured(1), measured(7)
    for name in ("multiple", "multiple_without", "shrinkage", "feature_scores"):
        np.testing.assert_array_equal(getattr(one, name), getattr(many, name))
    np.testing.assert_array_equal(one.shares["speaker"], many.shares["speaker"])


def test_what_else_a_layer_holds(workdir):
    """Speakers are known, all of one gender, and this table has no sentences."""
    config = from_config_dict(VOTES)
    asked = ask(workdir, config)
    means = copies_and_cues(asked)
    speakers = np.array(tables.read_tables(workdir)[0]["speaker"].to_pylist())[asked.rows]
    value = np.unique(speakers, return_inverse=True)[1].astype(np.int32)
    means[1, asked.rows] += 2 * value[:, None]
    write(workdir, means, asked)
    shares = ranking.summarise(workdir, config)["variance_shares"]
    for k in range(3):
        wanted = variance_shares.share(means[k, asked.rows], value, asked.group[asked.rows])
        assert shares["speaker"]["share"][k] == pytest.approx(wanted[0])
    assert shares["speaker"]["num_values"] == 6
    assert shares["speaker"]["share"][1] > 0.8 > shares["speaker"]["high"][0]
    assert shares["speaker"]["low"][1] < shares["speaker"]["share"][1] < shares["speaker"]["high"][1]
    assert shares["gender"] == {"absent": "too few known genders, or one utterance of each"}
    assert shares["sentence"] == {"absent": "the utterance table has no column sentence"}


def test_sums_of_an_older_version_serve_the_curves_they_have(workdir):
    """A file from before there was a multiple correlation, as `tests/golden/before_rooms` has one."""
    config = from_config_dict({"saliency": {"targets": "votes", "kind": "ccs"}})
    answer(workdir, config, [0.1, 2.0, 0.5])
    before = ranking.summarise(workdir, config)
    arrays = dict(np.load(workdir / "saliency.npz"))
    about = json.loads(str(arrays.pop("about")))
    del about["num_values"]
    new = ("curves.multiple", "curves.multiple_without", "curves.shrinkage", "curves.feature_scores", "shares.")
    old = {name: values for name, values in arrays.items() if not name.startswith(new)}
    np.savez(workdir / "saliency.npz", about=np.array(json.dumps(about)), **old)
    summary = ranking.summarise(workdir, config)
    assert summary["curves"]["dccs"] is None
    assert {kind: summary["curves"][kind] for kind in ("ccs", "probe")} == {
        kind: before["curves"][kind] for kind in ("ccs", "probe")
    }
    assert all(
        entry["absent"].startswith("saliency.npz was made before") for entry in summary["variance_shares"].values()
    )
    assert any("made before there was a curve dccs" in warning for warning in summary["warnings"])
    remedy = r"delete saliency.npz and run python -m launch.extract again, or set --config.saliency.kind=ccs or probe"
    dccs = {"saliency": {"targets": "votes", "kind": "dccs"}}
    with pytest.raises(ConfigError, match=rf"saliency.kind = 'dccs'.*{remedy}"):
        ranking.summarise(workdir, from_config_dict(dccs))
    with pytest.raises(ArtefactError, match=rf"lacks scores of features by dccs: {remedy}"):
        ranking.top_features(workdir, from_config_dict(dccs | {"model": {"top_features": 2}}), [1])


def test_speakers_are_dealt_by_name_and_seed(workdir):
    config = from_config_dict({"saliency": {"targets": "votes", "num_folds": 3}})
    utterances, ratings, fingerprint = tables.read_tables(workdir)
    asked = question.ask(config, utterances, ratings, fingerprint)
    speakers = utterances["speaker"].to_pylist()
    fold_of = {speakers[row]: asked.fold[row] for row in asked.rows}
    assert all(asked.fold[row] == fold_of[speakers[row]] for row in asked.rows)
    assert sorted(np.bincount(list(fold_of.values()))) == [2, 2, 2]
    assert len({speakers[row]: asked.group[row] for row in asked.rows}) == asked.group.max() + 1 == 6
    assert set(asked.fold[~asked.is_drawn]) == {-1}
    backwards = question.ask(config, utterances.take(list(range(N))[::-1]), ratings, fingerprint)
    np.testing.assert_array_equal(backwards.fold[::-1], asked.fold)
    other = from_config_dict({"saliency": {"targets": "votes", "num_folds": 3, "seed": 5}})
    assert question.ask(other, utterances, ratings, fingerprint).fold.tolist() != asked.fold.tolist()


def test_one_speaker_has_no_probe_and_says_so(workdir):
    utterances, ratings, _ = tables.read_tables(workdir)
    column = utterances.schema.get_field_index("speaker")
    utterances = utterances.set_column(column, utterances.schema.field(column), [["unknown"] * N])
    tables.write_table(workdir / tables.UTTERANCES_FILE, utterances)
    write_json(workdir / tables.STAMP_FILE, {"fingerprint": tables.tables_fingerprint(utterances, ratings)})
    answer(workdir, from_config_dict(VOTES), [0.1, 2.0, 0.5])
    summary = ranking.summarise(workdir, from_config_dict(VOTES))
    assert summary["curves"]["probe"] is None
    assert summary["curves"]["ccs"]["low"] == [None, None, None]
    assert "no probe of the layers" in summary["warnings"][-1]
    with pytest.raises(ConfigError, match=r"saliency.kind=ccs, or --config.data.unknown_speakers=each"):
        ranking.summarise(workdir, from_config_dict({"saliency": {"targets": "votes", "kind": "probe"}}))


@pytest.mark.parametrize("kind", ["ccs", "dccs", "probe"])
def test_each_fold_chooses_as_it_would_alone(workdir, tmp_path, kind):
    """The layer of a fold is that of an experiment of this fold, whose table has its splits, to the bit."""
    tree = VOTES | {"data": {"split_kind": "kfold", "num_folds": 4, "keep_no_agreement": "train_only"}}
    tree["saliency"] = VOTES["saliency"] | {"kind": kind, "num_folds": 3}
    config = from_config_dict(tree | {"ensemble": {"folds": (0, 2, 3)}})
    utterances, ratings, fingerprint = tables.read_tables(workdir)
    write_json(workdir / tables.STAMP_FILE, tables.stamp(config, utterances, ratings))
    asked = list(question.ask_all(config, utterances, ratings, fingerprint))
    assert [one.split_fold for one in asked] == [None, 0, 2, 3]
    # A layer is good for the training speakers of one fold and says nothing of the speakers that this fold tests.
    rng, share = np.random.default_rng(3), asked[0].values[:, 3]
    means = rng.normal(0, 0.5, (3, N, 5)).astype(np.float32)
    for layer, one in enumerate(asked[1:]):
        means[layer, one.rows] += share[one.rows, None]
    write(workdir, means, *asked)
    by_fold = {entry["fold"]: entry for entry in ranking.summarise(workdir, config)["folds"]}
    assert {fold: entry["chosen"] for fold, entry in by_fold.items()} == {0: 0, 2: 1, 3: 2}
    assert ranking.chosen_layers(ranking.summarise(workdir, config)) == (0, 1, 2)
    members = ensemble.members_in(workdir, config)
    assert [(member.fold, member.layer) for member in members] == [(0, 0), (2, 1), (3, 2)]
    for fold, entry in by_fold.items():
        alone = tmp_path / str(fold)
        alone.mkdir()
        single = from_config_dict(tree | {"data": tree["data"] | {"fold": fold}})
        table = in_fold(utterances, config.data, fold)
        tables.write_table(alone / tables.UTTERANCES_FILE, table)
        tables.write_table(alone / tables.RATINGS_FILE, ratings)
        write_json(alone / tables.STAMP_FILE, tables.stamp(single, table, ratings))
        write(alone, means, ask(alone, single))
        summary = ranking.summarise(alone, single)
        assert summary["chosen"] == entry["chosen"]
        assert summary["curves"][kind].items() <= entry.items()
        assert summary["num_utterances"] == entry["num_utterances"]


def test_folds_that_no_layer_was_chosen_for_are_named(workdir):
    kfold = VOTES | {"data": {"split_kind": "kfold", "num_folds": 4}}
    config = from_config_dict(kfold | {"ensemble": {"folds": (0, 2)}})
    write_json(workdir / tables.STAMP_FILE, tables.stamp(config, *tables.read_tables(workdir)[:2]))
    write(workdir, np.random.default_rng(0).normal(size=(3, N, 5)).astype(np.float32), ask(workdir, config))
    with pytest.raises(ArtefactError, match=r"saliency_fold0.npz is missing; run python -m launch.extract"):
        ranking.summarise(workdir, config)
    ranking.summarise(workdir, from_config_dict(kfold))
    with pytest.raises(ArtefactError, match=r"folds that .*saliency.json chose layers for.*\[\] there, \[0, 2\] asked"):
        ensemble.members_in(workdir, config)
