"""The report's content as tables, notes and pictures, and its two forms: Markdown and one self-contained HTML page."""

import base64
import dataclasses
from pathlib import Path

import jinja2

from seremo_jax.core import commands
from seremo_jax.core.cells import one_line
from seremo_jax.metrics.catalogue import SPEAKER_FILTERS
from seremo_jax.reports import table
from seremo_jax.reports.table import Table

TEMPLATE, STYLE = "page.html.j2", "page.css"


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure: its PNG beside the page, and the light and dark SVG inside it. Small ones stand two in a row."""

    file: str
    alt: str
    caption: str
    light_svg: str
    dark_svg: str
    is_small: bool = False


@dataclasses.dataclass(frozen=True)
class Section:
    """A linked section: sentences, terms with their meaning, tables and pictures in order, signs to heed."""

    key: str
    title: str
    text: tuple[str, ...] = ()
    signs: tuple[str, ...] = ()
    items: tuple[Table | Picture, ...] = ()
    terms: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number worth a glance."""

    label: str
    value: str
    note: str


@dataclasses.dataclass(frozen=True)
class Page:
    """The whole report.

    Attributes:
      title: Heading.
      lead: Sentence below it.
      banner: Sentence shown at the top and under the page, e.g. that the speech is simulated; empty for none.
      tiles: Numbers at the top.
      sections: The linked sections.
      footer: Sentence at the bottom: what the page was made from.
    """

    title: str
    lead: str
    banner: str
    tiles: tuple[Tile, ...]
    sections: tuple[Section, ...]
    footer: str = "Written by seremo_jax from result records; every number stands in results.csv beside this page."


def html(page: Page) -> str:
    """The page as one HTML file that loads nothing from anywhere."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["data_uri"] = _data_uri
    environment.tests["table"] = lambda item: isinstance(item, Table)
    return commands.as_called(environment.get_template(TEMPLATE).render(page=page))


def style() -> str:
    """The stylesheet of all pages, light and dark."""
    return (Path(__file__).parent / STYLE).read_text(encoding="utf-8")


def _data_uri(svg: str) -> str:
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def markdown(page: Page) -> str:
    """The page as Markdown that links the PNG files beside it."""
    blocks = [f"# {one_line(page.title)}", one_line(page.lead)]
    if page.banner:
        blocks.append(f"> **{one_line(page.banner)}**")
    for section in page.sections:
        blocks += [f"## {one_line(section.title)}", *map(one_line, section.text)]
        if section.terms:
            blocks.append("\n".join(f"- **{one_line(word)}**: {one_line(words)}" for word, words in section.terms))
        for item in section.items:
            if isinstance(item, Table):
                blocks.append(table.markdown(item))
            else:
                blocks.append(f"![{table.escaped(item.alt)}]({item.file})\n\n{one_line(item.caption)}")
        if section.signs:
            blocks.append("**Signs to heed**\n\n" + "\n".join(f"- {one_line(sign)}" for sign in section.signs))
    return commands.as_called("\n\n".join(blocks) + "\n")


def _counted(least_utterances: int, least_classes: int) -> str:
    """A speaker filter in words."""
    if (least_utterances, least_classes) == (1, 1):
        return "with any scored utterance"
    return f"with at least {least_utterances} of at least {least_classes} classes"


GLOSSARY = (
    ("consensus", "the one class most raters chose; a tie is no agreement, and such utterances are not scored"),
    ("vote distribution", "the share of each class among the raters' votes of an utterance"),
    ("N-best", "an utterance counts as right if its consensus is among the N classes with the largest predicted share"),
    (
        " / ".join(SPEAKER_FILTERS),
        f"speakers counted: {' / '.join(_counted(*least) for least in SPEAKER_FILTERS.values())}",
    ),
    ("± and [ ]", "standard deviation over seeds, and 95 % interval of the mean over seeds, resampled by speaker"),
    ("gap", "value for the first group minus value for the second; unknown gender takes no part"),
    ("saliency, ccs", "mean over features of the absolute correlation between a layer's mean feature and a target"),
    (
        "saliency, dccs",
        "squared multiple correlation: share of a target's variance that goes with all mean features of a layer, less "
        "what chance gives",
    ),
    (
        "probe",
        "ridge regression from all mean features of a layer to a target, scored on speakers it was not fitted to",
    ),
    (
        "one human rater",
        "a vote drawn from each utterance, judged like a model against the consensus of the other raters (ties left "
        "out); what a system should be held against, for raters disagree",
    ),
    ("chance", "what random guessing scores: N / C for N-best UAR with C classes"),
)
"""Words that are no metrics, and their meaning, for the reader who opens the page a year later."""
