"""The manual's Markdown as the tests look at it: headings, tables, links, examples."""

import re
from pathlib import Path

from markdown.extensions.toc import slugify

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / "docs" / "mkdocs.yml"
PAGES = ROOT / "docs" / "pages"
_FENCED = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


def page(name: str) -> str:
    """Text of a page."""
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def prose(text: str) -> str:
    """The text without fenced blocks."""
    return _FENCED.sub("", text)


def headings(text: str) -> list[str]:
    """Of every level, without their marks."""
    return re.findall(r"^#+ (.+)$", prose(text), re.MULTILINE)


def anchors(text: str) -> set[str]:
    """What may stand behind # in a link to the text."""
    return {slugify(re.sub(r"[`*]", "", heading), "-") for heading in headings(text)}


def links(text: str) -> list[str]:
    """Targets of links and pictures."""
    return _LINK.findall(prose(text))


def section(text: str, heading: str) -> str:
    """What stands under a heading of level 2, up to the next one."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))[heading]


def rows(text: str) -> list[list[str]]:
    """Cells of all tables' rows, heads included, without code marks."""
    lines = [line for line in prose(text).splitlines() if line.startswith("|") and "---" not in line]
    return [[cell.strip().replace("`", "") for cell in line.strip("|").split("|")] for line in lines]


def examples(text: str) -> list[str]:
    """Every Python block, in order."""
    return re.findall(r"^```python\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
