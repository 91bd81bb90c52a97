"""The manual as a site: it builds without a warning, no link is dead, and a page asks nothing of the network."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from manual_pages import CONFIG, PAGES, ROOT, anchors, headings, links

pytestmark = pytest.mark.slow

SECONDS = 120  # it takes one; a busy machine is a hundred times slower
MAX_PICTURE_BYTES = 250_000
_LOADED = re.compile(
    r"<(?:script|img|iframe|source)\b[^>]*?\bsrc=\"?([^\"\s>]+)|<link\b[^>]*?\bhref=\"?([^\"\s>]+)", re.DOTALL
)


def build(config: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", str(config), "-d", str(site)]
    return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("manual") / "site"
    done = build(CONFIG, folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_every_page_is_built(site: Path) -> None:
    assert {path.stem for path in site.glob("*.html")} - {"404"} == {path.stem for path in PAGES.glob("*.md")}


@pytest.mark.parametrize("target", ["commands.md#no-such-place", "no-such-page.md"])
def test_a_dead_link_stops_the_build(tmp_path: Path, target: str) -> None:
    shutil.copytree(CONFIG.parent, tmp_path / "docs", ignore=shutil.ignore_patterns("site"))
    index = tmp_path / "docs" / "pages" / "index.md"
    index.write_text(index.read_text(encoding="utf-8") + f"\n[gone]({target})\n", encoding="utf-8")
    done = build(tmp_path / "docs" / "mkdocs.yml", tmp_path / "site")
    assert done.returncode != 0 and target.partition("#")[0] in done.stderr


def test_pages_load_nothing_from_elsewhere(site: Path) -> None:
    for path in site.glob("*.html"):
        loaded = [a or b for a, b in _LOADED.findall(path.read_text(encoding="utf-8"))]
        assert len(loaded) > 2
        assert not [target for target in loaded if re.match(r"(https?:)?//", target)], path.name
    for path in site.rglob("*.css"):
        assert not re.search(r"(url\(|@import\s*)[\"']?(https?:)?//", path.read_text(encoding="utf-8")), path


def test_equations_need_no_script(site: Path) -> None:
    text = (site / "method.html").read_text(encoding="utf-8")
    source = (PAGES / "method.md").read_text(encoding="utf-8")
    assert text.count("<math") == len(re.findall(r"\$\$?[^$]+\$\$?", source)) > 50
    assert "arithmatex" not in text and r"\(" not in text and "<merror" not in text


def test_no_link_of_the_readme_is_dead() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    local = [target for target in links(text) if "://" not in target]
    assert len(local) > 10
    for target in local:
        name, _, place = target.partition("#")
        path = ROOT / name if name else ROOT / "README.md"
        assert path.exists(), target
        assert not place or place in anchors(path.read_text(encoding="utf-8")), target


def test_pages_have_one_title_and_pictures_are_small() -> None:
    for path in PAGES.glob("*.md"):
        text = path.read_text(encoding="utf-8")
        assert text.startswith("# ") and len(headings(text)) == len(set(headings(text))), path.name
    pictures = [path for path in (PAGES / "images").iterdir() if path.is_file()]
    assert pictures and all(path.stat().st_size <= MAX_PICTURE_BYTES for path in pictures)
