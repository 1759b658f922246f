"""What the checks found of a corpus as `validation/`: JSON, Markdown, and one HTML page with plots."""

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from seremo_jax.core.artefacts import ArtefactError, place_of, read_json, remove_leftovers, write_json
from seremo_jax.core.config import Config
from seremo_jax.core.hashed import renewed
from seremo_jax.core.lock import at_work
from seremo_jax.data import checks, ingest, tables
from seremo_jax.reports import data_figures, look, page
from seremo_jax.reports.table import NOTHING, Row, Table, measured, plain

FOLDER = ingest.VALIDATION_FILE.parent
_LISTED = 10
_REMEDY = "run python -m launch.validate with this --config and --workdir"


def run(config: Config, workdir: str | os.PathLike, is_quiet: bool = False) -> list[checks.Finding]:
    """Runs the checks and writes `validation/`, or reads what an ingest with these settings left there.

    Args:
      config: Sections `corpus` and `data` are read, and `extract.num_threads`.
      workdir: Folder of this experiment's artefacts; an ingest is not needed.
      is_quiet: Prints nothing.

    Raises:
      ArtefactError: The workdir holds the tables of other settings, or damaged ones; or another process is at work
        there.
      CorpusError, IngestError, SplitError: The corpus cannot even be read; see `screening.screen`.
    """
    workdir = place_of(workdir)
    path = workdir / ingest.VALIDATION_FILE
    with at_work(workdir, "validate"):
        if _is_of_ingest(workdir, config):
            if not is_quiet:
                print(
                    f"validate: {path} was written when this corpus was ingested; delete it to check anew", flush=True
                )
        else:
            write_json(path, ingest.validate(config, workdir, is_quiet))
        write_page(workdir)
    findings = read(workdir)
    if not is_quiet:
        print(describe(findings), flush=True)
    return findings


def _is_of_ingest(workdir: PurePath, config: Config) -> bool:
    """Whether `validation.json` tells of the tables that lie beside it."""
    ingested = ingest.finished(workdir, config.results_fields("corpus", "data"))
    if ingested is not None:
        tables.require_root(config, workdir, tables.read_utterances(workdir))
    return ingested is not None and _record(workdir).get("fingerprint") == ingested["fingerprint"]


def read(workdir: str | os.PathLike) -> list[checks.Finding]:
    """The findings in `validation/validation.json`.

    Raises:
      ArtefactError: The file is missing or damaged.
    """
    return _findings(_record(workdir))


def _record(workdir: str | os.PathLike) -> dict[str, Any]:
    return read_json(place_of(workdir) / ingest.VALIDATION_FILE, _REMEDY)


def _findings(record: Mapping[str, Any]) -> list[checks.Finding]:
    try:
        return [checks.Finding(**{**fields, "cases": tuple(fields["cases"])}) for fields in record["findings"]]
    except (KeyError, TypeError) as error:
        raise ArtefactError(f"{ingest.VALIDATION_FILE} is damaged ({error}); delete it and {_REMEDY}") from None


def describe(findings: Sequence[checks.Finding]) -> str:
    """What was found in a few lines for the terminal, errors first."""
    lines = [_verdict(findings)]
    for finding in _by_weight(findings):
        some = "; ".join(finding.cases[:3]) + (" ..." if len(finding.cases) > 3 else "")
        lines.append(f"  {finding.severity}, {finding.name} ({finding.meaning}): {finding.count}: {some}")
        lines.append(f"    {finding.remedy}")
    return "\n".join(lines)


def _verdict(findings: Sequence[checks.Finding]) -> str:
    failed = [finding for finding in findings if finding.count]
    errors = sum(finding.is_error for finding in failed)
    return f"{len(findings)} checks: errors in {errors}, warnings in {len(failed) - errors}"


def _by_weight(findings: Sequence[checks.Finding]) -> list[checks.Finding]:
    return sorted((finding for finding in findings if finding.count), key=lambda finding: not finding.is_error)


def write_page(workdir: str | os.PathLike) -> PurePath:
    """Writes the page, its Markdown and its figures beside `validation.json`, all or none; returns the page's path.

    What is there and would be the same is left alone.

    Raises:
      ArtefactError: `validation.json` is missing or damaged, or another process is at work in this workdir.
    """
    workdir = place_of(workdir)
    folder = workdir / FOLDER
    with at_work(workdir, "validate"):
        remove_leftovers(workdir, f"{FOLDER}.*")
        record = _record(workdir)
        with renewed(folder) as temporary:
            temporary.mkdir()
            content = _page_of(record, temporary)
            (temporary / "index.html").write_text(page.html(content), encoding="utf-8")
            (temporary / "validation.md").write_text(page.markdown(content), encoding="utf-8")
            write_json(temporary / ingest.VALIDATION_FILE.name, record)
    return folder / "index.html"


def _page_of(record: Mapping[str, Any], folder: Path) -> page.Page:
    corpus, findings, numbers = record["corpus"], _findings(record), record["numbers"]
    name = corpus["corpus"]
    errors = sum(finding.is_error for finding in findings)
    warnings = sum(finding.count > 0 for finding in findings) - errors
    num_speakers = sum(map(sum, numbers["speakers"].values()))
    tiles = (
        page.Tile("checks with errors", str(errors), f"of {len(findings)} checks"),
        page.Tile("checks with warnings", str(warnings), "to know, or to look at"),
        page.Tile("utterances kept", f"{numbers['utterances']:,}",
                  f"of {numbers['found']:,} in the corpus; {numbers['hours']:.2f} h"),
        page.Tile("speakers", f"{num_speakers:,}", f"known ones, in {len(numbers['splits'])} splits"),
        page.Tile("votes", f"{numbers['ratings']:,}", "on the utterances kept"),
    )  # fmt: skip
    sections = (
        page.Section("findings", "Findings", (f"{_verdict(findings)}. All cases stand in validation.json.",),
                     terms=tuple(_term(finding) for finding in _by_weight(findings))),
        page.Section("plots", "Ratings, speakers, audio", items=(*_pictures(record, folder),
                                                                     *_agreement_tables(record))),
        page.Section("checks", "All checks", items=(_check_table(findings),)),
        page.Section("settings", "Release and settings", tuple(corpus["notes"]), items=(_setting_table(record),)),
    )  # fmt: skip
    release = corpus["release"] or "not named"
    return page.Page(
        f"Validation of {name}",
        f"Release {release}: its audio, ratings, speakers and splits as they were found.",
        "Simulated speech." if corpus["is_simulated"] else "",
        tiles,
        sections,
        "Written by seremo_jax when the corpus was read; all of it stands in validation.json beside this page.",
    )


def _term(finding: checks.Finding) -> tuple[str, str]:
    some = "; ".join(finding.cases[:_LISTED])
    more = f"; and {len(finding.cases) - _LISTED:,} more" if len(finding.cases) > _LISTED else ""
    words = f"{finding.meaning[0].upper()}{finding.meaning[1:]}"
    return (f"{finding.severity.capitalize()}: {finding.name.replace('_', ' ')} ({finding.count:,})",
            f"{words}: {some}{more}. {finding.remedy}.")  # fmt: skip


def _check_table(findings: Sequence[checks.Finding]) -> Table:
    rows = tuple(
        Row((
            finding.name.replace("_", " "),
            f"{finding.severity}: {finding.count:,}" if finding.count else "passed",
            finding.meaning,
        ))
        for finding in findings
    )  # fmt: skip
    caption = (
        "Utterances are judged as the corpus gives them, whether an ingest keeps them or not; "
        "audio is looked at where an utterance is rated."
    )
    return Table("What was looked for", ("check", "outcome", "meaning"), (), rows, caption)


def _agreement_tables(record: Mapping[str, Any]) -> tuple[Table, ...]:
    agreed = record["agreement"]
    if not agreed:
        return ()
    names = [name for name in agreed["all"] if name not in ("num_utterances", "mean_entropy_bits")]
    rows = tuple(
        Row((part,), (*plain(f"{entry['num_utterances']:,}"),
                      *(measured({"value": entry.get(name)}) for name in (*names, "mean_entropy_bits"))))
        for part, entry in agreed.items()
    )  # fmt: skip
    columns = ("utterances", *(name if name != "alpha" else "alpha of classes" for name in names), "entropy (bits)")
    words = ("Krippendorff's alpha: 1 is perfect agreement, 0 is chance. It has no meaning among utterances of one "
             "consensus. Entropy is the mean over utterances.")  # fmt: skip
    return (Table("Agreement of the raters", ("part",), columns, rows, words),)


def _setting_table(record: Mapping[str, Any]) -> Table:
    facts = {"class set": record["corpus"]["class_set"], "fingerprint of the tables": record["fingerprint"]}
    for field, value in record["settings"].items():
        facts[field] = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    rows = tuple(Row((field, words or NOTHING)) for field, words in facts.items())
    return Table("Every setting of the corpus and the data", ("setting", "value"), (), rows,
                 "Other settings give other tables.", is_folded=True)  # fmt: skip


def _picture(
    record: Mapping[str, Any],
    folder: Path,
    name: str,
    words: tuple[str, str],
    draw: Callable[[look.Look], Figure],
) -> page.Picture:
    """Draws one figure; `words` are what it shows and how to read it."""
    is_simulated, splits = record["corpus"]["is_simulated"], tuple(record["numbers"]["splits"])
    origin = "simulated speech" if is_simulated else record["corpus"]["corpus"]
    light, dark = look.render(lambda theme: draw(look.Look(theme, origin, splits)), folder / f"{name}.png")
    return page.Picture(f"{name}.png", words[0], f"{words[0]}. {words[1]}", light, dark, is_small=True)


def _pictures(record: Mapping[str, Any], folder: Path) -> Iterable[page.Picture]:
    numbers = record["numbers"]
    if numbers["words"]:
        votes = np.array(numbers["votes_by_class"])
        yield _picture(
            record, folder, "class_shares", ("Share of the votes by class, one bar a split",
            "Splits that differ much make scores differ much. Free text is pooled as other."),
            lambda style: data_figures.class_shares(style, numbers["splits"], numbers["words"], votes),
        )  # fmt: skip
    if numbers["utterances"]:
        yield _picture(
            record, folder, "speakers", ("Speakers by gender and split", "Unknown speakers do not count."),
            lambda style: data_figures.speakers(style, numbers["splits"], numbers["speakers"]),
        )  # fmt: skip
    if numbers["words"]:
        yield _picture(
            record, folder, "votes_per_utterance", ("Number of votes per utterance",
            "Few votes make a coarse vote distribution."),
            lambda style: data_figures.votes_per_utterance(style, dict(numbers["votes_per_utterance"])),
        )  # fmt: skip
        yield _picture(
            record, folder, "entropy", ("Entropy of the votes of an utterance",
            "0 bits: all raters agree; the axis ends where every class has the same share."),
            lambda style: data_figures.histogram(
                style, "Disagreement of the raters", "entropy of the votes (bits)", numbers["entropy_bits"]),
        )  # fmt: skip
    if numbers["duration_s"]["mean"]:
        yield _picture(
            record, folder, "durations", ("Durations of the utterances", "Those kept, as their files are."),
            lambda style: data_figures.histogram(style, "Durations", "duration (s)", numbers["duration_s"]),
        )  # fmt: skip
