"""The report page in a real browser, from a file: tables sort, nothing is loaded, a phone's width holds."""

import html.parser
import subprocess
from pathlib import Path

import pytest

from seremo_jax.reports import page
from seremo_jax.reports.table import Cell, Row, Table, plain
from tests.support.browser import BROWSER, FLAGS

pytestmark = pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")

ROWS = (("b", Cell("0.500 ± 0.010", "[0.4, 0.6]")), ("a10", Cell("–")), ("a9", Cell("+0.750")), ("c", Cell("0.100")))


def _page(script: str) -> str:
    rows = (*(Row((label,), (cell,)) for label, cell in ROWS), Row(("chance",), plain("0.900"), is_reference=True))
    table = Table("Scores", ("system",), ("UAR",), rows, "caption")
    text = page.html(page.Page("T", "lead", "", (), (page.Section("s", "S", items=(table,)),)))
    return text.replace("</body>", f"<script>{script}</script></body>")


def _dom(folder: Path, script: str, size: str = "1200,800") -> str:
    """The page's content after its own script and then `script` ran."""
    path = folder / "index.html"
    path.write_text(_page(script), encoding="utf-8")
    command = [
        BROWSER, *FLAGS, f"--window-size={size}", f"--user-data-dir={folder / 'profile'}", "--dump-dom", path.as_uri(),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout


class _Cells(html.parser.HTMLParser):
    """First cells of a table's rows."""

    def __init__(self):
        super().__init__()
        self.found, self._is_in = [], False

    def handle_starttag(self, tag, attrs):
        self._is_in = tag == "th" and ("scope", "row") in attrs

    def handle_data(self, data):
        if self._is_in:
            self.found.append(data)
            self._is_in = False


def test_tables_sort_by_a_click_and_keep_chance_last(tmp_path):
    order = "[...document.querySelectorAll('tbody th')].map(one => one.textContent).join(' ')"
    script = f"""
      const heads = document.querySelectorAll("thead th"), seen = [{order}];
      for (const head of [heads[1], heads[1], heads[0], heads[0]]) {{ head.click(); seen.push({order}); }}
      heads[1].dispatchEvent(new KeyboardEvent("keydown", {{key: "Enter"}})); seen.push({order});
      document.title = seen.join(" | ") + " | " + heads[1].ariaSort + " " + heads[0].ariaSort
        + " | " + performance.getEntriesByType("resource").length;
    """
    title = _dom(tmp_path, script).split("<title>")[1].split("</title>")[0]
    assert title.split(" | ") == [
        "b a10 a9 c chance", "a9 b c a10 chance", "c b a9 a10 chance", "a9 a10 b c chance", "c b a10 a9 chance",
        "a9 b c a10 chance", "descending null", "0",
    ]  # fmt: skip


def test_a_phone_scrolls_tables_and_never_the_page(tmp_path):
    script = """
      document.title = [innerWidth, document.documentElement.scrollWidth - innerWidth].join(" ");
    """
    title = _dom(tmp_path, script, "500,900").split("<title>")[1].split("</title>")[0]
    width, over = map(int, title.split())
    assert width <= 640
    assert over <= 0


def test_without_a_script_the_rows_stand_as_written(tmp_path):
    cells = _Cells()
    cells.feed(_page(""))
    assert cells.found == ["b", "a10", "a9", "c", "chance"]
