"""Calibration, sets and abstention in result records: against plain loops, by group and fold, and on the page."""

import dataclasses
import json

import numpy as np
import pyarrow as pa
import pytest
import scipy.stats

from seremo_jax.core import ensemble
from seremo_jax.core.artefacts import to_json
from seremo_jax.core.config import from_config_dict
from seremo_jax.core.config_fields import EvalConfig
from seremo_jax.evaluation import calibration_fit, calibration_scores, calibration_sums, mean_heads
from seremo_jax.evaluation.alignment import align
from seremo_jax.evaluation.calibration_sums import Heard
from seremo_jax.metrics import calibration, intervals, resampling
from seremo_jax.reports import blocks, calibration_section, look, page
from tests.evaluation.test_scoring import CLASSES, NUM_ROWS, parts, score
from tests.metrics.test_calibration import ece

__all__ = ["parts"]

LEVEL, FOLDS = 0.9, (0, 1)
SECTION = dataclasses.replace(EvalConfig(), num_resamples=60, coverage=LEVEL, nbest=(1, 2))
AXES = {"class_targets": ("votes", "consensus"), "seeds": (0, 1), "folds": FOLDS}
TRAINED = ensemble.members(
    from_config_dict({"model": {"layer": 2}, "data": {"split_kind": "kfold"}, "ensemble": AXES}), None
)
POOLED = list(dict.fromkeys(dataclasses.replace(member, fold=None) for member in TRAINED))
ROWS = {0: np.arange(NUM_ROWS)[::3], 1: np.setdiff1d(np.arange(NUM_ROWS), np.arange(NUM_ROWS)[::3])}
CARD = {
    "corpus": "made", "release": "1", "is_simulated": True, "notes": ["A note."], "split_hash": "5911ab",
    "backbone": "logmel", "settings": {"eval.num_resamples": 60, "eval.nbest": [1, 2], "eval.calibrate": True},
}  # fmt: skip


@pytest.fixture(scope="module")
def fitted():
    """On other utterances: 70 a fold, with members that are too sure."""
    rng, result = np.random.default_rng(1), []
    for fold in FOLDS:
        shares = rng.dirichlet(np.full(6, 0.6), 70)
        ours = np.array([m for m, member in enumerate(TRAINED) if member.fold == fold])
        said = calibration.tempered(0.6 * shares + 0.4 / 6 + 0 * shares, 0.4 + 0.2 * fold)
        said = np.stack([0.9 * said + 0.1 * rng.dirichlet(np.ones(6), 70) for _ in ours])
        genders = [("female", "male")[i % 2] for i in range(70)]
        result.append(calibration_fit.Development(fold, ours, said, shares, np.ones(70, bool), genders))
    return calibration_fit.fit(result, TRAINED, LEVEL)


@pytest.fixture(scope="module")
def aligned(parts):
    predictions, targets, table = parts
    return align(predictions, targets, table, num_members=4, split="test", group_by="gender")


def added(parts, aligned, fitted, pooled=POOLED, **options):
    records = score(*parts, members=[vars(member) for member in pooled], protocol=CARD, nbest=SECTION.nbest, **options)
    ids, systems = parts[1].ids, ensemble.systems([*map(vars, pooled)])
    return calibration_scores.with_calibration(records, aligned, fitted, (systems, pooled), ROWS, ids, SECTION)


@pytest.fixture(scope="module")
def records(parts, aligned, fitted):
    return {(record.system, record.group): record for record in added(parts, aligned, fitted)}


def expected(aligned, fitted, rows, is_in):
    """Everything again for the mean of some members, utterance by utterance."""
    by_fold = fitted.in_folds([POOLED[row] for row in rows], FOLDS)
    p = aligned.predictions_distribution[rows].astype(float).mean(0)
    fold = np.isin(np.arange(NUM_ROWS), ROWS[1]).astype(int)  # ids are in order
    fit = [by_fold[f] for f in fold]
    q = np.stack([np.exp(np.log(x) / item.temperature) for x, item in zip(p, fit, strict=True)])
    q /= q.sum(1, keepdims=True)
    genders = [aligned.genders[unit] for unit in aligned.unit]
    at = np.array([item.lac for item in fit])
    sets = {"": q >= -at[:, None]}
    of_gender = np.array([item.lac_by_gender.get(g, item.lac) for item, g in zip(fit, genders, strict=True)])
    sets[", by gender"] = q >= -of_gender[:, None]
    votes, y = aligned.distribution.astype(float), aligned.consensus
    result = {}
    for outcome, said, has in (
        ("votes", votes, aligned.has_votes & is_in),
        ("consensus", np.eye(6)[y], (y >= 0) & is_in),
    ):
        right = said[np.arange(NUM_ROWS), q.argmax(1)]
        result[f"ECE ({outcome})"] = ece(p.max(1)[has], said[np.arange(NUM_ROWS), p.argmax(1)][has])
        result[f"ECE ({outcome}, calibrated)"] = ece(q.max(1)[has], right[has])
        result[f"risk ({outcome})"] = 1 - right[has].mean()
        order = np.argsort(-q.max(1)[has], kind="stable")
        result[f"AURC ({outcome})"] = (np.cumsum(1 - right[has][order]) / np.arange(1, has.sum() + 1)).mean()
        for words, item in sets.items():
            result[f"{outcome} in set (90 %{words})"] = (said * item).sum(1)[has].mean()
            if outcome == "votes":
                result[f"set size (90 %{words})"] = item.sum(1)[has].mean()
    has = aligned.has_votes & is_in
    result["NLL"] = -(votes * np.log(p)).sum(1)[has].mean()
    result["NLL (calibrated)"] = -(votes * np.log(q)).sum(1)[has].mean()
    entropy = scipy.stats.entropy(votes[has], axis=1)
    result["set size-entropy correlation"] = np.corrcoef(entropy, sets[""].sum(1)[has])[0, 1]
    return result


@pytest.mark.parametrize("group", ["all", "female", "male", "unknown"])
def test_every_number_is_that_of_plain_loops(aligned, fitted, records, group):
    is_in = aligned.groups[group]
    for system, rows in (("votes", [0, 1]), ("consensus", [2, 3])):
        record = records[system, group]
        together = record.states["calibration"]["ensemble"]
        alone = [expected(aligned, fitted, [row], is_in) for row in rows]
        mean = expected(aligned, fitted, rows, is_in)
        assert together.keys() == mean.keys() == {name for name in record.metrics if name in mean}
        for name, value in mean.items():
            error = 0.02 if name.startswith("AURC") else 1e-7  # steps of a few utterances
            assert together[name]["value"] == pytest.approx(value, abs=error), name
            assert record.metrics[name]["members"] == pytest.approx([item[name] for item in alone], abs=error), name
            assert record.metrics[name]["value"] == pytest.approx(np.mean([item[name] for item in alone]), abs=error)
            low, high = (together[name][end] for end in ("low", "high"))
            assert low <= value <= high or name.startswith(("ECE", "AURC", "set size-"))
        counts = {name: entry["count"] for name, entry in together.items()}
        assert counts["NLL"] == (aligned.has_votes & is_in).sum()
        assert counts["ECE (consensus)"] == (is_in & (aligned.consensus >= 0)).sum()


def test_intervals_are_those_of_the_same_resamples_as_all_metrics(aligned, fitted, records):
    """The share of votes in the sets, resampled by hand."""
    applied = calibration_fit.Applied.of(
        fitted.in_folds(POOLED[:2], FOLDS), np.isin(np.arange(NUM_ROWS), ROWS[1]).astype(int),
        [aligned.genders[unit] for unit in aligned.unit],
    )  # fmt: skip
    q = calibration.tempered(aligned.predictions_distribution[:2].astype(float).mean(0), applied.temperature)
    held = ((q >= -applied.lac[:, None]) * aligned.distribution).sum(1)
    num_units = len(aligned.speakers)
    ((_, weights),) = enumerate(resampling.resample_weights(num_units, 60, SECTION.seed, 60))
    by_name = weights[:, aligned.unit] * aligned.has_votes
    drawn = (by_name * held).sum(1) / by_name.sum(1)
    has_votes = np.unique(aligned.unit[aligned.has_votes | (aligned.consensus >= 0)])
    entry = records["votes", "all"].states["calibration"]["ensemble"]["votes in set (90 %)"]
    assert (entry["low"], entry["high"]) == pytest.approx(intervals.interval(drawn, len(has_votes)), abs=1e-6)


def test_curves(records):
    states = records["votes", "all"].states["calibration"]
    together, curves = states["ensemble"], states["curves"]
    assert curves["risk"]["votes"]["value"][-1] == pytest.approx(together["risk (votes)"]["value"], abs=1e-12)
    for name, ends in (("plain", ""), ("calibrated", ", calibrated")):
        curve = {key: np.array(values, float) for key, values in curves[name]["consensus"].items()}
        used = curve["num"] > 0
        apart = np.abs(curve["value"] - curve["confidence"])[used] * curve["num"][used]
        assert apart.sum() / curve["num"].sum() == pytest.approx(together[f"ECE (consensus{ends})"]["value"], abs=1e-9)
    sizes = curves["sizes_by_entropy"]["votes"]
    mean = np.nansum(np.array(sizes["value"], float) * np.array(sizes["num"])) / sum(sizes["num"])
    assert mean == pytest.approx(together["set size (90 %)"]["value"], abs=1e-9)
    assert [item["fold"] for item in states["fitted"]] == [0, 1]
    assert states["level"] == LEVEL


def test_other_records_stay_as_they_are_and_all_is_json(parts, aligned, fitted, records):
    plain = score(*parts, members=[vars(m) for m in POOLED], protocol=CARD, nbest=SECTION.nbest)
    for before in plain:
        after = records[before.system, before.group]
        if ":" in before.group:
            assert after == before
        else:
            assert after.metrics.items() >= before.metrics.items()
            assert {**after.states, "calibration": 0} == {**before.states, "calibration": 0}
        json.loads(to_json(after))
    nothing, systems = calibration_fit.fit([], TRAINED, LEVEL), ensemble.systems([*map(vars, POOLED)])
    same = calibration_scores.with_calibration(plain, aligned, nothing, (systems, POOLED), ROWS, parts[1].ids, SECTION)
    assert same == plain


def test_a_mean_of_seeds_is_scored_as_the_mean_of_its_members(parts, fitted, records):
    predictions, targets, table = parts
    wide, pooled = mean_heads.with_means(predictions, POOLED, ("seeds",))
    aligned = align(wide, targets, table, num_members=len(pooled), split="test", group_by="gender")
    actual = {(r.system, r.group): r for r in added((wide, targets, table), aligned, fitted, pooled)}
    alone = actual["mean of 2 heads, votes", "all"]
    expected = records["votes", "all"].states["calibration"]["ensemble"]
    for name, entry in expected.items():
        assert alone.metrics[name]["value"] == pytest.approx(entry["value"], abs=1e-6), name
    assert alone.states["calibration"]["ensemble"].keys() == expected.keys()


def test_groups_that_cut_through_speakers(parts, fitted):
    predictions, targets, table = parts
    session = pa.array([str(i % 2) for i in range(NUM_ROWS)])
    table = table.append_column("session", session)
    aligned = align(predictions, targets, table, num_members=4, split="test", group_by="session")
    actual = {(r.system, r.group): r for r in added((predictions, targets, table), aligned, fitted, group_by="session")}
    is_in = np.arange(NUM_ROWS) % 2 == 1
    mean = expected(aligned, fitted, [0, 1], is_in)
    together = actual["votes", "1"].states["calibration"]["ensemble"]
    for name in ("ECE (votes, calibrated)", "votes in set (90 %)", "NLL"):
        assert together[name]["value"] == pytest.approx(mean[name], abs=1e-7)


# Simulated corpora of one model, whose truth is that of very many speakers.
S, N, K = 40, 20, 4


def corpus(rng, num_speakers, temperature):
    """A model that is too sure by the temperature, and speakers who are heard more or less as it expects."""
    unit = np.repeat(np.arange(num_speakers), N)
    p = np.exp(1.5 * rng.normal(size=(len(unit), K)))
    p /= p.sum(1, keepdims=True)
    true = calibration.tempered(p, temperature) * np.exp(0.4 * rng.normal(size=(num_speakers, K)))[unit]
    votes = rng.multinomial(5, true / true.sum(1, keepdims=True)) / 5
    size = len(unit)
    applied = calibration_fit.Applied(np.full(size, 1.3), np.full(size, -0.12), np.full(size, -0.12))
    consensus = np.where((votes == votes.max(1, keepdims=True)).sum(1) == 1, votes.argmax(1), -1)
    return calibration_sums.cell_sums(
        Heard(p, applied, votes.astype(np.float32), np.ones(size, bool), consensus, unit, num_speakers)
    )


@pytest.mark.statistical
def test_intervals_cover_the_truth():
    """Expanded percentile intervals of 300 corpora of 40 speakers, each with 20 utterances.

    Of 1,200 corpora they cover NLL 94.9, votes in the sets 95.2, their size 93.8, the AURC 94.3 and 93.6, the risk
    94.1, the correlation 94.8, and an ECE, whose interval reaches further down, 94.3 to 96.9 times in 100; among 300,
    such a share varies by 1.3.
    """
    num_corpora, num_resamples, temperature = 300, 300, 1.6
    parts = [corpus(np.random.default_rng(10**6 + i), 2_000, temperature) for i in range(10)]
    whole = {name: sum(part[name].sum(0, keepdims=True) for part in parts) for name in parts[0]}
    truth = {metric.name: float(value[0]) for metric, value in calibration_sums.values(whole, LEVEL).items()}
    names = ("ECE (votes)", "ECE (votes, calibrated)", "ECE (consensus)", "NLL", "votes in set (90 %)",
             "set size (90 %)", "consensus in set (90 %)", "AURC (votes)", "AURC (consensus)", "risk (votes)",
             "set size-entropy correlation")  # fmt: skip
    num_covered = dict.fromkeys(names, 0)
    for i in range(num_corpora):
        sums = corpus(np.random.default_rng(10_300 + i), S, temperature)
        point = calibration_sums.values({name: item.sum(0, keepdims=True) for name, item in sums.items()}, LEVEL)
        drawn = resampling.bootstrap(sums, lambda item: calibration_sums.values(item, LEVEL), num_resamples, 300 + i)
        pair = ({metric: values[metric] for metric in point if metric.name in names} for values in (point, drawn))
        counts = {"votes": np.array([S]), "consensus": np.array([S])}
        model = calibration_scores.ModelScores(*pair, counts, S)
        for metric, entry in calibration_scores.entries([model], np.ones((num_resamples, 1))).items():
            num_covered[metric.name] += entry["low"] <= truth[metric.name] <= entry["high"]
    for name, number in num_covered.items():
        assert 0.93 <= number / num_corpora <= 0.97, (name, number / num_corpora)


# The page.


@pytest.fixture(scope="module")
def block(records):
    (actual,) = blocks.blocks(list(records.values()), is_simulated=True)
    return actual


def picture(name, what, how, draw):
    draw(look.Look(look.LIGHT, "made", ("vote distribution", "consensus")))
    return page.Picture(f"{name}.png", what, how, "", "")


def section_of(block):
    return calibration_section.section(block, "Sure", "sure", block.systems, picture)


def cells_of(table):
    return [dict(zip(table.header, row.texts, strict=True)) for row in table.rows]


def test_the_section_shows_the_records_numbers(block):
    actual = section_of(block)
    names = [getattr(item, "title", None) or item.file for item in actual.items]
    assert names == ["Calibration", "reliability.png", "Conformal sets", "set_sizes.png", "Abstention",
                     "risk_coverage.png"]  # fmt: skip
    tables = {item.title: cells_of(item) for item in actual.items if isinstance(item, page.Table)}
    states = block.whole("consensus").states["calibration"]
    rows = [row for row in tables["Calibration"] if row["system"] == "consensus"]
    assert [row["model"] for row in rows] == ["each seed", "mean of seeds"]
    for row, metrics in zip(rows, (block.whole("consensus").metrics, states["ensemble"]), strict=True):
        assert row["ECE (votes)"].startswith(f"{metrics['ECE (votes)']['value']:.3f}")
    temperatures = sorted(single["temperature"] for single in states["fitted"])
    assert rows[1]["temperature"] == "{:.2f} to {:.2f}".format(*temperatures)
    (row,) = (row for row in tables["Conformal sets"] if (row["group"], row["system"], row["sets"])
              == ("female", "consensus", "a threshold a gender"))  # fmt: skip
    entry = block.by_key["consensus", "female"].states["calibration"]["ensemble"]["votes in set (90 %, by gender)"]
    assert row["votes in set"] == f"{entry['value']:.3f} [{entry['low']:.3f}, {entry['high']:.3f}]"
    assert row["utterances with votes"] == str(entry["count"])
    assert "hold 90 % of the votes" in actual.text[0]
    csv = dict(calibration_section.numbers(block.whole("consensus")))
    assert csv["NLL, mean of seeds"] == states["ensemble"]["NLL"]


def test_what_was_not_calibrated_says_so(parts):
    plain = score(*parts, members=[vars(m) for m in POOLED], nbest=SECTION.nbest, protocol=CARD)

    def section(split="test", **settings):
        changed = {"split": split, "protocol": CARD | {"settings": settings}}
        records = [dataclasses.replace(record, **changed) for record in plain]
        return section_of(blocks.blocks(records, is_simulated=True)[0])

    on = {"eval.calibrate": True}
    assert section(**on).text[0].startswith("Not calibrated: the development split, or that of some fold, holds no")
    assert section(**{"eval.calibrate": False}).text[0].startswith("Not calibrated: eval.calibrate is off.")
    assert section("development", **on).text[0].startswith("Not scored here")


def test_signs_of_sets_that_do_not_hold_what_they_should(block):
    record = block.whole("consensus")
    states = record.states["calibration"]
    held = {**states["ensemble"]["votes in set (90 %)"], "value": 0.7, "low": 0.6, "high": 0.8}
    worse = {**states["ensemble"]["NLL (calibrated)"], "value": states["ensemble"]["NLL"]["value"] + 0.1}
    few = [{**item, "lac": None, "num_utterances": 7} for item in states["fitted"]]
    bad = {**states, "fitted": few, "ensemble": {
        **states["ensemble"], "votes in set (90 %)": held, "NLL (calibrated)": worse}}  # fmt: skip
    changed = dataclasses.replace(record, states=record.states | {"calibration": bad})
    item = dataclasses.replace(block, by_key={**block.by_key, ("consensus", "all"): changed})
    signs = " ".join(sign for sign in section_of(item).signs if sign.startswith("consensus"))
    assert "7 development utterances are too few for 90 %: the sets hold every class" in signs
    assert "the sets hold 70 % of the votes, and 90 % is above the interval" in signs
    assert "the temperature of the development split makes the log loss worse here" in signs
    assert block.class_names == CLASSES
