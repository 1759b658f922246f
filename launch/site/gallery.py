"""A page with the figures of a report, light and dark, and the report itself."""

from pathlib import Path

from seremo_jax.core.commands import as_called
from seremo_jax.reports import overview, page, report

PAGE, REPORT = "index.md", "report.html"


def write(folder: Path, workdir: Path) -> None:
    """Draws the figures of a workdir's report, as `launch.report` does, and writes the page about them.

    Args:
      folder: Where the page, the figures as SVG and the report go.
      workdir: An evaluated workdir.

    Raises:
      ArtefactError: See `report.load`.
    """
    folder.mkdir(parents=True)
    content = overview.page_of(report.load(workdir), folder)
    (folder / REPORT).write_text(page.html(content), encoding="utf-8")
    parts = [
        "# Gallery",
        "The figures of one report, drawn from the results of the [walk-through](../notebook/walkthrough.md). "
        f"The [report itself]({REPORT}) has the tables beside them. `python -m launch.report --workdir=DIR` draws the "
        "same of any evaluated workdir.",
        f"**{content.banner}**" if content.banner else "",
    ]
    for section in content.sections:
        pictures = [item for item in section.items if isinstance(item, page.Picture)]
        parts += [f"## {section.title}"] if pictures else []
        for picture in pictures:
            name = Path(picture.file).stem
            # The pages of the site show SVG, in the colours that the reader has chosen.
            (folder / picture.file).unlink()
            for theme, svg in (("light", picture.light_svg), ("dark", picture.dark_svg)):
                (folder / f"{name}.{theme}.svg").write_text(svg, encoding="utf-8")
                parts.append(f"![{picture.alt}]({name}.{theme}.svg#only-{theme})")
            parts.append(picture.caption)
    (folder / PAGE).write_text("\n\n".join(filter(None, map(as_called, parts))) + "\n", encoding="utf-8")
