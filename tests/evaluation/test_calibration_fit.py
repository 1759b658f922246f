"""What the development split says of members, systems and folds; what becomes of it in files and for utterances."""

import dataclasses
import json
import math

import numpy as np
import pytest

from seremo_jax.core import ensemble
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.schema import Predictions
from seremo_jax.evaluation import calibration_fit, mean_heads
from seremo_jax.evaluation.calibration_fit import Applied, Development
from seremo_jax.metrics import calibration, conformal

AXES = {"class_targets": ("votes", "consensus"), "seeds": (0, 1), "folds": (0, 1)}
MEMBERS = ensemble.members(
    from_config_dict({"model": {"layer": 2}, "data": {"split_kind": "kfold"}, "ensemble": AXES}), None
)
NAMES = ensemble.names(MEMBERS)
C, LEVEL = 4, 0.8


def development(fold, number=60, seed=0):
    """What the members of a fold say; one utterance has no votes."""
    rng = np.random.default_rng(seed + fold)
    ours = np.array([m for m, member in enumerate(MEMBERS) if member.fold == fold])
    logits = rng.normal(size=(number, C))
    votes = np.stack([rng.multinomial(5, p) for p in np.exp(logits) / np.exp(logits).sum(1, keepdims=True)])
    said = np.exp(1.5 * (logits + 0.5 * rng.normal(size=(len(ours), number, C))))
    has_votes = np.arange(number) != 3
    return Development(
        fold, ours, said / said.sum(-1, keepdims=True), votes / 5 * has_votes[:, None], has_votes,
        [("female", "male", "unknown")[i % 5 % 3] for i in range(number)],
    )  # fmt: skip


@pytest.fixture(scope="module")
def parts():
    return [development(0), development(1)]


@pytest.fixture(scope="module")
def fitted(parts):
    return calibration_fit.fit(parts, MEMBERS, LEVEL)


def test_every_member_and_every_system_of_a_fold_is_fitted(parts, fitted):
    assert len(fitted.by_members) == 8 + 4
    item = parts[1]
    has, p = item.has_votes, item.distribution.astype(np.float64)
    places = [i for i, m in enumerate(item.members) if MEMBERS[m].class_target == "consensus"]
    names = frozenset(NAMES[item.members[i]] for i in places)
    actual = fitted.by_members[names]
    mean, shares = p[places].mean(0)[has], item.shares[has]
    assert actual.num_utterances == 59
    assert actual.temperature == calibration.fit_temperature(mean, shares)
    at = calibration.tempered(mean, actual.temperature)
    assert actual.log_loss == pytest.approx(-(shares * np.log(mean)).sum(1).mean())
    assert actual.log_loss_calibrated == pytest.approx(-(shares * np.log(at)).sum(1).mean())
    assert actual.log_loss_calibrated < actual.log_loss
    assert actual.lac == conformal.threshold(-at, shares, LEVEL)
    women = np.array(item.genders)[has] == "female"
    assert actual.lac_by_gender["female"] == conformal.threshold(-at[women], shares[women], LEVEL)
    assert actual.lac_by_gender.keys() == {"female", "male", "unknown"}


def test_folds_are_looked_up_by_members_without_them(fitted):
    pooled = list(dict.fromkeys(dataclasses.replace(member, fold=None) for member in MEMBERS))
    votes = pooled[:2]
    for wanted in ([pooled[0]], votes, pooled[2:]):
        actual = fitted.in_folds(wanted, (1, 0))
        for fold, item in zip((1, 0), actual, strict=True):
            expected = {NAMES[MEMBERS.index(dataclasses.replace(member, fold=fold))] for member in wanted}
            assert set(item.members) == expected
    assert fitted.in_folds([pooled[0], pooled[2]], (0, 1)) is None  # never fitted together
    assert fitted.in_folds(votes, (0, 5)) is None
    empty = Predictions(np.array(["u"]), np.zeros((4, 1, 3), np.float32), np.full((4, 1, C), 0.25, np.float32))
    _, named = mean_heads.with_means(empty, pooled, ("seeds",))
    assert [member.seed for member in named[4:]] == [ensemble.MEAN] * 2
    for mean, behind in zip(named[4:], (votes, pooled[2:]), strict=True):
        assert fitted.in_folds([mean], (0, 1)) == fitted.in_folds(behind, (0, 1))


def test_a_mean_over_class_losses_is_fitted_too():
    axes = {"class_kinds": ("ccc", "kl"), "dropouts": (0.1, 0.2), "seeds": (0, 1)}
    members = ensemble.members(from_config_dict({"model": {"layer": 2}, "ensemble": axes}), None)
    rng = np.random.default_rng(0)
    said = rng.dirichlet(np.ones(C), (8, 40))
    item = Development(None, np.arange(8), said, rng.dirichlet(np.ones(C), 40), np.ones(40, bool), ["male"] * 40)
    fitted = calibration_fit.fit([item], members, LEVEL)
    given = Predictions(np.array(["u"]), np.zeros((8, 1, 3), np.float32), np.full((8, 1, C), 0.25, np.float32))
    _, named = mean_heads.with_means(given, members, ("class_kinds",))
    names = np.array(ensemble.names(members))
    for mean, rate in zip(named[8:], (0.1, 0.2), strict=True):
        ours = [i for i, member in enumerate(members) if member.dropout == rate]
        (actual,) = fitted.in_folds([mean], (None,))
        assert set(actual.members) == set(names[ours])
        assert actual.temperature == calibration.fit_temperature(said[ours].mean(0), item.shares)


def test_each_utterance_has_the_thresholds_of_its_fold_and_gender(fitted):
    pooled = dataclasses.replace(MEMBERS[0], fold=None)
    first, second = fitted.in_folds([pooled], (0, 1))
    second = dataclasses.replace(second, lac_by_gender={"female": -0.123})
    applied = Applied.of([first, second], np.array([0, 1, 1]), ["male", "male", "female"])
    assert applied.temperature.tolist() == [first.temperature, second.temperature, second.temperature]
    assert applied.lac.tolist() == [first.lac, second.lac, second.lac]
    assert applied.lac_by_gender.tolist() == [first.lac_by_gender["male"], second.lac, -0.123]


def test_no_votes_fit_nothing_and_few_fit_no_sets(parts, tmp_path):
    silent = dataclasses.replace(parts[0], has_votes=np.zeros(60, bool))
    assert calibration_fit.fit([silent], MEMBERS, LEVEL).by_members == {}
    assert calibration_fit.fit([], MEMBERS, LEVEL).in_folds([MEMBERS[0]], (0,)) is None
    half = calibration_fit.fit([silent, parts[1]], MEMBERS, LEVEL)
    assert half.in_folds([dataclasses.replace(MEMBERS[0], fold=None)], (0, 1)) is None
    few = calibration_fit.fit([development(0, number=4)], MEMBERS, LEVEL)  # three have votes; four would do
    item = next(iter(few.by_members.values()))
    assert (item.num_utterances, item.lac, item.lac_by_gender) == (3, math.inf, {})
    path = tmp_path / calibration_fit.FILE
    calibration_fit.write(path, few, "c")
    entry = json.loads(path.read_text())["entries"][0]
    assert entry["lac"] is None
    assert entry["temperature"] == item.temperature
    actual = calibration_fit.of_members(tmp_path, entry["members"], "c")
    assert actual == {"temperature": item.temperature, "conformal_threshold": None, "level": LEVEL, "num_utterances": 3}


def test_an_exported_model_takes_what_was_fitted_for_exactly_its_members(fitted, tmp_path):
    calibration_fit.write(tmp_path / calibration_fit.FILE, fitted, "c")
    pair = [NAMES[m] for m, member in enumerate(MEMBERS) if (member.fold, member.class_target) == (1, "votes")]
    actual = calibration_fit.of_members(tmp_path, pair[::-1], "c")
    item = fitted.by_members[frozenset(pair)]
    assert actual == {
        "temperature": item.temperature, "conformal_threshold": -item.lac, "level": LEVEL, "num_utterances": 59
    }  # fmt: skip
    assert calibration_fit.of_members(tmp_path, [NAMES[0], NAMES[4]], "c") == calibration_fit.NOTHING  # of two folds
    assert calibration_fit.of_members(tmp_path / "nowhere", pair, "c") == calibration_fit.NOTHING
