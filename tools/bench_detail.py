"""Measure what of the photos' detail is in meshes and textures.

    python tools/bench_detail.py ../shared/data/herzjesu RUN ../shared/data/herzjesu/openmvs.ply
    python tools/bench_detail.py CAPTURE before.ply@RUN/cameras.json after.ply@RUN/cameras.json
    python tools/bench_detail.py CAPTURE RUN --texture RUN/textured.glb

Each surface is a run, a mesh beside its cameras, or MESH@CAMERAS. Printed for each: median and tenth percentile of the
correlation of photos warped over it (detail_bench/correlation.py), of the pixels that all surfaces have, and the
fraction of the photos' pixels that it has. A texture is drawn at the cameras of the first surface (detail_bench/
texture.py): its gradient energy and PSNR against the photos.

--masks counts only what the masks of the capture show. About 40 s for 16 photos of 1.2 megapixels and two surfaces.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
sys.path.insert(0, str(TOOLS))
sys.path.append(str(TOOLS.parent))  # last: an installed package has its extension

from detail_bench.correlation import correlate  # noqa: E402
from detail_bench.surfaces import find_photos, read_surface  # noqa: E402
from detail_bench.texture import compare_with_photos, read_textured  # noqa: E402

from quicksurf.errors import QuicksurfError  # noqa: E402


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure what the command line asks for and print it as JSON lines."""
    options = _parse(arguments)
    try:
        return _measure(options)
    except QuicksurfError as error:
        print(f"bench_detail: {error}", file=sys.stderr)
        return error.exit_code


def _measure(options: argparse.Namespace) -> int:
    started = time.monotonic()
    photos = find_photos(options.capture, options.masks)
    surfaces = [read_surface(text) for text in options.surfaces]
    for path in options.texture:
        likeness = compare_with_photos(read_textured(path), surfaces[0], photos, options.photos)
        rounded = {name: round(value, 3) for name, value in likeness._asdict().items()}
        print(json.dumps({"texture": str(path), **rounded}), flush=True)
    if options.texture:
        return 0
    figures, n_windows = correlate(surfaces, photos, options.photos, options.partners)
    for surface, figure in zip(surfaces, figures, strict=True):
        rounded = {f"ncc_{name}": round(value, 4) for name, value in figure._asdict().items()}
        print(json.dumps({"surface": surface.label, "faces": len(surface.faces), **rounded}), flush=True)
    print(json.dumps({"windows": n_windows, "seconds": round(time.monotonic() - started, 1)}))
    return 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("capture", type=Path, help="folder of the photos, or with images/ in it")
    parser.add_argument("surfaces", nargs="+", metavar="RUN|MESH[@CAMERAS]")
    parser.add_argument(
        "--texture", type=Path, nargs="+", default=(), help="textured.glb: measure these instead"
    )
    parser.add_argument("--masks", action="store_true", help="count only what CAPTURE's masks show")
    parser.add_argument("--photos", type=int, default=16, help="first photos of pairs, at most")
    parser.add_argument("--partners", type=int, default=2, help="second photos of each")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
