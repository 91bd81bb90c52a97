"""Damage as tools/fuzz.py does it to files: each kind of file in its own way, from a random generator alone."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch

VALUES: list[Any] = [
    *(None, True, [], {}, "", "x" * 5000, "../../x", "/etc/passwd", "a\0b", "\x1b[31m", "\ud800"),
    *(0, -1, 5, 2**31, 2**63, 2**70, 10**30, 10**400, 0.5, -0.0, 1e-308, 1e30, 1e308, -1e308),
    *(float("nan"), float("inf"), [[[[]]]], [1e308] * 4, {"a": {"b": [10**400]}}, ["x"] * 1000),
]
TOKENS = (
    "nan",
    "inf",
    "-1",
    "0",
    "1e308",
    "9" * 400,
    "2147483648",
    "PINHOLE",
    "FISHEYE",
    "../../x",
    "x" * 5000,
    "\0",
)


def damage_json(text: str, chance: random.Random) -> str:
    """One to three values of a document replaced, removed or repeated; now and then its text itself."""
    if chance.random() < 0.1:
        return chance.choice(
            [text[: chance.randrange(len(text))], "[" * 100_000, "1" * 5000, "", text * 2, "null"]
        )
    document = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        places = list(_places(document))
        if not places:
            break
        holder, key = chance.choice(places)
        if chance.random() < 0.2:
            del holder[key]
        else:
            holder[key] = chance.choice(VALUES)
    return json.dumps(document)


def _places(value: Any) -> Any:
    """Every place of a document, the shallow ones as often as the deep ones together."""
    items = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))
        if isinstance(value, list)
        else []
    )
    for key, inner in items[:40]:
        yield value, key
        yield from _places(inner)


def damage_bytes(content: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, doubled or filled."""
    kind, at = chance.randrange(4), chance.randrange(max(len(content), 1))
    if kind == 0:
        return content[:at]
    if kind == 1:
        return content + content[at:]
    changed = bytearray(content)
    first = chance.choice([0, at])  # headers are worth more than the rest
    for _ in range(chance.randint(1, 8)):
        place = min(first + chance.randrange(200), len(changed) - 1)
        if place >= 0:
            changed[place] = chance.choice([0, 255, 127, chance.randrange(256)])
    return bytes(changed)


def damage_tensors(content: bytes, chance: random.Random) -> bytes:
    """One tensor with other values, another shape or type, or gone."""
    tensors = safetensors.torch.load(content)
    name = chance.choice(sorted(tensors))
    value = tensors[name]
    changes: list[Callable[[], torch.Tensor]] = [
        lambda: torch.full_like(value, chance.choice([0, 1, 255])),
        lambda: value.flatten()[: value.numel() // 2],
        lambda: value.double() * chance.choice([float("nan"), 1e30, -1.0, 1e308]),
        lambda: torch.zeros(()),
        lambda: value[None],
        lambda: value.to(torch.bool),
    ]
    if chance.random() < 0.15:
        del tensors[name]
    else:
        tensors[name] = chance.choice(changes)().contiguous()
    return safetensors.torch.save(tensors)


def damage_text(text: str, chance: random.Random) -> str:
    """One to three words of a text file replaced, or a line repeated, dropped or cut."""
    lines = text.splitlines()
    for _ in range(chance.randint(1, 3)):
        index, kind = chance.randrange(len(lines)), chance.random()
        words = lines[index].split()
        if kind < 0.7 and words:
            words[chance.randrange(len(words))] = chance.choice(TOKENS)
            lines[index] = " ".join(words)
        elif kind < 0.8:
            lines.insert(index, lines[index])
        else:
            lines[index] = lines[index][: len(lines[index]) // 2] if kind < 0.9 else ""
    return "\n".join(lines)


def damage_arrays(content: bytes, chance: random.Random) -> bytes:
    """One array of an npz with other values, another shape or type, or gone."""
    with np.load(io.BytesIO(content)) as file:
        arrays = dict(file)
    name = chance.choice(sorted(arrays))
    value = arrays[name]
    changes: list[Callable[[], np.ndarray]] = [
        lambda: np.full(value.shape, chance.choice([0, float("nan"), 1e300, -1.0])),
        lambda: value[:3],
        lambda: value.astype("U8"),
        lambda: np.array([["x"] * 4] * 4, dtype=object),
        lambda: value[::-1],
        lambda: np.zeros((0, 4)),
        lambda: value[None].repeat(chance.choice([1, 100]), 0),
    ]
    if chance.random() < 0.2:
        del arrays[name]
    else:
        arrays[name] = chance.choice(changes)()
    saved = io.BytesIO()
    np.savez(saved, **arrays)
    return saved.getvalue()


def damage_file(path: Path, chance: random.Random) -> None:
    """Damage a file as its kind asks for; one that is damaged already byte by byte."""
    content, whole = path.read_bytes(), chance.random() < 0.85
    try:
        if whole and path.suffix == ".jsonl":
            lines = content.decode().splitlines()
            index = chance.randrange(len(lines))
            lines[index] = damage_json(lines[index], chance)
            damaged = "\n".join(lines).encode("utf-8", "surrogatepass")
        elif whole and path.suffix == ".json":
            damaged = damage_json(content.decode(), chance).encode("utf-8", "surrogatepass")
        elif whole and path.suffix == ".safetensors":
            damaged = damage_tensors(content, chance)
        elif whole and path.suffix == ".npz":
            damaged = damage_arrays(content, chance)
        elif whole and path.suffix == ".txt":
            damaged = damage_text(content.decode(), chance).encode()
        else:
            damaged = damage_bytes(content, chance)
    except (ValueError, RecursionError, OSError, EOFError, zipfile.BadZipFile, safetensors.SafetensorError):
        damaged = damage_bytes(content, chance)
    path.write_bytes(damaged)
