"""Equations as MathML, made when the site is built: a page needs no script and no network to show them."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

_EQUATION = re.compile(
    r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<latex>.*?)\\[)\]]</(?P=tag)>', re.DOTALL
)

_BAR = re.compile(r'<mo(?: stretchy="false")?>&#x0007C;</mo>')  # bare, browsers space it like a relation


def on_page_content(content: str, **context: Any) -> str:
    """Called by mkdocs for each page: put MathML in the place of what pymdownx.arithmatex marked."""
    return _EQUATION.sub(_mathml, content)


def _mathml(match: re.Match[str]) -> str:
    block = match["tag"] == "div"
    tree = convert(html.unescape(match["latex"]).strip(), display="block" if block else "inline")
    tree = _BAR.sub('<mo stretchy="false" lspace="0" rspace="0">|</mo>', tree)
    return f'<div class="equation">{tree}</div>' if block else tree
