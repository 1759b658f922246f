"""Scores by condition: drops, curves and ranges from records; unchanged decisions; the report's section."""

import dataclasses
import json

import numpy as np
import pytest

from seremo_jax.core.condition_names import parse
from seremo_jax.core.schema import Predictions, ResultRecord
from seremo_jax.data.targets import Targets, plurality, vote_distribution
from seremo_jax.evaluation import stability
from seremo_jax.evaluation.alignment import AlignmentError, align
from seremo_jax.metrics.catalogue import entries_by_name, metric
from seremo_jax.reports import blocks as comparison
from seremo_jax.reports import condition_scores, condition_section, look, page, report
from seremo_jax.reports.blocks import ReportError
from seremo_jax.reports.condition_section import STABLE_SHARE
from seremo_jax.reports.score_tables import SPEAKER_SHARE, UAR
from seremo_jax.reports.table import NOTHING, Table
from tests.reports.test_report import GAP, NO_SPEAKER_STATES, axes_of

CCC_MEAN = metric("ccc_mean")
CLASSES = ("angry", "disgust", "fear", "happy", "neutral", "sad")
CARD = {"corpus": "made", "release": "1", "split_hash": "5911ab", "notes": [], "settings": {"eval.nbest": [1]}}
SCORES = {
    "clean": 0.6, "noise:white:10db": 0.5, "noise:white:0db": 0.2, "babble:10db": 0.4, "babble:0db": 0.16,
    "reverb:synthetic:0.6s": 0.45, "reverb:synthetic:0.3s": 0.55, "reverb:synthetic:0.6s+babble:10db": 0.3,
    "codec:gsm": 0.63,
}  # fmt: skip


def entry(value: float | None, width=0.05, chance=None) -> dict:
    fields = {"value": value, "low": None, "high": None, "members": [value], "sd": None, "count": 9, "defined": False}
    if value is not None:
        fields |= {"low": value - width, "high": value + width, "defined": True}
    return fields if chance is None else {**fields, "chance": chance}


def record(condition: str, uar: float, system="votes", split="test", clean=0.6, **changes) -> ResultRecord:
    metrics = {UAR: entry(uar, chance=1 / 6), metric("class_ccc_mean"): entry(uar - 0.1), CCC_MEAN: entry(None)}
    metrics[SPEAKER_SHARE] = entry(100 * uar - 10, 5)
    if condition != "clean":
        metrics[STABLE_SHARE] = entry(min(uar + 0.3, 1.0))
        metrics[stability.UAR_DROP] = entry(100 * (1 - uar / clean), 8)
    plain = ResultRecord(
        system, 2, (0,), split, condition, "all", 120, 100, 9, entries_by_name(metrics),
        NO_SPEAKER_STATES | {"class_names": list(CLASSES)}, [], CARD, axes_of(system, 2),
    )  # fmt: skip
    return dataclasses.replace(plain, **changes)


def in_all_conditions(**changes) -> list[ResultRecord]:
    factor = {"votes": 1.0, "consensus": 0.9}
    return [
        record(c, uar * f, system, clean=0.6 * f, **changes)
        for c, uar in SCORES.items()
        for system, f in factor.items()
    ]


def gathered(records) -> condition_scores.Conditions:
    (conditions,) = condition_scores.gather(comparison.blocks(records, is_simulated=False))
    return conditions


def test_values_of_a_condition():
    conditions = gathered(in_all_conditions())
    assert conditions.systems == ("vote distribution", "consensus")
    white = parse("noise:white:0db")
    assert conditions.value(white, "consensus", UAR) == pytest.approx(0.18)
    assert conditions.value(white, "vote distribution", CCC_MEAN) is None
    assert conditions.value(white, "vote distribution", metric("jsd")) is None


def test_no_relative_drop_below_a_clean_score_of_0_05():
    def drop(num):
        """Of `num` utterances of one class, the first of which is right in clean, and none elsewhere."""
        consensus, heard = np.zeros(num, int), np.tile([0.0, 1.0], (1, num, 1))
        clean = heard.copy()
        clean[0, 0] = (1.0, 0.0)
        entries = stability.compare(clean, heard, consensus, np.arange(num), np.ones(num, bool), 20, 0)
        return entries[stability.UAR_DROP]["value"]

    assert drop(21) is None
    assert drop(20) == pytest.approx(100)


def test_curves_over_snr_and_rt60():
    conditions = gathered(in_all_conditions())
    curves = conditions.snr_curves("vote distribution", UAR)
    assert curves == {
        "white": [(10, 0.5, 0.45, 0.55), (0, 0.2, pytest.approx(0.15), 0.25)],
        "babble": [(10, 0.4, pytest.approx(0.35), 0.45), (0, 0.16, 0.11, pytest.approx(0.21))],
    }
    rooms = conditions.rt60_curves("vote distribution", UAR)
    assert [(point.at, point.value) for point in rooms["synthetic"]] == [(0.3, 0.55), (0.6, 0.45)]


def test_mean_and_range_over_kinds_of_noise():
    ranges = gathered(in_all_conditions()).over_noises("vote distribution", UAR)
    room = parse("reverb:synthetic:0.6s").room
    assert list(ranges) == [(None, 10.0), (None, 0.0), (room, 10.0)]
    assert ranges[None, 10.0] == (pytest.approx(0.45), 0.4, 0.5, 2)
    assert ranges[room, 10.0].num == 1


def test_conditions_of_another_protocol_or_without_clean_are_refused():
    good = [record("clean", 0.5)]
    for changes, message in (
        ({"protocol": CARD | {"split_hash": "other"}}, "split_hash"),
        ({"num_scored": 99}, "num_scored"),
        ({"system": "consensus", "axes": axes_of("consensus", 2)}, "systems"),
    ):
        blocks = comparison.blocks([*good, record("telephone", 0.4, **changes)], False)
        with pytest.raises(ReportError, match=f"test, telephone and of clean differ in {message}"):
            condition_scores.gather(blocks)
    with pytest.raises(ReportError, match="none in clean"):
        condition_scores.gather(comparison.blocks([record("telephone", 0.4)], False))
    assert condition_scores.gather(comparison.blocks(good, False)) == []


@pytest.fixture(scope="module")
def predicted():
    """Three members, 90 utterances of 8 speakers, one of them unknown; a tenth without consensus."""
    rng = np.random.default_rng(0)
    unit = rng.integers(0, 8, 90)
    consensus = np.where(rng.random(90) < 0.1, -1, rng.integers(0, 6, 90)).astype(np.int32)
    clean = rng.dirichlet(np.ones(6), (3, 90))
    clean[:, np.arange(90), np.maximum(consensus, 0)] += 0.5
    clean /= clean.sum(-1, keepdims=True)
    heard = np.where(rng.random((3, 90, 1)) < 0.6, clean, rng.dirichlet(np.ones(6), (3, 90)))
    return clean, heard, consensus, unit


def loop_uar(distribution, consensus, is_in) -> float:
    recalls = []
    for c in range(6):
        here = [i for i in range(len(consensus)) if is_in[i] and consensus[i] == c]
        if here:
            recalls.append(np.mean([int(np.argmax(distribution[i])) == c for i in here]))
    return float(np.mean(recalls))


def test_stability_equals_plain_loops(predicted):
    clean, heard, consensus, unit = predicted
    is_in = unit != 3
    entries = stability.compare(clean, heard, consensus, unit, is_in, 200, 0)
    same = [
        np.mean([np.argmax(clean[e, i]) == np.argmax(heard[e, i]) for i in range(90) if is_in[i]]) for e in range(3)
    ]
    uars = np.array([[loop_uar(d[e], consensus, is_in) for e in range(3)] for d in (clean, heard)])
    np.testing.assert_allclose(entries[stability.STABLE_SHARE]["members"], same, rtol=1e-12)
    np.testing.assert_allclose(entries[stability.UAR_CHANGE]["members"], uars[1] - uars[0], rtol=1e-12)
    drop = 100 * (uars[0].mean() - uars[1].mean()) / uars[0].mean()
    assert entries[stability.UAR_DROP]["value"] == pytest.approx(drop, rel=1e-12)
    assert entries[stability.STABLE_SHARE]["count"] == is_in.sum()
    for own in entries.values():
        assert own["low"] < own["value"] < own["high"]
        json.dumps(own, allow_nan=False)


def test_an_unchanged_condition_is_stable(predicted):
    clean, _, consensus, unit = predicted
    entries = stability.compare(clean, clean, consensus, unit, np.ones(90, bool), 50, 0)
    assert [entries[stability.STABLE_SHARE][side] for side in ("value", "low", "high")] == [1, 1, 1]
    assert [entries[stability.UAR_CHANGE][side] for side in ("value", "low", "high")] == [0, 0, 0]


def test_stability_without_a_scored_utterance_is_not_defined(predicted):
    clean, heard, consensus, unit = predicted
    entries = stability.compare(clean, heard, np.full_like(consensus, -1), unit, np.ones(90, bool), 50, 0)
    assert entries[stability.STABLE_SHARE]["defined"]
    assert not entries[stability.UAR_CHANGE]["defined"]
    assert entries[stability.UAR_DROP]["value"] is None


def test_records_get_the_stability_of_their_group_and_system(predicted):
    import pyarrow as pa

    clean, heard, _, unit = predicted
    rng = np.random.default_rng(1)
    ids = [f"u{i:02d}" for i in range(90)]
    speakers = [f"s{u}" for u in unit]
    table = pa.table({"id": ids, "corpus": ["x"] * 90, "split": ["test"] * 90, "speaker": speakers,
                      "gender": [("female", "male")[u % 2] for u in unit]})  # fmt: skip
    votes = rng.multinomial(5, np.ones(6) / 6, 90)
    index, one_hot, _ = plurality(votes, np.zeros(90, int))
    distribution, has_votes = vote_distribution(votes)
    none, zeros = np.zeros((90, 3), bool), np.zeros((90, 3), np.float32)
    targets = Targets(np.asarray(ids, object), votes.astype(np.int32), distribution, has_votes, index, one_hot,
                      one_hot.sum(1) > 0, zeros, none, zeros, none, CLASSES, ("valence", "activation", "dominance"),
                      {}, {})  # fmt: skip

    def aligned(distribution):
        predictions = Predictions(ids, np.zeros((3, 90, 3), np.float32), distribution.astype(np.float32))
        return align(predictions, targets, table, num_members=3, split="test", group_by="gender")

    records = [record("telephone", 0.3, group=group) for group in ("all", "female")]
    records.append(record("telephone", 0.3, group="gap:female-male", comparison=GAP))
    records.append(record("telephone", 0.3, system="consensus"))
    added = stability.with_stability(
        records, aligned(clean), aligned(heard), {"votes": [0, 2], "consensus": [1]}, 50, 0
    )
    share = (clean.argmax(-1) == heard.argmax(-1)).astype(float)
    is_female = unit % 2 == 0
    wanted = [share[[0, 2]].mean(1), share[[0, 2]][:, is_female].mean(1), None, share[[1]].mean(1)]
    for before, after, members_ in zip(records, added, wanted, strict=True):
        if members_ is None:
            assert after == before
        else:
            np.testing.assert_allclose(after.metrics["stable share"]["members"], members_, rtol=1e-12)
            assert after.metrics["UAR"] == before.metrics["UAR"]
    other = dataclasses.replace(aligned(heard), consensus=np.zeros(90, np.int32))
    with pytest.raises(AlignmentError, match="other utterances"):
        stability.with_stability(records, aligned(clean), other, {"votes": [0]}, 50, 0)


def test_the_section_shows_every_condition_with_its_drop():
    drawn = {}

    def draw(name, words, figure):
        drawn[name] = figure(look.Look(look.LIGHT, "made", ("vote distribution", "consensus")))
        return page.Picture(f"{name}.png", words[0], words[1], "<svg/>", "<svg/>")

    (section,) = condition_section.sections_of(comparison.blocks(in_all_conditions(), False), draw)
    tables = [item for item in section.items if isinstance(item, Table)]
    rows = {row.labels: dict(zip(tables[0].header, row.texts, strict=True)) for row in tables[0].rows}
    assert len(rows) == 2 * len(SCORES)
    row = rows["noise:white:0db", "vote distribution"]
    assert row["UAR"] == "0.200 [0.150, 0.250]"
    assert row["drop of UAR (%)"] == "66.7 [58.7, 74.7]"
    assert row["stable share"] == "0.500 [0.450, 0.550]"
    assert row["CCC mean"] == NOTHING
    assert rows["clean", "consensus"]["drop of UAR (%)"] == NOTHING
    assert tables[1].rows[0].texts[:4] == ("10 dB", "none", "vote distribution", "2")
    assert tables[1].rows[0].texts[4] == "0.450 (0.400 to 0.500)"
    assert sorted(drawn) == ["conditions_rt60", "conditions_snr", "conditions_stable"]
    assert any("drops most in babble:0db, by 73 %" in sign for sign in section.signs)
    assert any("no better than chance" in sign and "babble:0db" in sign for sign in section.signs)
    lines = drawn["conditions_snr"].axes[0].lines
    assert any(np.allclose(line.get_ydata(), [0.5, 0.2]) for line in lines if len(line.get_ydata()) == 2)
    assert condition_section.sections_of(comparison.blocks([record("clean", 0.5)], False), draw) == []


def test_the_report_has_one_section_for_all_conditions(tmp_path):
    from seremo_jax.core.artefacts import to_json, write_json

    ingest = {
        "corpus": {"corpus": "made", "release": "1", "is_simulated": False, "notes": []}, "split_hash": "5911ab",
        "warnings": [], "utterances": {"found": 120, "kept": 120, "excluded": {}}, "audio": {"hours": 0.1},
        "ratings": {"found": 900, "kept": 900, "dropped": {}}, "splits": {},
    }  # fmt: skip
    write_json(tmp_path / "ingest.json", ingest)
    (tmp_path / "results.jsonl").write_text("".join(to_json(record) + "\n" for record in in_all_conditions()))
    text = report.run(tmp_path).read_text()
    folder = tmp_path / "report"
    assert text.count('id="conditions"') == 1
    assert text.count('id="scores') == 1
    assert (folder / "conditions_snr.png").stat().st_size > 5_000
    assert "reverb:synthetic:0.6s+babble:10db" in (folder / "report.md").read_text()
    assert "Scores in every condition" in report.markdown_summary(tmp_path)
    assert (folder / "results.csv").read_text().count("babble:0db") >= 4
