"""The site: it has every page of the checkout, every link leads somewhere, and nothing is loaded from another host."""

import html.parser
import json
import os
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import pytest

from tests.support.house import PACKAGE, ROOMS, ROOT, modules

if sys.version_info >= (3, 12):
    pytest.importorskip("zensical", reason="the extra docs is part of the tests' on Python 3.11 alone")

from launch.site import build

pytestmark = pytest.mark.long
BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
LOADS = {("img", "src"), ("script", "src"), ("link", "href"), ("iframe", "src"), ("source", "src"), ("video", "src")}
LOADING_LINKS = {"stylesheet", "icon", "preload", "prefetch", "preconnect", "dns-prefetch", "manifest", "modulepreload"}


class _Page(html.parser.HTMLParser):
    """What a page leads to, what it loads, and where others may lead."""

    def __init__(self, path: Path):
        super().__init__()
        self.leads, self.loads, self.anchors = set(), set(), set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        self.anchors |= {given[name] for name in ("id", "name") if given.get(name)}
        for name in ("href", "src"):
            if given.get(name) and (
                (tag, name) not in LOADS or (tag == "link" and given.get("rel") not in LOADING_LINKS)
            ):
                self.leads.add(given[name])
            elif given.get(name):
                self.loads.add(given[name])


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The site as the command builds it, with the small walk-through."""
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "launch.site", f"--out={folder / 'site'}", "--small"]
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | {"JAX_PLATFORMS": "cpu"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert [path.name for path in folder.iterdir()] == ["site"], "something half-written is left behind"
    return folder / "site"


@pytest.fixture(scope="module")
def pages(site):
    """Every page of the site, by its path."""
    # That of errors names paths of a web server. The report inside the gallery is a page of its own.
    return {path: _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


def test_every_link_leads_to_a_page_and_an_anchor_that_are_there(site, pages):
    dead, count = [], 0
    for path, page in pages.items():
        for link in page.leads | page.loads:
            place = urllib.parse.urlsplit(link)
            if place.scheme or place.netloc:
                continue
            target = (path.parent / urllib.parse.unquote(place.path)).resolve() if place.path else path
            target = target / "index.html" if target.is_dir() else target
            count += 1
            anchor = urllib.parse.unquote(place.fragment)
            if not target.is_file() or not target.is_relative_to(site):
                dead.append(f"{path.relative_to(site)}: {link} is no file")
            elif anchor and target.suffix == ".html" and anchor not in pages[target].anchors:
                dead.append(f"{path.relative_to(site)}: {link} is no anchor")
    assert not dead, "\n".join(dead)
    assert count > 1_000


def test_nothing_comes_from_another_host(pages):
    foreign = {link for page in pages.values() for link in page.loads if urllib.parse.urlsplit(link).netloc}
    assert not foreign


@pytest.mark.skipif(BROWSER is None, reason="no chromium on this machine")
@pytest.mark.parametrize("name", ["index.html", "gallery/index.html"])
def test_a_browser_asks_no_other_host(site, tmp_path, name):
    script = """<script>addEventListener("load", () => setTimeout(() => { document.title = "asked: " + performance
      .getEntriesByType("resource").map(one => one.name).filter(name => !name.startsWith("file:")).join(" "); }, 1000))
    </script>"""
    page = site / name
    probe = page.with_name("probe.html")
    probe.write_text(page.read_text(encoding="utf-8").replace("</body>", f"{script}</body>"), encoding="utf-8")
    command = [
        BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
        "--virtual-time-budget=5000", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", probe.as_uri(),
    ]  # fmt: skip
    try:
        dom = subprocess.run(command, capture_output=True, text=True, timeout=300, check=True).stdout
    finally:
        probe.unlink()
    assert dom.split("<title>")[1].split("</title>")[0] == "asked: "


def test_diagrams_are_drawn(site):
    assert 'src="README-diagram-2.svg"' in (site / "index.html").read_text(encoding="utf-8")
    for page in (site / name.replace("README", "index").replace(".md", ".html") for name in build.GUIDES):
        assert "flowchart LR" not in page.read_text(encoding="utf-8")
        assert "xychart" not in page.read_text(encoding="utf-8")


def test_every_page_of_the_checkout_is_there(site):
    folders = (ROOT / name for name in ("seremo_jax", "configs", "launch", "tests"))
    found = {"README.md", *(path.relative_to(ROOT).as_posix() for folder in folders for path in folder.rglob("*.md"))}
    assert found == set(build.GUIDES)
    for name in build.GUIDES:
        heading = (ROOT / name).read_text(encoding="utf-8").partition("\n")[0].removeprefix("# ")
        built = site / name.replace("README.md", "index.md").replace(".md", ".html")
        assert heading in built.read_text(encoding="utf-8")


def test_the_api_has_every_module_by_room_in_the_order_of_the_pipeline(site):
    assert build.rooms() == list(ROOMS)
    anchors = set()
    for page in (site / "api").glob("*.html"):
        anchors |= _Page(page).anchors
    assert {name for name in modules() if name != PACKAGE} <= anchors
    assert {"seremo_jax.training.losses", "seremo_jax.predict"} <= anchors
    index = (site / "index.html").read_text(encoding="utf-8")
    places = [index.index(f'href="./api/{room}.html"') for room in ROOMS]
    assert places == sorted(places)


def test_the_notebook_was_executed_and_shows_what_it_printed(site):
    notebook = json.loads((site / "notebook" / "walkthrough.ipynb").read_text(encoding="utf-8"))
    code = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    page = (site / "notebook" / "walkthrough.html").read_text(encoding="utf-8")
    printed = [line for cell in code for output in cell["outputs"] for line in "".join(output["text"]).splitlines()]
    scores = [line for line in printed if "UAR" in line and line.startswith("votes")]
    assert len(scores) == 1
    assert scores[0] in page
    assert len([cell for cell in code if cell["outputs"]]) >= 8


def test_the_gallery_has_every_figure_of_the_report_in_both_colours(site):
    page = (site / "gallery" / "index.html").read_text(encoding="utf-8")
    figures = {path.name.split(".")[0] for path in (site / "gallery").glob("*.svg")}
    assert {"speakers", "pa_uar_curve", "confusion", "layer_curves", "reliability", "training"} <= figures
    for name in figures:
        assert f'src="{name}.light.svg#only-light"' in page
        assert f'src="{name}.dark.svg#only-dark"' in page
    assert "Audio and ratings of this corpus are simulated" in page


def test_a_warning_of_the_tool_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "rooms", list)
    monkeypatch.setattr(build, "GUIDES", ("README.md",))
    with pytest.raises(build.SiteError, match=r"launch/README\.md"):
        build.build(tmp_path)


def test_a_folder_that_is_no_site_stays(tmp_path):
    (tmp_path / "work").write_text("mine")
    command = [sys.executable, "-m", "launch.site", f"--out={tmp_path}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, "is there and is no site" in done.stderr) == (1, True), done.stderr
    assert (tmp_path / "work").read_text() == "mine"


def test_a_diagram_that_cannot_be_drawn_is_named(tmp_path, monkeypatch):
    (tmp_path / "page.md").write_text("# A\n\n```mermaid\nflowchart LR\n  A[one --> B[two]\n```\n")
    monkeypatch.setattr(build, "ROOT", tmp_path)
    monkeypatch.setattr(build, "GUIDES", ("page.md",))
    with pytest.raises(build.SiteError, match=r"(?s)page\.md has a diagram .*Parse error on line 2"):
        build.build(tmp_path)
