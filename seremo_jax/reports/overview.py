"""The sections of the report: which tables, pictures and sentences stand where."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.core import vocab
from seremo_jax.core.ensemble import layer_word
from seremo_jax.data import ingest
from seremo_jax.metrics import catalogue
from seremo_jax.reports import (
    calibration_section,
    condition_section,
    failure_signs,
    figures,
    layer_section,
    look,
    page,
    rater_rows,
    score_tables,
    served_tables,
    speaker_section,
    transfer_section,
)
from seremo_jax.reports.artefacts import Artefacts, member_systems, picture
from seremo_jax.reports.blocks import COUNTS, Block, is_number, value_of
from seremo_jax.reports.table import NOTHING, Row, Table, plain

MOST_SYSTEMS = 6
"""Systems a figure shows; all are in the tables."""

_MOST_TILES = 3
"""Systems with numbers at the top of the page."""

_EXPLAINED_THERE = {"calibration", "conditions"}
"""Tables of metrics whose sections explain their words themselves."""


def page_of(artefacts: Artefacts, folder: Path) -> page.Page:
    """Everything the report says.

    Args:
      artefacts: What it is made from.
      folder: Where the figures are drawn on the way.
    """
    corpus = artefacts.ingest.get("corpus", {})
    name, release = corpus.get("corpus", "?"), corpus.get("release", "")
    backbone = artefacts.protocol.get("backbone", "?")
    trained = transfer_section.origin(artefacts.blocks[0])
    other = transfer_section.section(artefacts.blocks[0])
    sections = [] if other is None else [other]
    for block in artefacts.whole_blocks:
        sections += _block_sections(artefacts, block, folder)
    sections += condition_section.sections_of(
        artefacts.blocks, lambda name, words, draw: picture(artefacts, None, folder, name, words, draw)
    )
    # Layers were ranked, and heads trained, in the workdir of the model.
    own = [] if trained else [layer_section.saliency_section(artefacts, folder), _training_section(artefacts, folder)]
    sections += [
        *own,
        data_section(
            artefacts.ingest, artefacts.blocks[0].class_names, "Simulated speech. " if artefacts.is_simulated else ""
        ),
        _protocol_section(artefacts),
        page.Section(
            "glossary", "Glossary", terms=(*page.GLOSSARY, *catalogue.glossary(catalogue.TABLES - _EXPLAINED_THERE))
        ),
    ]
    origin = f", a model trained on {trained['corpus']}" if trained else ""
    banner = f"Simulated speech. {' '.join(corpus.get('notes', ()))}".strip() if artefacts.is_simulated else ""
    return page.Page(
        f"Speech emotion recognition on {name}{' speech' if name == 'simulated' else ''}",
        f"Release {release or 'not named'}, backbone {backbone}{origin}: the scores, and for how many speakers they "
        "hold.",
        banner,
        tuple(_tiles(artefacts.blocks[0])),
        tuple(sections),
    )


def _tiles(block: Block) -> Iterable[page.Tile]:
    """The UAR of the first systems and their share of speakers above the high threshold, with interval and chance."""
    share = served_tables.main_share(block)
    kind = "true UAR" if share == served_tables.TRUE_SHARE else "UAR"
    above = f"speakers with a {kind} above {score_tables.HIGH_THRESHOLD / 100:.2f}"
    for metric, words in ((score_tables.UAR, "UAR"), (share, above)):
        digits, unit = metric.about.digits, f" {metric.about.unit}".rstrip()
        for system in block.systems[:_MOST_TILES]:
            entry = block.entry(system, metric)
            if (value := value_of(entry)) is not None:
                low, high, chance = entry.get("low"), entry.get("high"), block.chance(metric)
                has_interval = is_number(low) and is_number(high)
                notes = [f"95 % interval {low:.{digits}f} to {high:.{digits}f}"] if has_interval else []
                if chance is not None:
                    notes.append(f"chance {chance:.{digits}f}{unit}")
                if metric == served_tables.TRUE_SHARE:
                    observed = block.value(system, score_tables.SPEAKER_SHARE)
                    notes.append(f"observed {observed:.{digits}f}{unit}")
                yield page.Tile(f"{words}, {system}", f"{value:.{digits}f}{unit}", "; ".join(notes))


def _block_sections(artefacts: Artefacts, block: Block, folder: Path) -> list[page.Section]:
    many = len(artefacts.whole_blocks) > 1
    key = f"-{block.split}-{block.condition}" if many else ""
    place = f": {block.split}, {block.condition}" if many else ""
    shown = block.systems[:MOST_SYSTEMS]
    left = f" The first {len(shown)} of {len(block.systems)} systems." if len(shown) < len(block.systems) else ""

    def drawn(name: str, what: str, how: str, draw: Callable[[look.Look], Figure]) -> page.Picture:
        return picture(artefacts, block, folder, name, (what, how + left), draw)

    points, chance = score_tables.speaker_points(block, shown)
    entries = {system: _speaker_entries(block, system) for system in shown}
    shares = {system: {t: points[system][t, f, n][0] for t, f, n in points[system] if (f, n) == ("all", 1)}
              for system in shown}  # fmt: skip
    raters = {t: value for (t, f, _), value in rater_rows.shares(block).items() if f == "all"}
    counts = {system: matrix for system in shown if (matrix := block.confusion(system)) is not None}
    speakers: list[Table | page.Picture] = [score_tables.speaker_table(block)]
    if chance or any(points.values()):
        speakers.append(drawn(
            "speaker_shares", "Share of speakers above the thresholds, by N",
            "Markers: value; bars: 95 % interval resampled by speaker.",
            lambda style: figures.speaker_shares(style, points, chance, rater_rows.shares(block)),
        ))  # fmt: skip
    if any(entries.values()):
        speakers.append(drawn(
            "speakers", "UAR of every speaker, by gender",
            "paUAR in the figure is that of the table (mean over seeds of the share, all speakers counted).",
            lambda style: figures.speakers(style, entries, shares, raters),
        ))  # fmt: skip
    speakers += speaker_section.items(block, shown, drawn)
    classes: list[Table | page.Picture] = []
    if counts:
        is_mean = any(len(block.whole(system).seeds) > 1 for system in counts)
        classes.append(drawn(
            "confusion", "Confusion matrices", "Rows sum to 100 %.",
            lambda style: figures.confusion(style, block.class_names, counts, is_mean),
        ))  # fmt: skip
    tables = (
        score_tables.class_table,
        score_tables.recall_table,
        score_tables.attribute_table,
        served_tables.strata_table,
        score_tables.other_table,
    )
    classes += [table for make in tables if (table := make(block)).rows]
    makers = (score_tables.spread_table, score_tables.difference_table)
    further = [table for make in makers if (table := make(block)).rows]
    groups = (score_tables.group_table(block),) if block.groups else ()
    sure = calibration_section.section(block, f"Knowing when not to answer{place}", f"calibration{key}", shown, drawn)
    return [
        page.Section(f"scores{key}", f"Scores{place}", signs=tuple(failure_signs.of_scores(block)),
                     items=(score_tables.score_table(block), *further)),
        page.Section(f"speakers{key}", f"Speakers{place}", items=tuple(speakers)),
        page.Section(f"groups{key}", f"Groups{place}", items=groups,
                     text=() if groups else ("The records hold no groups of speakers.",)),
        page.Section(f"classes{key}", f"Classes{place}", items=tuple(classes)),
        sure,
    ]  # fmt: skip


def _speaker_entries(block: Block, system: str) -> list[dict[str, Any]]:
    first = block.nbest.index(1)
    return [{**speaker, "uar": speaker["uar"][first]} for speaker in block.whole(system).speakers]


def _training_section(artefacts: Artefacts, folder: Path) -> page.Section:
    if artefacts.log is None:
        text = "No training log in this workdir (train/log.jsonl and train/members.json; python -m launch.train)."
        return page.Section("training", "Training", (text,))
    lines, members = artefacts.log
    systems = member_systems(members)
    epochs = np.array([line["epoch"] for line in lines])
    loss, score = (np.array([line[key] for line in lines], np.float64) for key in ("train_loss", "development_score"))
    # A member that has stopped has no score any more, and its loss is frozen.
    loss = np.where(np.isfinite(score), loss, np.nan)
    curves = {}
    for system in list(dict.fromkeys(systems))[:MOST_SYSTEMS]:
        own = [e for e, name in enumerate(systems) if name == system]
        curves[system] = (epochs, loss[:, own], score[:, own])
    score_name = artefacts.protocol.get("settings.train.selection", "ccc")
    curves_picture = picture(
        artefacts, None, folder, "training",
        ("Training loss and development score by epoch",
         f"The score is {vocab.SELECTION_SCORES[score_name]}. Each member is scored against its own class target, so "
         "that the curves of two systems do not compare."),
        lambda style: figures.training(style, curves),
    )  # fmt: skip
    num_systems = len(dict.fromkeys(systems))
    text = f"{len(members)} members ({num_systems} systems) trained together for at most {epochs.max()} epochs."
    return page.Section("training", "Training", (text,), items=(curves_picture,))


def _protocol_section(artefacts: Artefacts) -> page.Section:
    """The protocol card: the facts first, every setting folded below."""
    common, first = artefacts.protocol, artefacts.blocks[0]
    written = {f"settings.{name}": name for name in first.whole(first.systems[0]).protocol.get("settings", {})}
    settings = [Row((name, _words(common[field]))) for field, name in written.items() if field in common]
    facts = [(field.replace("_", " "), _words(value)) for field, value in common.items()
             if field not in COUNTS and field not in written]  # fmt: skip
    for block in artefacts.blocks[1:]:
        differing = sorted(f for f in block.protocol if block.protocol[f] != common.get(f))
        for field in differing:
            if field not in COUNTS:
                facts.append((f"{field} on {block.split}, {block.condition}", str(block.protocol[field])))
    for system in first.systems:
        record = first.whole(system)
        seeds = ", ".join(map(str, record.seeds))
        facts.append(
            (
                f"system: {system}",
                f"layer {layer_word(record.layer)}, seeds {seeds}, "
                f"checkpoint {record.protocol.get('checkpoint', NOTHING)}",
            )
        )
    speech = "Simulated speech. " if artefacts.is_simulated else ""
    caption = f"{speech}Without those in which compared systems may differ."
    table = Table(
        "Every setting that changes results", ("setting", "value"), (), tuple(settings), caption, is_folded=True
    )
    text = "A number may be compared with another only where all of this is the same."
    return page.Section("protocol", "Protocol", (text,), items=(table,) if settings else (), terms=tuple(facts))


def _words(value: Any) -> str:
    return (", ".join(map(str, value)) if isinstance(value, list) else str(value)) or NOTHING


def data_section(record: Mapping[str, Any], class_names: Sequence[str], speech: str) -> page.Section:
    """Who and what is in each split, what was left out and why.

    Args:
      record: Content of `ingest.json`.
      class_names: The class set, in order.
      speech: Sentence about the speech, for captions.
    """
    notes = " ".join(record["corpus"].get("notes", ()))
    splits = record["splits"]
    genders = [g for g in vocab.GENDERS if any(g in split["by_gender"] for split in splits.values())]
    classes = list(dict.fromkeys([*class_names, *(c for s in splits.values() for c in s["by_class"])]))
    order = sorted(splits, key=lambda name: (vocab.SPLITS.index(name) if name in vocab.SPLITS else 99, name))
    sizes = [
        Row((name,), plain(f"{splits[name]['utterances']:,}", splits[name]["speakers"],
                           *(splits[name]["by_gender"].get(g, {}).get("speakers", 0) for g in genders)))
        for name in order
    ]  # fmt: skip
    by_class = [Row((name,), plain(*(f"{splits[name]['by_class'].get(c, 0):,}" for c in classes))) for name in order]
    utterances, ratings = record["utterances"], record["ratings"]
    left_out = [
        Row(("utterances", reason, ingest.REASONS.get(reason, "")), plain(f"{number:,}"))
        for reason, number in utterances["excluded"].items()
    ] + [
        Row(
            ("ratings", reason, ingest.REASONS.get(reason, "the rating's utterance is not there")), plain(f"{number:,}")
        )
        for reason, number in ratings["dropped"].items()
    ]
    left_out = left_out or [Row((NOTHING, "nothing was left out", ""), plain(0))]
    text = (
        f"{utterances['kept']:,} of {utterances['found']:,} utterances and {ratings['kept']:,} of {ratings['found']:,} "
        f"ratings are used ({record['audio']['hours']:.2f} h of audio). Left-out utterances are named in ingest.json."
    )
    caption = f"{speech}{notes}".strip()
    return page.Section(
        "data", "Data and exclusions", (text, *(f"Note: {warning}" for warning in record["warnings"])),
        items=(
            Table("Splits", ("split",), ("utterances", "speakers", *genders), tuple(sizes),
                  f"Genders: speakers. {caption}".strip()),
            Table("Utterances by consensus", ("split",), tuple(classes), tuple(by_class), caption),
            Table("Left out", ("what", "reason", "meaning"), ("number",), tuple(left_out), caption),
        ),
    )  # fmt: skip
