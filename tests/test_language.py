"""The field's language: docstrings that begin with a verb, standard terms instead of private words.

Names that other libraries or file formats fix are exempt (`_EXEMPT`), each with its reason.
"""

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "quicksurf").rglob("*.py"))
PAGES = [*sorted((ROOT / "docs" / "pages").rglob("*.md")), ROOT / "README.md"]

# Verbs that a docstring may begin with.
VERBS = set(
    """
    cap colour fix flush improve learn
    accept accumulate add adjust advance advise align allow answer append apply approve ask assemble assess
    assign attach average bake balance begin bind blend block bound bring build bundle calibrate call cancel
    carry carve cast center change check choose claim clamp classify clean clear clip close cluster collapse
    collect color combine compare compile complete compose composite compress compute confirm connect contract
    convert copy correct count cover crop cut deal decide decimate decode decrease define delete deliver
    demand densify derive describe detect determine differentiate dilate discard display distort divide do
    download drain draw drop enable encode end enforce ensure erode escape estimate evaluate exclude execute
    exit expand expect explain explore export extend extract fade fail fetch fill filter find finish fit flag
    flatten flip follow forbid forget format forward free freeze gather generate get give greet group guard
    guess guide handle hash hear hide hold ignore illuminate implement import include increase index inform
    initialise initialize insert inspect install integrate interpolate intersect invert iterate join judge
    keep label lay leave let lift light limit link list listen load locate lock log look loop lower make map
    march mark mask match measure meet merge mesh mix move multiply name narrow normalise normalize note
    notice number obey offer open order orient pack pad paint pair parse pass pause perturb photograph place
    plan play point predict prefer prepare print probe process produce project propose protect prune publish
    pull push put quantise quantize query quote raise rank rasterise rasterize read rebuild receive recognise
    recognize recompute record redirect redraw reduce refine refuse register regularise regularize reject
    release reload remember remove rename render repeat replace replay report request require rerun resample
    rescale reset resize resolve respond restore restrict resume return review revise rewrite rotate round run
    sample save say scale scan schedule score search see seed select send separate serve set shade sharpen
    shift shorten show shrink shut skip slow smooth snap solve sort spend split spread stand start state stay
    steer step stop store straighten stream stretch strip subdivide submit subtract suggest sum summarise
    summarize supply support suppress swap take tell terminate test thin tighten time trace track train
    transform translate traverse triangulate trim try tune turn undistort undo unify unpack unwrap update
    upload use validate vary verify view visit vote wait walk warm warn watch weigh weight weld widen wind
    work wrap write yield zoom
    """.split()  # noqa: SIM905
)

# What stands there → what is said instead. Each pattern is looked for in code (names, docstrings, comments, messages)
# and in the manual, whole words, without regard to case unless the pattern has capitals.
PRIVATE_WORDS = {
    r"surroundings": "background",
    r"soft matter|\bmatter\b": "semi-transparent region, low opacity, solid",
    r"lets? light (?:pass|leak)|light ends": "semi-transparent; expected termination depth",
    r"thickness(?:es)?": "interval length, delta",
    r"\bpressure": "balloon force",
    r"steepness": "gradient penalty (one-sided eikonal)",
    r"smoothness_weight(?<!normal_smoothness_weight)": "normal smoothness",
    r"\btrust(?:ed|s|worthy)?\b": "confidence",
    r"\bdoubts?\b": "problem, low confidence",
    r"telling (?:rays|pixels|photos)|\btelling\b": "rays that hit the surface",
    r"\bshares? of\b|\b(?:the|its|which|a) share\b|\bSHARE\b|\bshare_\w|_shares?\b": "fraction",
    r"bears? (?:\w+ ){0,3}out\b|\bborne out\b": "supported by n photos",
    r"witness(?:es)?": "supporting photos, coverage",
    r"takeaway": "export",
    r"\bcourse\b(?<!of course)": "metrics log",
    r"\baccounts\b": "resources",
    r"\blast words\b|in the words of|\bwords\b\.py": "template context, last log line",
    r"\bLate[A-Z]\w+|\blate_value": "async scalar",
    r"(?:steady|exact)_rows": "selection",
    r"\bwatcher\b|\bWatcher\b": "listener",
    r"\bPieces\b|\bNeeds\b|\bWish\b|\bClaim\b|\bSeat\b": "Ops, coverage, action, …",
    r"cut out the walk": "trim the video to the part that circles the object",
    r"(?:goes|go) on as it began": "cannot change … when resuming",
    r"no time for more": "time budget",
    r"it said nothing|said nothing": "no log output",
    r"that mends? it|\bmends?\b": "fixes",
    r"was cut short|\bcut short\b": "interrupted",
    r"is added is said|\bare? said\b|\bis said\b": "reported",
    r"goes? on with\b": "resume, continue",
    r"back after": "returned after",
    r"\bdev-[abc]\b": "textured object, object on a table, glossy object",
}
_EXEMPT = {
    "quicksurf/app/live/nodes.py": ("thickness",),  # of viser's rendering of a ball and of a frustum
}


def public_functions(path: Path) -> list[tuple[str, str]]:
    """Name and docstring of the public functions and methods of a file; properties, as attributes, have nouns."""
    found = []

    def visit(node: ast.AST, public: bool) -> None:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                visit(child, public and not child.name.startswith("_"))
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                decorators = {ast.unparse(decorator).split(".")[-1] for decorator in child.decorator_list}
                if (
                    public
                    and not child.name.startswith("_")
                    and not decorators & {"property", "cached_property"}
                ):
                    found.append((child.name, ast.get_docstring(child) or ""))

    visit(ast.parse(path.read_text()), True)
    return found


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_docstrings_of_functions_begin_with_a_verb(path: Path) -> None:
    firsts = {name: re.split(r"\W", text)[0] for name, text in public_functions(path) if text}
    assert not {name: first for name, first in firsts.items() if first.lower() not in VERBS}


def private_words(text: str) -> list[str]:
    found = []
    for pattern, instead in PRIVATE_WORDS.items():
        flags = 0 if re.search(r"[A-Z](?!\w*\])", pattern.replace(r"\W", "")) else re.IGNORECASE
        found += [f"{hit.group()!r}: {instead}" for hit in re.finditer(pattern, text, flags)]
    return found


def language_of(path: Path) -> str:
    """Names, comments and strings of a Python file, names split at underscores as well."""
    text = path.read_text()
    if path.suffix != ".py":
        return text
    kinds = tokenize.NAME, tokenize.STRING, tokenize.COMMENT
    pieces = []
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type in kinds or tokenize.tok_name[token.type].startswith("FSTRING"):
            pieces.append(token.string)
            if token.type == tokenize.NAME and "_" in token.string:
                pieces.append(token.string.replace("_", " "))
    return "\n".join(pieces)


@pytest.mark.parametrize("path", [*SOURCES, *PAGES], ids=lambda path: str(path.relative_to(ROOT)))
def test_no_private_words(path: Path) -> None:
    exempt = _EXEMPT.get(str(path.relative_to(ROOT)), ())
    assert not [word for word in private_words(language_of(path)) if not any(e in word for e in exempt)]
