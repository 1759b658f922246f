"""What scoring leaves of speakers, groups and systems is shown by the report: cells equal the records."""

import dataclasses

import numpy as np
import pytest

from seremo_jax.core.schema import Predictions
from seremo_jax.metrics.catalogue import KINDS, entries_by_metric
from seremo_jax.reports import (
    blocks,
    failure_signs,
    look,
    overview,
    rater_rows,
    report,
    score_tables,
    served_tables,
    speaker_section,
)
from seremo_jax.reports.table import Table, measured
from tests.evaluation.test_scoring import parts, score
from tests.reports.test_report import write_artefacts

__all__ = ["parts"]

CARD = {
    "corpus": "made", "release": "1", "is_simulated": True, "notes": ["A note."], "split_hash": "5911ab",
    "backbone": "logmel", "settings": {"eval.num_resamples": 40, "eval.nbest": [1, 2, 3]},
}  # fmt: skip


@pytest.fixture(scope="module")
def records(parts):
    return score(*parts, protocol=CARD)


@pytest.fixture(scope="module")
def block(records):
    (block,) = blocks.blocks(records, is_simulated=True)
    return block


def cells_of(table: Table) -> list[dict[str, str]]:
    return [dict(zip(table.header, row.texts, strict=True)) for row in table.rows]


def test_worst_and_best_speakers(block):
    speakers = {speaker["speaker"]: speaker for speaker in block.whole("consensus").speakers}
    rows = [row for row in cells_of(speaker_section.extreme_table(block)) if row["system"] == "consensus"]
    uar = [float(row["1-best UAR"]) for row in rows]
    ordered = sorted(speaker["uar"][0] for speaker in speakers.values())
    number = len(speakers) // 2
    np.testing.assert_allclose(uar, [*ordered[:number], *ordered[::-1][:number]], atol=5e-4)
    for row in rows:
        speaker = speakers[row["speaker"]]
        assert (row["scored"], row["classes"]) == (str(speaker["num_scored"]), str(speaker["num_classes"]))
        assert row["3-best UAR"] == f"{speaker['uar'][2]:.3f}"


def test_luck_and_dependence(block):
    states = block.whole("vote distribution").states
    rows = [row for row in cells_of(speaker_section.size_table(block)) if row["system"] == "vote distribution"]
    assert [row["speakers"] for row in rows] == [str(size["num_speakers"]) for size in states["speaker_sizes"]]
    first = next(
        above for above in states["speaker_sizes"][0]["above"] if (above["nbest"], above["threshold"]) == (1, 75)
    )
    assert rows[0]["above 0.75"] == f"{first['num_passing']:.1f} ({first['num_by_luck']:.1f})"
    row = cells_of(speaker_section.dependence_table(block))[0]
    correlation = states["speaker_dependence"]["num_scored"]
    assert row["scored utterances"] == f"{correlation['rho']:+.3f} (p {correlation['p']:.3f})"


def test_differences_and_groups(block):
    entries = block.whole("consensus").states["differences"]
    tables = [score_tables.difference_table(block, family) for family in ("main", "served")]
    rows = [row for table in tables for row in cells_of(table)]
    entries = sorted(entries, key=lambda entry: KINDS[entry["about"]["kind"]].family == "served")
    assert len(rows) == len(entries) > len(tables[0].rows) > 0
    assert len({table.title for table in tables}) == 2
    for row, entry in zip(rows, entries, strict=True):
        assert (row["score"], row["system"], row["minus"]) == (entry["metric"], "consensus", "vote distribution")
        digits = KINDS[entry["about"]["kind"]].digits
        assert row["difference"].startswith(f"{entry['value']:+.{digits}f} [{entry['low']:.{digits}f}, ")
        assert row["p, Holm"] == ("< 0.001" if entry["p_holm"] < 0.001 else f"{entry['p_holm']:.3f}")
    groups = {row["group"] for row in cells_of(score_tables.group_table(block))}
    assert groups == {"female", "male", "unknown", "gap: female - male", "worst group: gender",
                      "ratio, smaller / larger: gender"}  # fmt: skip


def test_seeds_and_speakers_spread_apart(block):
    rows = {(row["system"], row["score"]): row for row in cells_of(score_tables.spread_table(block))}
    for system in ("vote distribution", "consensus"):
        for name, digits in (("UAR", 3), ("CCC mean", 3), ("paUAR-50 (2-best, all)", 1)):
            metric, row = block.whole(system).metrics[name], rows[system, name]
            assert row["± seeds"] == f"{np.std(metric['members'], ddof=1):.{digits}f}"
            assert row["± speakers"] == f"{metric['sd_speakers']:.{digits}f}"
            assert row["95 %, speakers"] == f"{metric['low']:.{digits}f} to {metric['high']:.{digits}f}"
            both = f"{metric['low_members']:.{digits}f} to {metric['high_members']:.{digits}f}"
            assert row["95 %, speakers and seeds"] == both
    assert len({row["± seeds"] for row in rows.values()}) > len(rows) / 3


def test_one_seed_has_no_spread_and_equal_seeds_have_none_either(parts):
    predictions, targets, table = parts

    def shown(rows, seeds):
        part = Predictions(predictions.utterances, predictions.attributes[rows], predictions.distribution[rows])
        members = [{"layer": 2, "seed": seed, "class_target": "votes"} for seed in seeds]
        (alone,) = blocks.blocks(score(part, targets, table, members=members, protocol=CARD), is_simulated=True)
        return cells_of(score_tables.spread_table(alone))

    assert not shown([0], [0])
    for row in shown([0, 0], [0, 1]):
        assert float(row["± seeds"]) == 0
        assert row["95 %, speakers"] == row["95 %, speakers and seeds"]
    assert any(float(row["± speakers"]) > 0 for row in shown([0, 0], [0, 1]))


def test_every_metric_stands_in_some_table(block):
    whole = block.whole("consensus")
    shown = set()
    tables = (score_tables.score_table, score_tables.speaker_table, score_tables.class_table, score_tables.recall_table,
              score_tables.attribute_table, score_tables.other_table, served_tables.served_table,
              served_tables.strata_table, served_tables.size_curve_table, served_tables.worst_table)  # fmt: skip
    for make in tables:
        for row in make(block).rows:
            shown |= {text for text in row.texts if "consensus" in row.labels}
    for metric, entry in entries_by_metric(whole.metrics).items():
        assert str(measured(entry, metric)) in shown, metric.name


@pytest.mark.parametrize(("enough", "few", "is_true"), [(9, 100, True), (10, 100, False), (9, 5, False)])
def test_the_share_named_first(block, monkeypatch, enough, few, is_true):
    """Nine speakers, the median one with 13 utterances."""
    monkeypatch.setattr(served_tables, "ENOUGH_SPEAKERS", enough)
    monkeypatch.setattr(served_tables, "FEW_UTTERANCES", few)
    metric = served_tables.TRUE_SHARE if is_true else score_tables.SPEAKER_SHARE
    assert served_tables.main_share(block) == metric
    entry = block.whole("consensus").metrics[metric.name]
    (tile,) = (tile for tile in overview._tiles(block) if "speakers" in tile.label and "consensus" in tile.label)
    assert tile.value == f"{entry['value']:.1f} %"
    assert ("true UAR" in tile.label) == ("observed" in tile.note) == is_true


def test_strata_stand_in_their_order(block):
    (row, *_) = cells_of(served_tables.strata_table(block))
    names = ("UAR, entropy: raters agree", "UAR, entropy: under 1 bit", "UAR, entropy: 1 bit or more")
    assert tuple(row) == ("system", *names), "no durations there"


def test_one_human_rater_stands_in_every_table_of_systems(block):
    row = next(row for row in block.whole("vote distribution").states["raters"]["rows"] if row["others"] == "all")
    entries = row["metrics"]
    for make, labels in (
        (score_tables.score_table, {}), (score_tables.class_table, {}),
        (score_tables.recall_table, {"score": "recall"}),
        (score_tables.speaker_table, {"UAR of the speaker": "above 0.50", "counted": "all"}),
        (score_tables.group_table, {"group": "female"}), (score_tables.other_table, {}),
    ):  # fmt: skip
        (cells,) = (cells for cells in cells_of(make(block))
                    if cells["system"] == rater_rows.ONE and labels.items() <= cells.items())  # fmt: skip
        shown = [text for text in cells.values() if "[" in text]
        assert shown, make.__name__
        if make is not score_tables.group_table:
            known = {f"{e['value']:.{d}f} [{e['low']:.{d}f}, {e['high']:.{d}f}]" for e in entries.values()
                     for d in (1, 3) if e["low"] is not None}  # fmt: skip
            assert set(shown) <= known, make.__name__
    rows = {row[""]: row[rater_rows.ONE] for row in cells_of(score_tables.summary_table(block))}
    assert rows["UAR"].startswith(f"{entries['UAR']['value']:.3f}")
    assert rows["2-best UAR"] == "–"
    assert rater_rows.READING in score_tables.score_table(block).caption


def test_panels_of_raters(block):
    rows = cells_of(rater_rows.panel_table(block, ""))
    assert [(row["raters"], row["judged against"]) for row in rows] == [
        ("1", "all others"), ("half of them", "the other half"), ("1", "3 others"), ("2 together", "3 others"),
    ]  # fmt: skip
    states = block.whole("vote distribution").states["raters"]["rows"]
    assert rows[3]["UAR"].startswith(f"{states[3]['metrics']['UAR']['value']:.3f} [")
    assert rows[1]["UAR"] == "–" != rows[1]["class CCC mean"]


def test_the_signs_name_the_raters(block):
    (sign,) = (sign for sign in failure_signs.of_scores(block) if "Human raters" in sign)
    share = rater_rows.entry(block, score_tables.SPEAKER_SHARE)["value"]
    assert f"above 0.75 for {share:.1f} % of the speakers" in sign


def test_why_there_are_no_raters(parts):
    predictions, targets, table = parts
    single = dataclasses.replace(targets, votes=np.eye(6, dtype=np.int32)[targets.votes.argmax(1)])
    scored = score(predictions, single, table, protocol=CARD, num_permutations=0)
    (alone,) = blocks.blocks(scored, is_simulated=True)
    assert "No row of human raters: no utterance has votes of two raters." in score_tables.score_table(alone).caption
    assert rater_rows.ONE not in {row["system"] for row in cells_of(score_tables.score_table(alone))}
    assert not rater_rows.panel_table(alone, "").rows
    assert rater_rows.curve(alone) is None


@pytest.mark.parametrize("theme", [look.LIGHT, look.DARK])
def test_the_curve_is_the_records(block, theme, tmp_path):
    systems = ("vote distribution", "consensus")
    curves = {system: block.whole(system).states["pa_uar_curve"] for system in systems}
    raters = rater_rows.curve(block)
    figure = speaker_section.pa_uar_curve(look.Look(theme, "made", systems), curves, raters)
    human = {line.get_label(): line for line in figure.axes[0].lines}[rater_rows.ONE]
    np.testing.assert_allclose(human.get_ydata(), raters[1])
    assert [ax.get_title(loc="left") or ax.get_title() for ax in figure.axes] == ["1-best", "2-best", "3-best"]
    lines = {line.get_label(): line for line in figure.axes[1].lines}
    for system in systems:
        shares = curves[system]["filters"]["all"]["2"]
        np.testing.assert_allclose(lines[system].get_ydata(), shares["value"])
        assert lines[system].get_color() == look.Look(theme, "", systems).color(system)
    np.testing.assert_allclose(lines["random guesser"].get_ydata(), shares["chance"])


def test_the_page_shows_them(records, tmp_path):
    folder = report.run(write_artefacts(tmp_path / "work", records)).parent
    text = (folder / "report.md").read_text()
    for title in ("Speakers served worst and best", "Small speakers pass by luck", "What a speaker's UAR goes with",
                  "Spread over seeds and over speakers", "Differences between systems",
                  "Differences in how speakers are served", "How raters and speakers are served",
                  "The worst served, and what luck alone would show", "UAR by agreement of raters",
                  "Recall, precision and F1 of each class", "Attributes", "What human raters score", "one human rater",
                  "pa_uar_curve.png", "entropy correlation", "expected cost (attributes)"):  # fmt: skip
        assert title in text, title
    assert (folder / "pa_uar_curve.png").stat().st_size > 10_000
