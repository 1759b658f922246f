"""The look of the report's figures: two themes, one colour a system, title block, and rendering without pyplot."""

import dataclasses
import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

DPI = 200

_TITLE_INCHES, _LEGEND_INCHES, _HANDLE_INCHES = 0.088, 0.072, 0.65
"""Mean width of a letter of a panel's title and of the legend, and of what stands before a legend's text."""


@dataclasses.dataclass(frozen=True)
class Theme:
    """Colours of one theme: those of systems (after Okabe and Ito) and those of targets (after Tol)."""

    name: str
    paper: str
    ink: str
    muted: str
    grid: str
    systems: tuple[str, ...]
    targets: tuple[str, ...]
    heat: tuple[str, ...]


LIGHT = Theme(
    "light", "#ffffff", "#1b1f24", "#5c6570", "#e3e6ea",
    ("#0072b2", "#d55e00", "#009e73", "#b5589a", "#a87500", "#4a4a4a"),
    ("#332288", "#cc3311", "#117733", "#aa3377", "#997700", "#0e8aa8", "#882255", "#5f6b6d", "#666633", "#884400"),
    ("#ffffff", "#c6dbef", "#6baed6", "#2171b5", "#08306b"),
)  # fmt: skip
DARK = Theme(
    "dark", "#161b22", "#e8ecf1", "#a3adb9", "#2d3540",
    ("#56b4e9", "#ff8f4d", "#2fc99a", "#e39bc4", "#f0c34a", "#c9d1d9"),
    ("#a9a4ff", "#ff8a75", "#6fd08c", "#f29ad0", "#e6c35c", "#5fd0e8", "#e68bb0", "#b9c2c4", "#c8c878", "#e0a872"),
    ("#161b22", "#14365a", "#1f5f99", "#4f9bd9", "#cfe6fb"),
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Look:
    """What all figures of a page share.

    Attributes:
      theme: Colours.
      origin: First words of every subtitle: which speech, split and condition.
      systems: Labels of the systems in the order of their colours.
    """

    theme: Theme
    origin: str
    systems: tuple[str, ...]

    def color(self, system: str) -> str:
        """Colour of a system, the same in every figure."""
        return self.theme.systems[self.systems.index(system) % len(self.theme.systems)]


def render(draw: Callable[[Theme], Figure], png_path: Path) -> tuple[str, str]:
    """Writes the light figure as PNG; returns the light and the dark one as SVG text."""
    texts, places = [], []
    for theme in (LIGHT, DARK):
        with matplotlib.rc_context(_settings(theme)):
            figure = draw(theme)
            # Laid out once and printed by the canvases themselves: savefig would lay out and draw twice for each file.
            if theme is LIGHT:
                figure.get_layout_engine().execute(figure)
                places = [ax.get_position(original=True) for ax in figure.axes]
            figure.set_layout_engine("none")
            for ax, place in zip(figure.axes, places, strict=True):
                ax.set_position(place, which="original")
            if theme is LIGHT:
                figure.set_dpi(DPI)
                FigureCanvasAgg(figure).print_png(png_path, metadata={"Software": None})
            buffer = io.StringIO()
            FigureCanvasSVG(figure).print_svg(buffer, metadata={"Date": None, "Creator": None})
        texts.append(buffer.getvalue())
    return texts[0], texts[1]


def _settings(theme: Theme) -> dict[str, object]:
    return {
        "font.family": "DejaVu Sans", "font.size": 11, "svg.hashsalt": "seremo_jax", "svg.fonttype": "path",
        "figure.facecolor": theme.paper, "savefig.facecolor": theme.paper, "axes.facecolor": theme.paper,
        "text.color": theme.ink, "axes.labelcolor": theme.ink, "axes.edgecolor": theme.muted,
        "xtick.color": theme.muted, "ytick.color": theme.muted, "xtick.labelcolor": theme.ink,
        "ytick.labelcolor": theme.ink, "axes.spines.top": False, "axes.spines.right": False,
        "axes.grid": True, "axes.axisbelow": True, "grid.color": theme.grid, "grid.linewidth": 0.8,
        "axes.titlesize": 11, "axes.titleweight": "bold", "axes.titlelocation": "left", "legend.frameon": False,
        "legend.fontsize": 10, "lines.solid_capstyle": "round", "text.parse_math": False,
    }  # fmt: skip


def canvas(
    look: Look, title: str, subtitle: str, size: tuple[float, float], shape: tuple[int, int], **options: object
) -> tuple[Figure, np.ndarray]:
    """A figure with its title and subtitle at the top left, and a grid of axes below.

    Args:
      look: Theme, and the first words of the subtitle.
      title: Title.
      subtitle: What follows `look.origin`.
      size: Width and height, inches.
      shape: Rows and columns of axes.
      **options: For `Figure.subplots`.
    """
    figure = Figure(figsize=size, layout="constrained")
    head_inches, foot_inches = 0.78, 0.06
    height = size[1]
    figure.get_layout_engine().set(
        rect=(0.008, foot_inches / height, 0.984, 1 - (head_inches + foot_inches) / height), w_pad=0.08, wspace=0.03
    )
    figure.text(0.016, 1 - 0.12 / height, title, size=14, weight="bold", va="top")
    figure.text(0.016, 1 - 0.46 / height, f"{look.origin} · {subtitle}", size=10, color=look.theme.muted, va="top")
    return figure, figure.subplots(*shape, squeeze=False, **options)


def panel_title(ax: Axes, text: str, color: str) -> None:
    """Names a panel, over several lines where one would reach into the next panel."""
    inches = ax.figure.get_size_inches()[0] / ax.get_gridspec().ncols - 0.5
    ax.set_title(textwrap.fill(text, max(int(inches / _TITLE_INCHES), 12)), color=color)


def legend_below(figure: Figure, handles: Sequence[Artist], most_columns: int) -> None:
    """A legend below the panels, of as many columns as the figure has room for, at least one."""
    widest = max(len(str(handle.get_label())) for handle in handles) * _LEGEND_INCHES + _HANDLE_INCHES
    columns = min(len(handles), most_columns, max(int(figure.get_size_inches()[0] / widest), 1))
    figure.legend(handles=handles, loc="outside lower center", ncols=columns)
