"""What the manual lists is what there is: options, settings, errors, arguments; and nothing else."""

import ast
import inspect
import re
from typing import Any, Literal, get_args, get_origin, get_type_hints

import pytest
from manual_pages import ROOT, headings, page, rows, section

import quicksurf
from quicksurf import errors
from quicksurf.app.cli import main
from quicksurf.config import Between, Config, preset_names
from quicksurf.mesh.export import FORMATS

COMMANDS = ("fit", "mesh", "render", "report", "eval", "batch", "compare", "masks", "view", "demo", "doctor")


def options_of(command: str, capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """Option → default, as the command's own help has them; "" where there is none."""
    assert main([command, "--help"]) == 0
    parts = re.split(r"^[│ ] (--[\w-]+)", capsys.readouterr().out, flags=re.MULTILINE)
    texts = [re.sub(r"[\s│╭╮╰╯─]+", " ", part) for part in parts[2::2]]
    defaults = [(re.findall(r"\(default: (.*?)\) *$", text) or [""])[-1] for text in texts]
    return dict(zip(parts[1::2], defaults, strict=True))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_listed_with_its_default(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "300")  # no default is broken over lines
    listed = [
        row for row in rows(section(page("commands"), f"quicksurf {command}")) if row[0].startswith("--")
    ]
    assert {row[0].split()[0]: row[1] for row in listed} == options_of(command, capsys)
    assert len(listed) == len({row[0].split()[0] for row in listed})


def test_every_command_has_its_section(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    known = re.findall(r"^[│ ]+• (\w+)", capsys.readouterr().out, re.MULTILINE)
    found = [heading.split()[1] for heading in headings(page("commands")) if heading.startswith("quicksurf ")]
    assert set(found) == set(known) == set(COMMANDS)


def settings() -> dict[str, list[str]]:
    """`section.key` → default and range in words, from the definitions."""
    found = {}
    for part, cls in get_type_hints(Config).items():
        for key, annotation in get_type_hints(cls, include_extras=True).items():
            value = getattr(cls(), key)
            default = str(value).lower() if isinstance(value, bool) else str(value)
            found[f"{part}.{key}"] = [default, range_of(annotation)]
    return found


def range_of(annotation: Any) -> str:
    if annotation is bool:
        return "false, true"
    if get_origin(annotation) is Literal:
        return ", ".join(str(choice) for choice in get_args(annotation))
    (bounds,) = (extra for extra in annotation.__metadata__ if isinstance(extra, Between))
    low, high = (str(int(value)) if float(value).is_integer() else f"{value:g}" for value in bounds[:2])
    return ("0, or " if bounds.or_zero else "") + f"{low} to {high}"


def test_every_setting_is_listed_with_default_and_range() -> None:
    listed = {row[0]: row[1:3] for row in rows(page("settings")) if "." in row[0]}
    assert listed == settings()


def test_every_preset_is_listed() -> None:
    assert {row[0] for row in rows(page("settings").partition("## model")[0])} - {"Preset"} == set(
        preset_names()
    )


def test_every_error_is_listed_with_its_code() -> None:
    listed = {
        row[2]: row[0] for row in rows(section(page("commands"), "Exit codes")) if row[2].endswith("Error")
    }
    classes = [
        cls for cls in vars(errors).values() if inspect.isclass(cls) and cls is not errors.QuicksurfError
    ]
    assert listed == {cls.__name__: str(cls.exit_code) for cls in classes}


def messages() -> list[str]:
    """All texts in the package's source, with … in the place of what is put in."""
    found = []
    for path in (ROOT / "quicksurf").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.append("".join(p.value if isinstance(p, ast.Constant) else "…" for p in node.values))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def test_messages_that_are_quoted_exist() -> None:
    text = page("troubleshooting")
    places = [heading for heading in headings(text)] + [row[0] for row in rows(text)]
    quoted = [quote for place in places for quote in re.findall(r'"([^"]+)"', place)]
    known = [plain(message) for message in messages()]
    unknown = [quote for quote in quoted if not any(pattern_of(quote).search(message) for message in known)]
    assert not unknown and len(quoted) > 40


def plain(text: str) -> str:
    """Without code marks, with single spaces."""
    return re.sub(r"[\s`]+", " ", text)


def pattern_of(quote: str) -> re.Pattern[str]:
    """What a quoted message matches: … stands for anything."""
    return re.compile(".*".join(re.escape(part.strip()) for part in plain(quote).split("…")))


def test_codes_of_symptoms_are_those_of_the_table() -> None:
    codes = {int(code) for code in re.findall(r"\(?code (\d+)", page("troubleshooting"))}
    assert codes == set(range(1, 14))


@pytest.mark.parametrize("name", quicksurf.__all__)
def test_every_argument_is_named(name: str) -> None:
    named = set(re.findall(r"`(\w+)[`=]", page("python")))
    assert set(inspect.signature(getattr(quicksurf, name)).parameters) <= named
    assert f"quicksurf.{name}(" in page("python")


def test_every_mesh_format_is_described() -> None:
    listed = [row[0].lower() for row in rows(section(page("output"), "Mesh files"))]
    assert set(FORMATS) == set(listed) - {"format"}
