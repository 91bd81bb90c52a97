"""`quicksurf masks`: make masks of a capture and write them for a person to look at and correct."""

from collections.abc import Callable
from pathlib import Path

from quicksurf.capture.automatic_masks.folder import SHEET, write_masks
from quicksurf.capture.automatic_masks.network import Saliency, find_network, load_saliency
from quicksurf.capture.load import ReadOptions, read_scene
from quicksurf.config import TrainConfig
from quicksurf.errors import CaptureError
from quicksurf.geometry.region import Roi


def make_mask_files(
    source: Path,
    output: Path | None,
    roi: Roi | None,
    say: Callable[[str], None],
    saliency: Callable[[], Saliency] | None = None,
) -> list[str]:
    """Write the masks that a capture lacks into `output`, else into masks/ in its folder; return what was written.

    Args:
        saliency: loads the network; the one that is installed if None.

    Raises:
        CaptureError: if all photos have a mask, or the photos show no object, saying why.
        QuicksurfError: as `read_scene`, and where the network is missing.
    """
    if saliency is None:
        find_network()
    options = ReadOptions(
        max_pixels=TrainConfig().max_pixels, roi=roi, saliency=saliency or load_saliency, say=say
    )
    scene = read_scene(source, options)
    made = scene.report.made_masks
    if not made.photos:
        raise CaptureError(made.verdict or f"all photos of {source} have a mask: none was written")
    folder = output or (source if source.is_dir() else source.parent) / "masks"
    new = [
        mask if Path(name).name in made.photos else None
        for name, mask in zip(scene.names, scene.masks, strict=True)
    ]
    files = write_masks(folder, scene.names, scene.images, new)
    return [
        f"{len(files)} masks in {folder}; {folder / SHEET} shows them",
        "correct any of them: a mask that is changed counts as given, the others are made anew in a fit",
    ]
