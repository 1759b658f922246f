"""Benchmark tables: numbers are the records', other protocols are refused or flagged, published rows stand apart."""

import csv
import dataclasses
import io
import itertools
import re

import numpy as np
import pytest

from seremo_jax.core import artefacts
from seremo_jax.core.ensemble import MEMBER_FIELDS
from seremo_jax.metrics.catalogue import entries_by_name
from seremo_jax.reports import benchmark, benchmark_text, blocks, condition_pairs, every_speaker_table, published
from seremo_jax.reports.condition_section import DROP, STABLE_SHARE
from seremo_jax.reports.score_tables import UAR
from tests.reports.test_report import entry, expected_cell, records_like, write_artefacts

KINDS = ("ccc", "balanced_soft_ce")


def _with_settings(records, **settings):
    """Records of the same heads under other settings; of fields of a head, its axes say so, too."""
    own = {field: settings[path] for field, path in MEMBER_FIELDS.items() if path in settings and field != "layer"}
    return [
        dataclasses.replace(
            r, protocol={**r.protocol, "settings": r.protocol["settings"] | settings}, axes=r.axes | own
        )
        for r in records
    ]


def _records(layers=(4,), kind="ccc", **settings):
    records = records_like(is_simulated=False, num_speakers=9, num_seeds=5, layers=layers)
    return _with_settings(records, **{"loss.class_kind": kind, "model.layer": 4}, **settings)


def _workdir(folder, records):
    return write_artefacts(folder, records, is_simulated=False)


def _own(table, *labels):
    part = table.parts[0]
    places = [part.labels.index(label) for label in labels]
    return [tuple(line.labels[i] for i in places) for line in part.rows if not line.is_reference]


def test_targets_cross_the_class_target_with_class_balancing(tmp_path):
    both = [_workdir(tmp_path / kind, _records(kind=kind)) for kind in KINDS]
    table = benchmark.build("targets", both)
    rows = _own(table, "class target", "class loss", "classes balanced", "run", "seeds", "commit")
    assert rows == [
        (target, kind, balanced, kind, "5", "abc1234")
        for kind, balanced in zip(KINDS, ("no", "yes"), strict=True) for target in ("vote distribution", "consensus")
    ]  # fmt: skip
    assert "Not trained" not in table.reading
    assert "Not trained" in benchmark.build("targets", both[:1]).reading
    assert "votes with class balancing; consensus with class balancing" in benchmark.build("targets", both[:1]).reading
    metrics = _records()[0].metrics
    line = table.parts[0].rows[0]
    for name, cell in zip(table.parts[0].columns, line.cells, strict=True):
        assert str(cell) == expected_cell(name, metrics[name])
        assert cell.metric.name == name
        assert cell.numbers["low"] == metrics[name]["low"]
    assert [str(c) for c in table.parts[0].rows[-1].cells[:3]] == ["0.167", "0.333", "0.500"]
    assert "22 speakers" not in table.caption
    assert "1,000 resamples" in table.caption
    assert "abc1234" in table.caption


def test_a_mean_over_class_losses_is_balanced_in_part(tmp_path):
    def shown(kind, **axes):
        records = [dataclasses.replace(r, axes=r.axes | {"class_kind": kind} | axes) for r in _records()]
        name = "".join(kind).replace(" ", "")
        table = benchmark.build("targets", [_workdir(tmp_path / name / str(type(kind)), records)])
        return _own(table, "system", "class loss", "classes balanced")[0]

    mean = {"model": "mean", "num_heads": 2, "varying": ["class_kind"]}
    for kinds in (["ccc", "balanced_soft_ce"], ["balanced_soft_ce", "ccc"]):
        words = " + ".join(kinds)
        # The text is how earlier versions wrote it.
        assert shown(kinds, **mean) == shown(words, **mean) == ("mean of 2 heads", words, "in part")
    assert shown("balanced_soft_ce") == ("head", "balanced_soft_ce", "yes")


def test_the_commit_is_a_field_of_the_card_or_else_part_of_the_version(tmp_path):
    old = [
        dataclasses.replace(r, protocol={name: value for name, value in r.protocol.items() if name != "commit"})
        for r in _records()
    ]
    table = benchmark.build("speakers", [_workdir(tmp_path / "old", old)])
    assert set(_own(table, "commit")) == {("0.1 (abc1234)",)}


def test_other_protocols_are_refused_by_name_or_flagged(tmp_path):
    other = [dataclasses.replace(r, protocol=r.protocol | {"split_hash": "other"}) for r in _records()]
    here, there = _workdir(tmp_path / "a", _records()), _workdir(tmp_path / "b", other)
    with pytest.raises(
        blocks.ReportError, match=r"b \(vote distribution\).*split_hash: 'other' against '5911ab'.*--mixed"
    ):
        benchmark.build("targets", [here, there])  # fmt: skip
    table = benchmark.build("targets", [here, there], is_mixed=True)
    assert table.footnotes == {"a": "differs from the first row in split_hash: 'other' against '5911ab'"}
    assert [(line.labels[5], line.marks) for line in table.parts[0].rows[:4]] == [
        ("a", ""), ("b", "a"), ("a", ""), ("b", "a"),
    ]  # fmt: skip
    text = benchmark_text.markdown(table)
    assert text.count("head (a)") == 2
    assert "- (a) differs from the first row in split_hash" in text


def test_a_setting_of_members_that_no_column_shows_is_protocol_too(tmp_path):
    """Within a run the systems' names say what differs; a run with another dropout doesn't say so."""
    here = _workdir(tmp_path / "a", _records(**{"model.dropout": 0.0}))
    there = _workdir(tmp_path / "b", _records(**{"model.dropout": 0.2}))
    with pytest.raises(blocks.ReportError, match=r"settings.model.dropout: 0.2 against 0.0"):
        benchmark.build("targets", [here, there])
    there = _workdir(tmp_path / "c", _records(kind="kl"))
    with pytest.raises(blocks.ReportError, match=r"settings.loss.class_kind: 'kl' against 'ccc'"):
        benchmark.build("speakers", [_workdir(tmp_path / "d", _records()), there])


def test_layers_judges_the_curves_by_heads(tmp_path):
    records = _records(layers=(1, 4, 7))
    folder = _workdir(tmp_path / "a", records)
    curves = artefacts.read_json(folder / "saliency.json", "")["curves"]
    table = benchmark.build("layers", [folder])
    own, regret = table.parts
    assert _own(table, "system", "layer")[:4] == [
        ("consensus", "1"), ("consensus", "4"), ("consensus", "7"), ("vote distribution", "1"),
    ]  # fmt: skip
    assert str(own.rows[0].cells[0]).startswith(f"{curves['ccs']['score'][1]:.3f} [")
    uar = {r.layer: r.metrics["UAR"]["value"] for r in records if r.group == "all" and r.system.endswith("votes")}
    line = next(row for row in regret.rows if row.labels[:3] == ("vote distribution", "saliency (ccs)", "UAR"))
    score = {layer: curves["ccs"]["score"][layer] for layer in uar}
    picked, best = max(score, key=score.get), max(uar, key=uar.get)
    assert line.labels[3] == "3"
    assert [str(cell) for cell in line.cells[:2]] == [str(picked), str(best)]
    assert str(line.cells[2]) == f"{uar[best] - uar[picked]:.3f}"
    ranks = [np.argsort(np.argsort([values[layer] for layer in uar])) for values in (score, uar)]
    assert str(line.cells[3]) == f"{np.corrcoef(ranks)[0, 1]:+.3f}"
    assert "Heads are of folds" not in table.reading
    of_folds = _workdir(tmp_path / "folds", _with_settings(records, **{"ensemble.folds": [0, 1]}))
    assert "saw speakers tested here" in benchmark.build("layers", [of_folds]).reading
    assert not benchmark.build("layers", [_workdir(tmp_path / "one", _records())]).parts[1].rows
    (folder / "saliency.json").unlink()
    with pytest.raises(blocks.ReportError, match=r"launch\.saliency"):
        benchmark.build("layers", [folder])


def test_backbones_may_differ_in_the_backbone_alone(tmp_path):
    def of(name, **more):
        return [dataclasses.replace(r, protocol=r.protocol | {"backbone": name, "store": name, **more})
                for r in _records()]  # fmt: skip

    here, there = _workdir(tmp_path / "a", of("/models/w2v")), _workdir(tmp_path / "b", of("logmel"))
    table = benchmark.build("backbones", [here, there])
    assert [row[0] for row in _own(table, "backbone")] == ["w2v", "w2v", "logmel", "logmel"]
    with pytest.raises(blocks.ReportError, match="backbone: 'logmel' against"):
        benchmark.build("targets", [here, there])
    with pytest.raises(blocks.ReportError, match="release"):
        benchmark.build("backbones", [here, _workdir(tmp_path / "c", of("x", release="2"))])


def test_conditions_have_score_drop_and_stable_share(tmp_path):
    clean = _records()
    noisy = []
    for record in clean:
        metrics = dict(record.metrics)
        lower = entry([value * 0.8 for value in metrics["UAR"]["members"]], 0.01, 6)
        further = {STABLE_SHARE: entry([0.71] * 5, 0.02, 100), DROP: entry([20.0] * 5, 3.0, 100)}
        metrics |= entries_by_name({UAR: lower, **further})
        noisy.append(dataclasses.replace(record, condition="noise:white:10db", metrics=metrics))
    folder, plain = _workdir(tmp_path / "a", clean + noisy), _workdir(tmp_path / "b", clean)
    table = benchmark.build("conditions", [folder, plain])
    lines, columns = table.parts[0].rows, table.parts[0].columns
    assert [line.labels[:2] for line in lines] == [
        (condition, system) for condition in ("clean", "noise:white:10db")
        for system in ("vote distribution", "consensus")
    ]  # fmt: skip
    drop, stable = (columns.index(name) for name in ("drop of UAR (%)", "stable share"))
    assert str(lines[0].cells[drop]) == str(lines[0].cells[stable]) == "–"
    assert str(lines[2].cells[drop]) == "20.0 ± 0.0 [17.0, 23.0]"
    assert str(lines[2].cells[stable]).startswith("0.710 ±")
    assert "Left out, heard in clean only: b (1)" in table.reading
    other = [dataclasses.replace(r, protocol=r.protocol | {"condition_sources": "other"}) for r in clean + noisy]
    there = _workdir(tmp_path / "c", other)
    with pytest.raises(blocks.ReportError, match="condition_sources: 'other'"):
        benchmark.build("conditions", [folder, there])
    assert len(_own(benchmark.build("speakers", [folder, there]), "run"))
    with pytest.raises(blocks.ReportError, match=r"eval\.conditions"):
        benchmark.build("conditions", [plain])


def test_heads_with_copies_are_paired_by_speaker_with_those_without(tmp_path):
    """The mean difference, its fall from clean, and its interval against a bootstrap that is written again here."""

    def lower(records, condition, share):
        factor = dict(zip([f"s{u:02d}" for u in range(9)], np.linspace(1 - share, 1 - 1.5 * share, 9), strict=True))
        return [
            dataclasses.replace(r, condition=condition, speakers=[
                s | {"uar": [value * factor[s["speaker"]] for value in s["uar"]]} for s in r.speakers
            ]) for r in records
        ]  # fmt: skip

    clean, noise = _records(), "babble:0db+telephone"
    heard = [
        dataclasses.replace(r, protocol=r.protocol | {"copies": "1f2e"})
        for r in _with_settings(
            _records(), **{"train.copy_share": 0.5, "extract.conditions": ["babble:0..10db", "gain:-20..0db"]}
        )
    ]
    here = _workdir(tmp_path / "a", clean + lower(clean, noise, 0.4))
    there = _workdir(tmp_path / "b", lower(heard, "clean", 0.05) + lower(heard, noise, 0.2))
    part = benchmark.build("conditions", [here, there]).parts[1]
    assert part.title == condition_pairs.TITLE
    assert [row.labels for row in part.rows] == [
        (condition, kind, f"{system} (a)", f"{system} (b)")
        for condition, kind in (("clean", "–"), (noise, "some")) for system in ("vote distribution", "consensus")
    ]  # fmt: skip
    by = {
        (name, at): np.array([s["uar"][0] for s in next(r for r in records if r.group == "all").speakers])
        for name, pairs in (("a", ((clean, "clean"), (lower(clean, noise, 0.4), noise))),
                            ("b", ((lower(heard, "clean", 0.05), "clean"), (lower(heard, noise, 0.2), noise))))
        for records, at in pairs
    }  # fmt: skip
    cells = [cell.numbers for cell in part.rows[2].cells]
    falls = {name: by[name, "clean"] - by[name, noise] for name in "ab"}
    wanted = [by["a", noise], by["b", noise], by["b", noise] - by["a", noise], falls["a"], falls["b"],
              falls["b"] - falls["a"]]  # fmt: skip
    for place, values in zip((1, 2, 3, 5, 6, 7), wanted, strict=True):
        assert cells[place]["value"] == pytest.approx(values.mean())
        assert cells[place]["count"] == 9
    rng = np.random.default_rng(3)
    drawn = wanted[-1][rng.integers(0, 9, (20_000, 9))].mean(axis=1)
    # The interval is wider than plain percentiles, as those of all records of few speakers are.
    plain = np.quantile(drawn, (0.025, 0.975)) - drawn.mean()
    ours = np.array([cells[7]["low"], cells[7]["high"]]) - cells[7]["value"]
    np.testing.assert_allclose(ours / plain, 1.25, atol=0.12)
    signs = np.array(list(itertools.product((-1, 1), repeat=9)))
    for place in (3, 7):
        values = wanted[2 if place == 3 else 5]
        as_large = np.abs(signs @ values) >= abs(values.sum()) - 1e-12
        assert cells[place]["p_permutation"] == pytest.approx(as_large.mean())
    assert "never on the recordings of this table" in benchmark.build("conditions", [here, there]).reading
    assert len(benchmark.build("conditions", [here]).parts) == 1


def test_speakers_by_number_filter_and_gender(tmp_path):
    table = benchmark.build("speakers", [_workdir(tmp_path / "a", _records())])
    part = table.parts[0]
    assert part.columns == ("1-best (%)", "2-best (%)", "3-best (%)")
    rows = {line.labels[:4]: line for line in part.rows}
    by = {r.group: r.metrics for r in _records() if r.system == "consensus"}
    for group, words, sign in (
        ("all", "all", ""),
        ("female", "female", ""),
        ("gap:female-male", "gap: female - male", "+"),
    ):
        cells = rows["consensus", "above 0.75", "min10c2", words].cells  # fmt: skip
        names = [f"paUAR-75 ({n}-best, min10c2)" for n in (1, 2, 3)]
        assert [str(cell) for cell in cells] == [expected_cell(name, by[group][name], sign) for name in names]
    assert rows["chance", "above 0.50", "all", "all"].is_reference
    assert table.parts[1].is_published
    assert [line.labels[1] for line in table.parts[1].rows] == ["paper"]


def test_published_rows_are_never_comparable_where_something_differs(tmp_path):
    table = benchmark.build("targets", [_workdir(tmp_path / "a", _records())])
    assert not table.parts[0].is_published
    apart = table.parts[1:]
    assert apart
    for part in apart:
        assert part.is_published
        assert "not comparable with ours (crema_d, 1, test, crema6)" in part.title
        assert all("corpus" in line.labels[-1] and "class set" in line.labels[-1] for line in part.rows)
    card = {"corpus": "msp_podcast", "release": "1.11", "settings.targets.class_set": "msp8"}
    rows = {row["id"]: row for row in published.rows()}
    assert len(rows) == len(published.rows())
    assert published.differing(rows["ody24-mt-test3"], card, "test3") == []
    assert published.differing(rows["ody24-mt-test3"], card, "test1") == ["set"]
    assert published.differing(rows["ody24-mt-dev"], card | {"release": "1.12"}, "development") == ["release"]
    assert "release (not stated)" in published.differing(rows["uniyal"], card, "test3")
    assert published.differing(rows["paper"], card, "test1")
    assert published.differing(rows["ody24-mt-test3"], card | {"is_simulated": True}, "test3") == ["real speech"]


def test_published_numbers_are_shares_and_have_a_source():
    for row in published.rows():
        assert row["source"], row["id"]
        assert row["kind"] in published.SCORES
        for column in published.SCORES[row["kind"]]:
            if row["kind"] != "paper" and row[column]:
                assert re.fullmatch(r"\.\d{2,4}", row[column]), (row["id"], column)
    ody = next(row for row in published.rows() if row["id"] == "ody24-mt-test3")
    assert [ody[name] for name in ("valence", "activation", "dominance", "mean")] == [".577", ".577", ".405", ".520"]


def test_three_forms_say_the_same(tmp_path):
    table = benchmark.build("targets", [_workdir(tmp_path / "a_b", _records())])
    paths = benchmark.write(table, tmp_path / "out")
    assert [path.name for path in paths] == ["targets.md", "targets.csv", "targets.tex"]
    text, lines, tex = (path.read_text(encoding="utf-8") for path in paths)
    assert table.reading in text
    rows = list(csv.DictReader(io.StringIO(lines)))
    first = next(row for row in rows if row["score"] == "UAR")
    assert float(first["value"]) == _records()[0].metrics["UAR"]["value"]
    assert {row["is_published"] for row in rows} == {"True", "False"}
    assert tex.count(r"\begin{tabular}") == tex.count(r"\end{tabular}") == len(table.parts)
    assert tex.count(r"\toprule") == len(table.parts)
    body = re.sub(r"\\[&%$#_{}]", "", re.sub(r"^%.*", "", tex, flags=re.M))
    assert "%" not in body
    assert "_" not in body
    assert body.count("{") == body.count("}")
    widths = {
        len(part.labels) + len(part.columns): len(re.findall("[lr]", spec))
        for part, spec in zip(table.parts, re.findall(r"\\begin\{tabular\}\{([lr]+)\}", tex), strict=True)
    }
    assert all(wanted == got for wanted, got in widths.items())
    for part in table.parts:
        assert f" & {part.columns[-1]}" in tex.replace("\\", "")


def test_workdirs_are_named_once_and_splits_exist(tmp_path):
    folder = _workdir(tmp_path / "a", _records())
    with pytest.raises(artefacts.ArtefactError, match="twice"):
        benchmark.build("targets", [folder, folder])
    with pytest.raises(blocks.ReportError, match="'test9'; it has those of: test"):
        benchmark.build("targets", [folder], split="test9")
    with pytest.raises(artefacts.ArtefactError, match=r"launch\.evaluate"):
        benchmark.build("targets", [tmp_path / "none"])


def _systems(folder, changes):
    """Workdir of a plain head and a system with mixup, whose gap differs from the plain one's by `changes`."""
    about = {"kind": "uar", "n": 1}
    plain = [record for record in _records() if record.axes["class_target"] == "votes"]
    records = []
    for system, mixup, states in (
        ("plain", 0.0, {"differences": [], "gap_changes": []}),
        (
            "mixup",
            0.2,
            {
                "differences": [
                    {"than": "plain", "metric": "UAR", "about": about, "value": 0.031, "low": 0.011, "high": 0.052,
                     "p_permutation": 0.004, "p_bootstrap": 0.005, "p_holm": 0.048},
                    {"than": "plain", "metric": "accuracy", "about": {"kind": "accuracy", "n": 1}, "value": 0.5,
                     "low": 0.4, "high": 0.6, "p_permutation": 0.1, "p_bootstrap": 0.1, "p_holm": 1.0},
                ],
                "gap_changes": [{"than": "plain", "metric": "UAR", "about": about, **changes}],
            },
        ),
    ):  # fmt: skip
        axes = {"mixup": mixup, "varying": ["mixup"]}
        served = entries_by_name({every_speaker_table.WORST: entry([0.3 + mixup + 0.01 * i for i in range(5)], 0.1, 9)})
        records += [
            dataclasses.replace(
                record, system=system, axes=record.axes | axes, metrics=record.metrics | served,
                states=record.states | (states if record.states else {}),
            )
            for record in plain
        ]  # fmt: skip
    return _workdir(folder, records)


def test_every_speaker_holds_each_system_against_the_first(tmp_path):
    changes = {"value": -0.02, "low": -0.05, "high": 0.01}
    table = benchmark.build("every_speaker", [_systems(tmp_path / "w", changes)])
    scores, differences = table.parts
    assert _own(table, "system") == [("mixup 0.2",), ("plain head",)]
    assert (str(scores.rows[0].cells[0]), scores.columns[:2]) == (
        "0.520 ± 0.016 [0.420, 0.620]",
        ("UAR of the worst 20 %", "UAR"),
    )
    assert scores.columns[-1] == "UAR, gap: female - male"
    rows = [(line.labels, str(line.cells[0])) for line in differences.rows]
    assert rows == [
        (("UAR", "mixup 0.2", "plain head"), "+0.031 [0.011, 0.052]"),
        (("UAR, female - male", "mixup 0.2", "plain head"), "-0.020 [-0.050, 0.010]"),
    ]
    paths = benchmark.write(table, tmp_path)
    assert {path.name for path in paths} == {f"every_speaker.{suffix}" for suffix in ("md", "csv", "tex", "png")}


def test_every_speaker_refuses_records_without_the_worst_served(tmp_path):
    with pytest.raises(benchmark.ReportError, match=r"launch\.evaluate again"):
        benchmark.build("every_speaker", [_workdir(tmp_path / "w", _records())])
