"""Files beside a photo that belong to it and are no photos: its mask, a preview of it; known by their names alone.

`a_mask.png`, `a.jpg.mask.png`, `mask_a.png`, `a-thumb.jpg`: the name of another file in the same folder, with or
without its suffix, and a word for what it is. A file of such a name without its photo is a photo.
"""

import re
from collections.abc import Sequence
from pathlib import Path

MASK, PREVIEW = "mask", "preview"
_WORDS = {
    MASK: ("mask", "masks", "matte", "alpha", "seg", "segmentation", "silhouette"),
    PREVIEW: ("thumb", "thumbs", "thumbnail", "preview", "proxy", "small"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}
_WORD = "|".join(sorted(_KIND, key=len, reverse=True))
_AFTER = re.compile(rf"(?P<base>.+?)[ _.-]+(?P<word>{_WORD})")
_BEFORE = re.compile(rf"(?P<word>{_WORD})[ _.-]+(?P<base>.+)")
_SEPARATORS = ("_", "-", ".", " ")


def companions(files: Sequence[Path]) -> dict[Path, str]:
    """Of the files of one folder those that belong to another of them, each with its kind, MASK or PREVIEW."""
    bases = {name.casefold() for file in files for name in (file.stem, file.name)}
    found = {}
    for file in files:
        for pattern in (_AFTER, _BEFORE):
            match = pattern.fullmatch(file.stem.casefold())
            if match is not None and match["base"] in bases:
                found[file] = _KIND[match["word"]]
    return found


def names_of_mask(base: str) -> list[str]:
    """Stems, in small letters, that the mask of a photo named `base` may have, the plainest first."""
    base = base.casefold()
    words = _WORDS[MASK]
    after = [f"{base}{separator}{word}" for word in words for separator in _SEPARATORS]
    return [base, *after, *(f"{word}{separator}{base}" for word in words for separator in _SEPARATORS)]
