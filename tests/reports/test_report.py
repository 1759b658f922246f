"""The report: cells equal the records, refusals, simulated speech named everywhere, one self-contained page."""

import csv
import dataclasses
import functools
import html.parser
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest

from seremo_jax.core import artefacts, ensemble, schema, vocab
from seremo_jax.metrics.catalogue import SPEAKER_FILTERS, entries_by_name, metric
from seremo_jax.reports import blocks, failure_signs, figures, layer_figures, look, overview, page, report, score_tables
from seremo_jax.reports.table import Table, measured

CLASSES = vocab.CLASS_SETS["crema6"]
NBEST, THRESHOLDS = (1, 2, 3), (50, 75)
GAP = {"kind": "gap", "column": "gender", "groups": ["female", "male"]}
NOTE = "Audio and ratings of this corpus are simulated: results on it say nothing about real speech."
SMALL = {"num_speakers": 7, "num_seeds": 1}
PNGS = ("layer_curves", "saliency", "variance_shares", "training", "speakers", "confusion", "speaker_shares")


def curve_of(layers, per_layer, score) -> dict:
    """A curve over layers as `saliency.json` has it."""
    behind = score.max() - score
    bounds = {"low": score - 0.01, "high": score + 0.01, "behind_low": behind - 0.02, "behind_high": behind + 0.02}
    fields = {"per_layer": per_layer, "score": score, "behind": behind, **bounds}
    return {name: value.tolist() for name, value in fields.items()} | {"chosen": layers[int(score.argmax())]}


def share_of(num_values: int, share: np.ndarray) -> dict:
    """A share of variance over layers as `saliency.json` has it."""
    bounds = {"low": (share - 0.02).tolist(), "high": (share + 0.02).tolist()}
    return {"num_values": num_values, "share": share.tolist(), **bounds}


def entry(members: list[float] | None, width: float, count: int, chance: float | None = None) -> dict:
    if members is None:
        undefined = {"value": None, "low": None, "high": None, "members": [None] * 5, "sd": None, "count": 0}
        return {**undefined, "defined": False}
    value = float(np.mean(members))
    fields = {
        "value": value, "low": value - width, "high": value + width, "members": list(map(float, members)),
        "sd": float(np.std(members, ddof=1)) if len(members) > 1 else None, "count": count, "defined": True,
    }  # fmt: skip
    return fields if chance is None else {**fields, "chance": chance}


def axes_of(class_target: str, layer: int = 4, *, is_named: bool = False, **fields) -> dict:
    """What tells a head from others; `is_named`: in its layer, too."""
    axes = {
        "model": "head",
        "num_heads": 5,
        "varying": ["layer"] if is_named else [],
        "class_kind": "ccc",
        "dropout": 0.0,
    }
    return axes | {"layer": layer, "class_target": class_target} | fields


def corpus_of(rng: np.random.Generator, num_speakers: int) -> tuple[list[str], np.ndarray, np.ndarray]:
    genders = [("female", "male")[s % 2] if s < num_speakers - 1 else "unknown" for s in range(num_speakers)]
    speaker = np.concatenate([np.full(rng.integers(7, 18), s) for s in range(num_speakers)])
    return genders, speaker, rng.choice(len(CLASSES), len(speaker), p=[0.2, 0.1, 0.1, 0.2, 0.3, 0.1])


def ranks_of(rng, genders, speaker, consensus, skill, num_seeds):
    """[E, N] place of the consensus among the predicted shares, and [E, N] the 1-best class."""
    E, N, C = num_seeds, len(speaker), len(CLASSES)
    ease = rng.normal(0, 0.6, len(genders)) + np.array([0.5 if g == "male" else -0.2 for g in genders])
    logits = rng.normal(0, 1, (E, N, C)) + 0.6 * rng.normal(0, 1, (1, N, C))
    logits[:, np.arange(N), consensus] += skill + ease[speaker][None, :]
    logits[:, consensus == 0, 1] += 1.2
    own = logits[:, np.arange(N), consensus]
    return (logits > own[..., None]).sum(-1), logits.argmax(-1)


def uar(consensus: np.ndarray, is_right: np.ndarray) -> float:
    return float(np.mean([is_right[consensus == c].mean() for c in np.unique(consensus)]))


def metrics_of(genders, speaker, consensus, ranks, rows, has_attributes):
    """Metrics over the rows; the class and speaker scores are true to the ranks, the others plausible."""
    y, s, own = consensus[rows], speaker[rows], ranks[:, rows]
    known = [u for u in np.unique(s) if genders[u] != "unknown" or len(set(s)) == 1]
    entries, wide = {}, 0.2 / np.sqrt(max(len(known), 1))
    for n in NBEST:
        values = [uar(y, r < n) for r in own]
        entries[metric("uar", n)] = entry(values, wide, len(CLASSES), n / len(CLASSES))
        entries[metric("macro_f1", n, classes="present")] = entry([v - 0.011 for v in values], wide, len(CLASSES))
        per_speaker = {u: np.array([uar(y[s == u], (r < n)[s == u]) for r in own]) for u in known}
        for name, (least, classes) in SPEAKER_FILTERS.items():
            kept = [u for u in known if (s == u).sum() >= least and len(set(y[s == u])) >= classes]
            for t in THRESHOLDS:
                shares = kept and [
                    100 * np.mean([per_speaker[u][e] > t / 100 + 1e-9 for u in kept]) for e in range(len(own))
                ]
                chance = 2.4 * n * (4 if t == 50 else 1)
                share = metric("pa_uar", n, threshold=t, speakers=name)
                entries[share] = entry(shares or None, 100 * wide, len(kept), chance)
    right = [float((r < 1).mean()) for r in own]
    entries[metric("accuracy")] = entry(right, wide, len(y))
    entries[metric("weighted_f1")] = entry([v - 0.004 for v in right], wide, len(y))
    shares = (*(metric("class_ccc", label=name) for name in CLASSES), metric("class_ccc_mean"))
    for c, share in enumerate(shares):
        entries[share] = entry([0.3 + 0.02 * c + v / 9 for v in right], wide, len(y))
    entries[metric("jsd")] = entry([0.31 - v / 9 for v in right], wide, len(y))
    entries[metric("kl")] = entry([1.1] * len(own), wide, len(y))
    entries[metric("multi_label_f1", num_classes=6)] = entry([v - 0.05 for v in right], wide, len(CLASSES))
    if has_attributes:
        means = {"valence": 0.31, "activation": 0.62, "dominance": 0.55}
        for name, base in means.items():
            entries[metric("ccc", attribute=name)] = entry([base + v / 50 for v in right], wide, len(y))
        entries[metric("ccc_mean")] = entry([0.493 + v / 50 for v in right], wide, len(y))
    return entries


# What the records say of speakers where none is scored.
NO_SPEAKER_STATES = {"pa_uar_curve": {"thresholds": [], "filters": {}}, "speaker_sizes": [],
                     "speaker_dependence": {"num_speakers": 0}}  # fmt: skip


@functools.cache
def records_like(**settings):
    return records_of(**settings)


def records_of(seed=0, num_speakers=22, num_seeds=5, is_simulated=True, split="test", layers=(4,), **protocol):
    rng = np.random.default_rng(seed)
    genders, speaker, consensus = corpus_of(rng, num_speakers)
    card = {
        "corpus": "simulated" if is_simulated else "crema_d", "release": "1", "is_simulated": is_simulated,
        "notes": [NOTE] if is_simulated else ["Ratings are those of voice-only playback."], "split_hash": "5911ab",
        "classes": list(CLASSES), "backbone": "logmel", "checkpoint": "77aa", "code_version": "0.1 (abc1234)",
        "commit": "abc1234",
        "settings": {"eval.num_resamples": 1000, "eval.nbest": list(NBEST), "targets.class_set": "crema6"},
    } | protocol  # fmt: skip
    sex = np.array(genders)[speaker]
    groups = {"all": np.ones(len(speaker), bool)} | {g: sex == g for g in vocab.GENDERS}
    records = []
    for layer in layers:
        for target, skill in {"votes": 1.35, "consensus": 1.1}.items():
            ranks, best = ranks_of(rng, genders, speaker, consensus, skill + 0.02 * layer, num_seeds)
            by_group = {}
            for group, rows in groups.items():
                by_group[group] = metrics_of(genders, speaker, consensus, ranks, rows, has_attributes=is_simulated)
            gap = {}
            for name, own in by_group["female"].items():
                other = by_group["male"][name]
                both = (
                    None if not (own["defined"] and other["defined"]) else np.subtract(own["members"], other["members"])
                )
                gap[name] = entry(both, 0.05 * (100 if name.about.unit else 1), own["count"] + other["count"])
            confusion = np.zeros((len(CLASSES),) * 2, int)
            np.add.at(confusion, (np.broadcast_to(consensus, best.shape), best), 1)
            for group, numbers in (by_group | {"gap:female-male": gap}).items():
                rows = groups.get(group, groups["female"] | groups["male"])
                people = []
                if group == "all":
                    for u in np.flatnonzero(np.array(genders) != "") if group == "all" else []:
                        own, y = speaker == u, consensus[speaker == u]
                        scores = [float(np.mean([uar(y, (r < n)[own]) for r in ranks])) for n in NBEST]
                        people.append({"speaker": f"s{u:02d}", "gender": genders[u], "num_scored": int(own.sum()),
                                       "num_classes": len(set(y.tolist())), "uar": scores})  # fmt: skip
                axes = axes_of(target, layer, is_named=len(layers) > 1)
                records.append(schema.ResultRecord(
                    ensemble.label(axes), layer, tuple(range(num_seeds)), split, "clean", group, int(rows.sum()) + 20,
                    int(rows.sum()), len(set(speaker[rows])), entries_by_name(numbers),
                    NO_SPEAKER_STATES | {"class_names": list(CLASSES), "confusion": confusion.tolist()}
                    if group == "all" else {},
                    people, card, axes, GAP if group == "gap:female-male" else {},
                ))  # fmt: skip
    return records


def write_artefacts(workdir: Path, records=None, has_optional=True, is_simulated=True) -> Path:
    """What the stages leave in a workdir, with plausible numbers."""
    rng = np.random.default_rng(1)
    records = records_like(is_simulated=is_simulated) if records is None else records
    workdir.mkdir(parents=True, exist_ok=True)
    lines = "".join(artefacts.to_json(record) + "\n" for record in records)
    (workdir / "results.jsonl").write_text(lines)
    by_class = {name: int(n) for name, n in zip((*CLASSES, "no_agreement"), rng.integers(5, 60, 7), strict=True)}
    by_gender = {g: {"utterances": 100, "speakers": n} for g, n in zip(vocab.GENDERS, (12, 12, 1), strict=True)}
    ingest = {
        "corpus": {
            "corpus": "simulated" if is_simulated else "crema_d", "release": "1", "class_set": "crema6",
            "attribute_ranges": {}, "is_simulated": is_simulated, "notes": records[0].protocol["notes"],
        },
        "split_hash": "5911ab", "fingerprint": "f00d", "warnings": ["3 utterances are resampled when read"],
        "utterances": {"found": 700, "kept": 671, "excluded": {"silent": 3, "too_short": 26}},
        "ratings": {"found": 7000, "kept": 6703, "dropped": {"silent": 30, "too_short": 267}, "kept_voice": 6703},
        "excluded": {"silent": ["a", "b", "c"]}, "audio": {"hours": 0.52},
        "splits": {s: {"utterances": sum(by_class.values()), "speakers": 25, "by_gender": by_gender,
                       "by_class": by_class} for s in ("development", "test", "train")},
    }  # fmt: skip
    artefacts.write_json(workdir / "ingest.json", ingest)
    if not has_optional:
        return workdir
    layers = list(range(9))
    names = [*vocab.ATTRIBUTES, *CLASSES]
    peak = np.exp(-((np.array(layers)[:, None] - rng.uniform(3, 6, len(names))[None, :]) ** 2) / 12)
    curves = 0.04 + peak * rng.uniform(0.08, 0.24, len(names))[None, :]
    if not is_simulated:
        curves[:, :3] = 0.0
    score = curves[:, :3].mean(1) if is_simulated else curves[:, 3:].mean(1)
    artefacts.write_json(workdir / "saliency.json", {
        "layers": layers, "targets": names, "attributes": names[:3], "classes": names[3:], "warnings": [],
        "varies": [is_simulated] * 3 + [True] * len(CLASSES), "curves": {
            "ccs": curve_of(layers, curves, score), "dccs": curve_of(layers, curves * 1.5, score * 1.5),
            "probe": curve_of(layers, curves[::-1] * 2, score[::-1] * 2)},
        "variance_shares": {
            "gender": share_of(2, 0.1 - 0.01 * np.array(layers)),
            "speaker": share_of(20, 0.3 - 0.02 * np.array(layers)),
            "sentence": {"absent": "the utterance table has no column sentence"}},
        "kind": "ccs", "chosen": int(score.argmax()), "use": "attributes" if is_simulated else "votes",
        "num_utterances": 402,
    })  # fmt: skip
    members = [{"layer": 4, "class_target": t, "seed": s} for t in vocab.CLASS_TARGETS for s in range(5)]
    artefacts.write_json(workdir / "train" / "members.json", members)
    stops = rng.integers(9, 16, len(members))
    log = []
    for epoch in range(1, 16):
        pace = 1 - np.exp(-epoch / rng.normal(4, 0.2, len(members)))
        loss, score = 1.9 - 1.5 * pace, (0.8 if is_simulated else 0.5) * pace - 0.012 * np.maximum(epoch - 8, 0)
        score = np.where(epoch <= stops, score, np.nan)
        log.append({
            "epoch": epoch, "step": 9 * epoch, "train_loss": loss.tolist(), "is_active": (epoch < stops).tolist(),
            "development_score": [None if np.isnan(v) else float(v) for v in score], "examples_per_s": 210.0,
        })  # fmt: skip
    (workdir / "train" / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in log))
    return workdir


@pytest.fixture(scope="module")
def reported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workdir with its report, drawn for real."""
    workdir = write_artefacts(tmp_path_factory.mktemp("reported"))
    assert report.run(workdir) == workdir / "report" / "index.html"
    return workdir


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Figures that were asked for, as objects; nothing is rendered."""
    figures_asked = []

    def render(draw, png_path):
        figures_asked.append((png_path.name, draw(look.LIGHT)))
        return "<svg/>", "<svg/>"

    monkeypatch.setattr(look, "render", render)
    return figures_asked


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> list:
    """Names of the figures that were asked for; nothing is drawn."""
    names = []
    monkeypatch.setattr(look, "render", lambda draw, path: names.append(path.name) or ("<svg/>", "<svg/>"))
    return names


@pytest.fixture(scope="module")
def whole(reported: Path) -> tuple[page.Page, dict]:
    """The page of `reported`, and its figures as objects by file name."""
    by_file = {}

    def render(draw, png_path):
        by_file[png_path.name] = draw(look.LIGHT)
        return "<svg/>", "<svg/>"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(look, "render", render)
        return page_of(reported, reported), by_file


def page_of(workdir: Path, folder: Path) -> page.Page:
    return overview.page_of(report.load(workdir), folder)


def tables_of(content: page.Page) -> dict[str, Table]:
    return {item.title: item for section in content.sections for item in section.items if isinstance(item, Table)}


def text_of_figure(figure) -> str:
    return " ".join(text.get_text() for text in figure.findobj(lambda item: hasattr(item, "get_text")))


def raw_records(workdir: Path) -> list[dict]:
    return [json.loads(line) for line in (workdir / "results.jsonl").read_text().splitlines()]


def expected_cell(name: str, metric: dict, sign: str = "") -> str:
    digits = 1 if "paUAR" in name else 3
    if metric["value"] is None:
        return "–"
    numbers = [
        format(metric[key], f"{sign if key == 'value' else ''}.{digits}f") for key in ("value", "sd", "low", "high")
    ]
    return "{} ± {} [{}, {}]".format(*numbers)


def rows_of_markdown(text: str, title: str) -> list[list[str]]:
    lines = text.split(f"**{title}**\n\n", 1)[1].split("\n\n", 1)[0].splitlines()
    return [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines if not line.startswith("| -")
    ]


def test_every_cell_is_the_records_number(reported):
    text = (reported / "report" / "report.md").read_text()
    records = {(r["system"], r["group"]): r["metrics"] for r in raw_records(reported)}
    system_of = {"vote distribution": "votes", "consensus": "consensus"}
    header, *rows = rows_of_markdown(text, "Scores of every system")
    assert header[:4] == ["system", "UAR", "2-best UAR", "3-best UAR"]
    assert header[4:] == ["macro-F1 (present)", "weighted-F1", "class CCC mean", "CCC valence", "CCC activation",
                          "CCC dominance", "CCC mean"]  # fmt: skip
    assert [row[0] for row in rows] == ["vote distribution", "consensus", "chance (random ranking)"]
    for system, *cells in rows[:2]:
        metrics = records[system_of[system], "all"]
        assert cells == [expected_cell(name, metrics[name]) for name in header[1:]]
    assert rows[2][1:4] == ["0.167", "0.333", "0.500"]
    assert set(rows[2][4:]) == {"–"}

    header, *rows = rows_of_markdown(text, "Speakers above a threshold (paUAR)")
    assert [row[0] for row in rows] == ["vote distribution", "consensus", "chance"] * 4
    assert [row[1] for row in rows] == ["above 0.75"] * 6 + ["above 0.50"] * 6
    for system, above, filter_, count, *cells in rows:
        names = [f"paUAR-{above[-2:]} ({n}-best, {filter_})" for n in NBEST]
        if system == "chance":
            metrics = records["votes", "all"]
            assert cells == [f"{metrics[name]['chance']:.1f}" for name in names]
        else:
            metrics = records[system_of[system], "all"]
            assert cells == [expected_cell(name, metrics[name]) for name in names]
            assert {count} == {str(metrics[name]["count"]) for name in names}

    header, *rows = rows_of_markdown(text, "Scores by group of speakers")
    assert [row[0] for row in rows] == [g for g in (*vocab.GENDERS, "gap: female - male") for _ in range(2)]
    for group, system, _, _, *cells in rows:
        key = "gap:female-male" if group.startswith("gap") else group
        sign = "+" if group.startswith("gap") else ""
        assert cells == [expected_cell(n, records[system_of[system], key][n], sign) for n in header[4:]]

    header, *rows = rows_of_markdown(text, "CCC of the share of each class")
    assert header == ["system", *CLASSES]
    assert rows[1][1:] == [expected_cell(c, records["consensus", "all"][f"class CCC {c}"]) for c in CLASSES]


def test_no_metric_is_lost(reported, whole):
    shown = {name for table in tables_of(whole[0]).values() for name in table.header}
    names = set(raw_records(reported)[0]["metrics"])
    left = {n for n in names - shown if not n.startswith("paUAR") and n.removeprefix("class CCC ") not in CLASSES}
    assert left == set()


def test_csv_holds_every_number_unrounded(reported):
    folder, records = reported / "report", raw_records(reported)
    rows = list(csv.DictReader(io.StringIO((folder / "results.csv").read_text())))
    assert len(rows) == sum(len(record["metrics"]) for record in records)
    by_key = {(row["system"], row["group"], row["metric"]): row for row in rows}
    for record in records:
        for name, numbers in record["metrics"].items():
            row = by_key[record["system"], record["group"], name]
            for key in ("value", "low", "high", "sd"):
                assert row[key] == ("" if numbers[key] is None else repr(numbers[key]))
            assert row["is_defined"] == str(numbers["defined"])
            assert [float(v) for v in row["members"].split()] == [v for v in numbers["members"] if v is not None]
    speakers = list(csv.DictReader(io.StringIO((folder / "speakers.csv").read_text())))
    expected = [(r["system"], s["speaker"], s["uar"]) for r in records for s in r["speakers"]]
    assert [(s["system"], s["speaker"], [float(s[f"uar_{n}_best"]) for n in NBEST]) for s in speakers] == expected
    saliency = json.loads((reported / "saliency.json").read_text())
    curve = list(csv.DictReader(io.StringIO((folder / "saliency.csv").read_text())))
    assert len(curve) == len(saliency["layers"]) * (3 * (len(saliency["targets"]) + 1) + 2)
    for factor in ("gender", "speaker"):
        own = [row for row in curve if (row["curve"], row["target"]) == ("variance_share", factor)]
        assert [float(row["value"]) for row in own] == saliency["variance_shares"][factor]["share"]
        assert [float(row["high"]) for row in own] == saliency["variance_shares"][factor]["high"]
    for kind in ("ccs", "dccs", "probe"):
        own = [row for row in curve if row["curve"] == kind]
        valence = [float(row["value"]) for row in own if row["target"] == "valence"]
        assert valence == [layer[0] for layer in saliency["curves"][kind]["per_layer"]]
        assert [float(row["low"]) for row in own if row["target"] == "score"] == saliency["curves"][kind]["low"]
    assert {(row["curve"], row["layer"]) for row in curve if row["is_chosen"] == "True"} == {
        ("ccs", str(saliency["chosen"]))
    }
    for table in (rows, speakers, curve):
        assert {row["is_simulated"] for row in table} == {"True"}


def test_all_files_are_there(reported):
    names = {path.name for path in (reported / "report").iterdir()}
    assert names == {
        "index.html",
        "report.md",
        "results.csv",
        "speakers.csv",
        "saliency.csv",
        *(f"{n}.png" for n in PNGS),
    }
    for name in PNGS:
        data = (reported / "report" / f"{name}.png").read_bytes()
        assert data[:4] == b"\x89PNG"
        assert int.from_bytes(data[16:20], "big") > 1200  # pixels wide: fit for a slide


VOID = {"meta", "img", "source", "br", "link", "input", "hr"}


class Checker(html.parser.HTMLParser):
    """Balance of tags, everything the page would load, ids and links."""

    def __init__(self):
        super().__init__()
        self.open, self.loads, self.ids, self.links, self.images, self.text = [], [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if tag not in VOID:
            self.open.append(tag)
        self.loads += [attributes[key] for key in ("src", "srcset") if key in attributes]
        self.ids += [attributes["id"]] if "id" in attributes else []
        self.links += [attributes["href"]] if "href" in attributes else []
        if tag == "img":
            self.images.append(attributes)
        assert tag not in ("link", "iframe")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not {"style", "script"} & set(self.open):
            self.text.append(data)


def test_html_is_one_whole_self_contained_page(reported):
    source = (reported / "report" / "index.html").read_text()
    checker = Checker()
    checker.feed(source)
    checker.close()
    assert checker.open == []
    assert len(checker.loads) == 2 * len(PNGS)
    assert all(load.startswith("data:image/svg+xml;base64,") for load in checker.loads)
    assert all(link.startswith("#") and link[1:] in checker.ids for link in checker.links)
    assert len(set(checker.ids)) == len(checker.ids)
    assert all(image["alt"] for image in checker.images)
    style = source.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    assert "prefers-color-scheme: dark" in style
    assert "@media print" in style
    text = " ".join(checker.text)
    for record in raw_records(reported):
        uar = record["metrics"]["UAR"]
        assert f"{uar['value']:{'+' if 'gap' in record['group'] else ''}.3f}" in text


def test_words_of_the_data_cannot_break_the_page(undrawn, tmp_path):
    records = records_of(**SMALL, notes=["<b>|bold</b>"])
    content = page_of(write_artefacts(tmp_path / "w", records, has_optional=False), tmp_path)
    assert "&lt;b&gt;|bold" in page.html(content)
    assert "<b>|bold" not in page.html(content)


def test_simulated_speech_is_named_everywhere(reported, whole):
    content, drawn = whole
    assert set(drawn) == {f"{name}.png" for name in PNGS}
    for name, figure in drawn.items():
        assert "simulated speech" in text_of_figure(figure), name
    for section in content.sections:
        for item in section.items:
            assert item.caption.startswith(("Simulated speech", "Genders: speakers. Simulated speech")), item
    assert content.banner.startswith("Simulated speech")
    assert NOTE in content.banner
    assert content.banner in page.markdown(content)
    assert "(simulated speech)</title>" in page.html(content)
    assert "Simulated speech" in report.markdown_summary(reported)


def test_shares_of_variance_stand_beside_the_curves(drawn, tmp_path):
    workdir = write_artefacts(tmp_path / "w")
    content = page_of(workdir, tmp_path)
    whole, figures = page.markdown(content), dict(drawn)
    text = text_of_figure(figures["variance_shares.png"])
    assert all(words in text for words in ("gender (2)", "speaker (20)", "What else a layer holds"))
    assert tables_of(content)["What else a layer holds"].header == ("layer", "gender (2)", "speaker (20)")
    assert "No share of variance by sentence: the utterance table has no column sentence." in whole
    curves = json.loads((workdir / "saliency.json").read_text())["curves"]
    titles = [ax.get_title() for ax in figures["layer_curves.png"].axes]
    assert titles == [
        f"ccs: layer {curves['ccs']['chosen']} (in use)",
        f"dccs: layer {curves['dccs']['chosen']}",
        f"ridge probe: layer {curves['probe']['chosen']}",
    ]


def test_saliency_of_an_older_version_has_two_curves_and_no_shares(drawn, tmp_path):
    workdir = write_artefacts(tmp_path / "w")
    saliency = json.loads((workdir / "saliency.json").read_text())
    del saliency["curves"]["dccs"], saliency["variance_shares"]
    artefacts.write_json(workdir / "saliency.json", saliency)
    content = page_of(workdir, tmp_path)
    assert "variance_shares.png" not in dict(drawn)
    assert len(dict(drawn)["layer_curves.png"].axes) == 2
    assert "What else a layer holds" not in tables_of(content)


def test_real_speech_is_never_called_simulated(drawn, tmp_path):
    workdir = write_artefacts(tmp_path / "w", is_simulated=False)
    content = page_of(workdir, tmp_path)
    whole = page.html(content) + page.markdown(content) + report.markdown_summary(workdir)
    whole += "".join(text_of_figure(figure) for _, figure in drawn)
    assert "imulated speech" not in whole
    assert all("voice-only playback" in table.caption for table in tables_of(content).values() if not table.is_folded)
    # No ratings of attributes: no column, no curve.
    assert not any("valence" in name for table in tables_of(content).values() for name in table.header)
    assert "valence" not in text_of_figure(dict(drawn)["saliency.png"])


def test_caption_says_how_many(reported, whole):
    record = raw_records(reported)[0]
    for table in tables_of(whole[0]).values():
        if "Cells:" in table.caption:
            for words in (
                f"{record['num_speakers']} speakers", f"{record['num_utterances']} utterances",
                f"{record['num_scored']} of them with a consensus", "5 seeds", "1,000 resamples", "95 % interval",
            ):  # fmt: skip
                assert words in table.caption


def test_what_is_not_defined_is_a_dash():
    def shown(metric, entry):
        return str(measured(entry, metric))

    assert shown(score_tables.UAR, entry(None, 0.1, 0)) == "–"
    assert shown(score_tables.UAR, None) == "–"
    undefined = {"value": float("nan"), "members": [], "defined": True}
    assert shown(score_tables.UAR, undefined) == "–"
    assert shown(score_tables.UAR, entry([0.5], 0.1, 6)) == "0.500 [0.400, 0.600]"
    without = {**entry([0.5, 0.7], 0.1, 6), "low": None, "high": None}
    assert shown(score_tables.UAR, without) == "0.600 ± 0.141"
    assert shown(score_tables.SPEAKER_SHARE, entry([5.0, 15.0], 4, 6)) == "10.0 ± 7.1 [6.0, 14.0]"


def test_rows_of_different_protocol_are_refused(tmp_path):
    votes, consensus = records_of(**SMALL, code_version="0.1 (abc1234)"), records_of(**SMALL, code_version="0.2 (fff)")
    mixed = [r for r in votes if r.system == "votes"] + [r for r in consensus if r.system == "consensus"]
    workdir = write_artefacts(tmp_path, mixed, has_optional=False)
    with pytest.raises(report.ReportError, match=r"code_version: '0.1 \(abc1234\)' against '0.2 \(fff\)'") as error:
        report.run(workdir)
    assert "split_hash" not in str(error.value)
    assert not (workdir / "report").exists()
    nested = records_of(**SMALL, settings={"data.modality": "face"})
    mixed = [r for r in votes if r.system == "votes"] + [r for r in nested if r.system == "consensus"]
    with pytest.raises(report.ReportError, match=r"settings\.data\.modality: None against 'face'"):
        blocks.blocks(mixed, is_simulated=True)


def test_systems_may_differ_in_what_is_compared():
    votes = records_of(**SMALL, checkpoint="aa", settings={"train.seed": 1, "targets.class_target": "votes"})
    consensus = records_of(**SMALL, checkpoint="bb", settings={"train.seed": 2, "targets.class_target": "consensus"})
    both = [r for r in votes if r.system == "votes"] + [r for r in consensus if r.system == "consensus"]
    (block,) = blocks.blocks(both, is_simulated=True)
    assert block.systems == ("vote distribution", "consensus")
    seeds = [r for r in records_of(**SMALL, settings={"eval.seed": 1}) if r.system == "consensus"]
    with pytest.raises(report.ReportError, match=r"settings\.eval\.seed"):
        blocks.blocks([r for r in records_of(**SMALL, settings={"eval.seed": 0}) if r.system == "votes"] + seeds, True)


def test_what_a_group_compares_is_data():
    plain, _ = (r for r in records_of(**SMALL) if r.group == "all")
    compared = {
        "f": ({}, "f"),
        "x": (GAP, "gap: female - male"),
        "y": ({"kind": "gap", "column": "corpus"}, "gap: corpus"),
        "z": ({"kind": "worst", "column": "corpus"}, "worst group: corpus"),
        "ratio:no": ({"kind": "ratio", "column": "gender"}, "ratio, smaller / larger: gender"),
    }
    others = [dataclasses.replace(plain, group=name, comparison=data) for name, (data, _) in compared.items()]
    (block,) = blocks.blocks([plain, *others], is_simulated=True)
    assert [block.group_label(group) for group in block.groups] == [words for _, words in compared.values()]
    assert [block.is_gap(group) for group in block.groups] == [False, True, True, False, False]


def test_other_utterances_twice_the_same_and_no_whole_are_refused():
    records = records_of(**SMALL)
    others = [r for r in records_of(**SMALL, seed=3) if r.system == "consensus"]
    with pytest.raises(report.ReportError, match="num_scored"):
        blocks.blocks([r for r in records if r.system == "votes"] + others, True)
    with pytest.raises(report.ReportError, match="two records for system 'vote distribution', group 'all'"):
        blocks.blocks([*records, records[0]], True)
    with pytest.raises(report.ReportError, match="no record of group 'all'"):
        blocks.blocks([r for r in records if (r.system, r.group) != ("votes", "all")], True)


def test_splits_stand_in_tables_and_files_of_their_own(undrawn, tmp_path):
    records = records_of(**SMALL, split="test1") + records_of(**SMALL, seed=5, split="test2")
    content = page_of(write_artefacts(tmp_path / "w", records), tmp_path)
    keys = [section.key for section in content.sections]
    assert len(set(keys)) == len(keys)
    assert {"scores-test1-clean", "scores-test2-clean"} <= set(keys)
    assert {"confusion_test1_clean.png", "confusion_test2_clean.png", "saliency.png"} <= set(undrawn)
    captions = [item.caption for s in content.sections if s.key.startswith("scores") for item in s.items]
    assert ["Test1 split" in captions[0], "Test2 split" in captions[1]] == [True, True]


def test_many_systems_are_all_in_the_tables_and_some_in_the_figures(undrawn, tmp_path):
    content = page_of(write_artefacts(tmp_path / "w", records_of(**SMALL, layers=(1, 2, 3, 4))), tmp_path)
    scores = tables_of(content)["Scores of every system"]
    assert [row.labels[0] for row in scores.rows[:2]] == ["layer 1, vote distribution", "layer 1, consensus"]
    assert len(scores.rows) == 9
    assert "one seed" in scores.caption
    pictures = [
        i for s in content.sections for i in s.items if isinstance(i, page.Picture) and i.file == "confusion.png"
    ]
    assert "first 6 of 8 systems" in pictures[0].caption


def test_missing_and_damaged_artefacts(tmp_path, undrawn):
    with pytest.raises(report.ArtefactError, match=r"results\.jsonl is missing; run python -m launch\.evaluate"):
        report.run(tmp_path)
    workdir = write_artefacts(tmp_path, has_optional=False)
    report.run(workdir)
    text = (workdir / "report" / "report.md").read_text()
    assert "No saliency was ranked" in text
    assert "No training log" in text
    assert not (workdir / "report" / "saliency.csv").exists()
    whole = (workdir / "results.jsonl").read_text()
    (workdir / "results.jsonl").write_text(whole + '{"system": "vo')
    with pytest.raises(report.ArtefactError, match=r"results\.jsonl:11 is damaged"):
        report.run(workdir)
    (workdir / "results.jsonl").write_text("")
    with pytest.raises(report.ArtefactError, match="holds no record"):
        report.run(workdir)
    (workdir / "results.jsonl").write_text(whole.replace("5911ab", "0ther"))
    with pytest.raises(report.ArtefactError, match=r"split_hash.*'0ther'.*'5911ab'"):
        report.run(workdir)
    (workdir / "ingest.json").unlink()
    with pytest.raises(report.ArtefactError, match=r"ingest\.json is missing; run python -m launch\.ingest"):
        report.run(workdir)


def test_an_old_report_survives_a_failure(tmp_path, monkeypatch, undrawn):
    workdir = write_artefacts(tmp_path)
    report.run(workdir)
    before = {path.name: path.read_bytes() for path in (workdir / "report").iterdir()}

    def fail(content):
        raise OSError("no space left on device")

    monkeypatch.setattr(page, "markdown", fail)
    with pytest.raises(OSError, match="no space"):
        report.run(workdir)
    assert {path.name: path.read_bytes() for path in (workdir / "report").iterdir()} == before
    assert artefacts.remove_leftovers(workdir) == 0


def test_summary_sets_systems_side_by_side(reported):
    text = report.markdown_summary(reported)
    header, *rows = rows_of_markdown(text, "Scores, test split, clean")
    assert header == ["", "vote distribution", "consensus", "chance"]
    records = {r["system"]: r["metrics"] for r in raw_records(reported) if r["group"] == "all"}
    for name, votes, consensus, _ in rows:
        plain = name.removesuffix(" (%)")
        assert votes == expected_cell(plain, records["votes"][plain])
        assert consensus == expected_cell(plain, records["consensus"][plain])
    assert "paUAR-75 (1-best, all) (%)" in [row[0] for row in rows]


def signs_of(**values) -> str:
    """Signs of one system whose metrics are given as name=(value, low, high)."""
    uar = score_tables.UAR
    shown = {"uar": uar, "share": score_tables.SPEAKER_SHARE, "valence": metric("ccc", attribute="valence"),
             "activation": metric("ccc", attribute="activation")}  # fmt: skip
    entries = {shown[k]: dict(zip(("value", "low", "high"), v, strict=True)) for k, v in values.items() if k in shown}
    if uar in entries:
        entries[uar]["chance"] = 1 / len(CLASSES)
    metrics = entries_by_name(entries)
    states = {"class_names": list(CLASSES), "confusion": values.get("confusion")}
    group = [("all", metrics, states)]
    if "gap" in values:
        gap = {uar: dict(zip(("value", "low", "high"), values["gap"], strict=True))}
        group.append(("gap:female-male", entries_by_name(gap), {}))
    num_speakers = values.get("num_speakers", 40)
    records = [
        schema.ResultRecord(
            "votes",
            4,
            (0,),
            "test",
            "clean",
            g,
            99,
            90,
            num_speakers,
            m,
            s,
            [],
            {},
            axes_of("votes"),
            {} if g == "all" else GAP,
        )
        for g, m, s in group
    ]
    (block,) = blocks.blocks(records, is_simulated=False)
    return " ".join(failure_signs.of_scores(block))


def test_failure_signs_are_printed_when_they_apply_and_only_then():
    good, high = (0.6, 0.5, 0.7), (60.0, 50.0, 70.0)
    assert signs_of(uar=good, share=high, valence=(0.6, 0.5, 0.7), activation=(0.7, 0.6, 0.8), gap=(0.01, 0, 0.1)) == ""
    assert "beat chance" in signs_of(uar=(0.2, 0.16, 0.24))
    assert "beat chance" not in signs_of(uar=(0.2, 0.17, 0.24))
    assert "few speakers are served" in signs_of(uar=good, share=(5.0, 0.0, 12.0))
    assert "few speakers are served" not in signs_of(uar=(0.2, 0.18, 0.3), share=(5.0, 0.0, 12.0))
    assert "Valence is far below" in signs_of(valence=(0.3, 0.2, 0.4), activation=(0.6, 0.5, 0.7))
    assert "includes 0" in signs_of(gap=(-0.06, -0.15, 0.02))
    assert "excludes 0" in signs_of(gap=(-0.06, -0.1, -0.02))
    assert "Few speakers (8)" in signs_of(num_speakers=8)
    counts = np.full((6, 6), 2)
    assert "Confusion among" not in signs_of(confusion=counts.tolist())
    counts[0, 1] = 30
    assert "67 % of the errors on angry, disgust" in signs_of(confusion=counts.tolist())
    assert failure_signs.of_saliency([0, 1, 2], 1) == []
    assert "last layer (2)" in failure_signs.of_saliency([0, 1, 2], 2)[0]


def test_errors_inside_equals_a_loop():
    counts = np.random.default_rng(0).integers(0, 9, (6, 6))
    members, inside, errors = [1, 2, 5], 0, 0
    for y, guess in np.ndindex(6, 6):
        if y in members and guess != y:
            errors += counts[y, guess]
            inside += counts[y, guess] * (guess in members)
    assert failure_signs.errors_inside(counts, members) == (inside, errors)


def test_training_curves_stop_with_their_member(reported, whole):
    axes = whole[1]["training.png"].axes
    log = [json.loads(line) for line in (reported / "train" / "log.jsonl").read_text().splitlines()]
    for s in range(2):
        loss, score = (
            np.array([[np.nan if v is None else v for v in line[key][5 * s : 5 * s + 5]] for line in log], float)
            for key in ("train_loss", "development_score")
        )
        loss[np.isnan(score)] = np.nan
        for ax, values in zip(axes, (loss, score), strict=True):
            lines = [line for line in ax.lines if line.get_label() == ("vote distribution", "consensus")[s]]
            expected = [np.nanmean(row) if np.isfinite(row).any() else np.nan for row in values]
            np.testing.assert_allclose(np.ma.filled(lines[0].get_ydata(), np.nan), expected)


def test_a_system_has_one_color_in_all_figures(whole):
    by_file = whole[1]
    votes, consensus = look.LIGHT.systems[:2]
    for name in ("training.png", "speaker_shares.png"):
        lines = by_file[name].findobj(lambda item: hasattr(item, "get_marker"))
        colors = {line.get_label(): line.get_color() for line in lines}
        assert (colors["vote distribution"], colors["consensus"]) == (votes, consensus)
    for name in ("speakers.png", "confusion.png"):
        texts = by_file[name].findobj(lambda item: hasattr(item, "get_text"))
        colors = {text.get_text(): text.get_color() for text in texts}
        assert (colors["vote distribution"], colors["consensus"]) == (votes, consensus)


def test_same_figure_same_bytes(tmp_path):
    def draw(theme):
        style = look.Look(theme, "simulated speech", ("a",))
        counts = np.arange(4.0).reshape(2, 2) * np.array([[0], [1]])
        return figures.confusion(style, ("x", "y"), {"a": counts}, is_mean=False)

    first = look.render(draw, tmp_path / "1.png")
    assert first == look.render(draw, tmp_path / "2.png")
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()
    assert first[0] != first[1]
    assert look.DARK.paper in first[1]


def test_labels_and_dots_keep_apart():
    positions = np.array([0.5, 0.1, 0.11, 0.12, 0.9])
    placed = layer_figures._spread(positions, 0.05)
    assert (np.diff(np.sort(placed)) > 0.05 - 1e-12).all()
    assert (np.argsort(placed) == np.argsort(positions, kind="stable")).all()
    assert placed[[0, 4]] == pytest.approx([0.5, 0.9])
    offsets = figures._swarm(np.full(99, 0.5), 0.36)
    assert len(set(offsets)) == 99
    assert np.abs(offsets).max() <= 0.36 + 1e-12
