"""References: Sphinx's own strict build of the sources; the HTML that comes out of it."""

from __future__ import annotations

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, run_python

_BUILDERS = ("sphinx", "myst_parser", "furo")
_MISSING = [name for name in _BUILDERS if importlib.util.find_spec(name) is None]

pytestmark = pytest.mark.skipif(
    bool(_MISSING), reason=f"{', '.join(_MISSING)} not installed; run  pip install 'grip-edge[docs]'"
)


def build(sources: Path, out: Path) -> subprocess.CompletedProcess[str]:
    return run_python("-m", "sphinx", "-W", "--keep-going", "-q", "-b", "html", sources, out)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    done = build(DOCS, out)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return out


def test_every_source_is_a_page(site: Path) -> None:
    sources = {path.relative_to(DOCS).with_suffix("") for path in DOCS.rglob("*.md")}
    built = {path.relative_to(site).with_suffix("") for path in site.rglob("*.html")}
    assert sources <= built
    navigation = (site / "index.html").read_text(encoding="utf-8")
    for source in sources - {Path("index")}:
        assert f'href="{source.as_posix()}.html"' in navigation, f"{source} is not in the navigation"


def test_the_home_page_shows_the_readmes_table(site: Path) -> None:
    home = (site / "index.html").read_text(encoding="utf-8")
    assert "TTFT ms (p50)" in home
    assert 'src="_images/kept-patches.png"' in home


def test_options_in_running_text_keep_their_hyphens(site: Path) -> None:
    assert "Continue the run in --work where it stopped." in (site / "reference/cli.html").read_text(encoding="utf-8")


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    loads = re.compile(
        r"""<(?:script|img|iframe|source)[^>]+src=["'](?:https?:)?//|<link[^>]+href=["'](?:https?:)?//"""
    )
    styles = re.compile(r"""@import\s|url\(["']?(?:https?:)?//""")
    for page in site.rglob("*.html"):
        assert not loads.search(page.read_text(encoding="utf-8")), page
    for sheet in site.rglob("*.css"):
        assert not styles.search(sheet.read_text(encoding="utf-8")), sheet


@pytest.mark.parametrize(
    ("written", "complaint"),
    [
        ("[a page](nowhere.md)", "nowhere.md"),
        ("[a heading](#nowhere)", "nowhere"),
        ("![a picture](nowhere.png)", "nowhere.png"),
    ],
)
def test_a_broken_link_fails_the_build(written: str, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "conf.py").write_bytes((DOCS / "conf.py").read_bytes())
    (tmp_path / "index.md").write_text(f"# Page\n\n{written}\n")
    done = build(tmp_path, tmp_path / "out")
    assert done.returncode != 0
    assert complaint in done.stderr
