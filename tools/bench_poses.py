"""How many photos of a folder are registered, how long it takes, and how far the poses are from a survey's.

    python tools/bench_poses.py ../shared/data/herzjesu/images \\
        --truth ../shared/data/herzjesu/transforms_gt.json

Errors are relative, over all pairs of registered photos, so that neither frame nor scale matters: the
angle of R_ij R_ij*ᵀ and the angle between the directions of t_ij and t_ij*. AUC@5° is the area under the
recall curve of the larger of the two up to 5°, divided by 5° (as in the image matching challenges; 100 %
is perfect). Centres are compared after the similarity of least squares (Umeyama 1991).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float

from quicksurf.data.assemble import ReadOptions
from quicksurf.data.photos import read_photos
from quicksurf.data.transforms import read_transforms


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="folder of photos")
    parser.add_argument("--truth", type=Path, help="transforms.json with the true cameras of the same photos")
    parser.add_argument("--seconds", type=float, default=300.0, help="time for the poses")
    arguments = parser.parse_args()
    started = time.monotonic()
    scene = read_photos(arguments.folder, ReadOptions(max_pixels=300_000, pose_seconds=arguments.seconds))
    print(
        f"registered {len(scene.names)} of {scene.report.photos}; poses {scene.report.seconds_poses:.1f} s, "
        f"all {time.monotonic() - started:.1f} s; {len(scene.points.positions) if scene.points else 0} points"
    )
    if arguments.truth:
        truth = read_transforms(arguments.truth, ReadOptions(max_pixels=10_000, say=lambda _: None))
        place = {Path(name).stem: index for index, name in enumerate(truth.names)}
        common = [
            (index, place[Path(name).stem])
            for index, name in enumerate(scene.names)
            if Path(name).stem in place
        ]
        ours, theirs = zip(*common, strict=True)
        compare(
            scene.cameras.select(torch.tensor(ours)).c2w.double().numpy(),
            truth.cameras.select(torch.tensor(theirs)).c2w.double().numpy(),
        )


def compare(c2w: Float[np.ndarray, "n 3 4"], true_c2w: Float[np.ndarray, "n 3 4"]) -> None:
    """Print the relative errors of `c2w` against `true_c2w`."""
    rotations, directions = pair_errors(c2w, true_c2w)
    for name, errors in (("rotation", rotations), ("direction", directions)):
        print(
            f"relative {name} over {len(errors)} pairs: "
            f"median {np.median(errors):.3f}°, worst {errors.max():.3f}°"
        )
    print(f"AUC@5° {100 * area_under_recall(np.maximum(rotations, directions), 5.0):.1f} %")
    residuals = aligned_residuals(c2w[:, :, 3], true_c2w[:, :, 3])
    extent = np.linalg.norm(true_c2w[:, :, 3] - true_c2w[:, :, 3].mean(0), axis=1).max()
    rms = float(np.sqrt((residuals**2).mean()))
    print(
        f"centres after alignment: RMS {rms:.4f} (truth's units), {100 * rms / extent:.2f} % of their extent"
    )


def pair_errors(
    c2w: Float[np.ndarray, "n 3 4"], true_c2w: Float[np.ndarray, "n 3 4"]
) -> tuple[Float[np.ndarray, "p"], Float[np.ndarray, "p"]]:
    """Angles in degrees for every pair: of the relative rotations, and of the directions between centres."""
    first, second = np.triu_indices(len(c2w), 1)
    relative, true_relative = (
        np.swapaxes(poses[first, :, :3], 1, 2) @ poses[second, :, :3] for poses in (c2w, true_c2w)
    )
    cosines = (np.einsum("pij,pij->p", relative, true_relative) - 1) / 2
    baseline, true_baseline = (
        np.einsum("pji,pj->pi", poses[first, :, :3], poses[second, :, 3] - poses[first, :, 3])
        for poses in (c2w, true_c2w)
    )
    dots = (baseline * true_baseline).sum(1)
    dots /= np.linalg.norm(baseline, axis=1) * np.linalg.norm(true_baseline, axis=1)
    return np.degrees(np.arccos(np.clip(cosines, -1, 1))), np.degrees(np.arccos(np.clip(dots, -1, 1)))


def area_under_recall(errors: Float[np.ndarray, "p"], limit: float) -> float:
    """∫₀^limit (share of errors ≤ x) dx / limit."""
    return float(np.clip(limit - errors, 0, None).mean() / limit)


def aligned_residuals(
    points: Float[np.ndarray, "n 3"], targets: Float[np.ndarray, "n 3"]
) -> Float[np.ndarray, "n"]:
    """Distances left after the best similarity from `points` to `targets` (Umeyama 1991, eq. 40 to 43)."""
    source, target = points - points.mean(0), targets - targets.mean(0)
    u, singular, vt = np.linalg.svd(target.T @ source)
    signs = np.array([1, 1, np.sign(np.linalg.det(u) * np.linalg.det(vt))])
    rotation = u @ np.diag(signs) @ vt
    scale = (singular * signs).sum() / (source**2).sum()
    return np.linalg.norm(scale * source @ rotation.T - target, axis=1)


if __name__ == "__main__":
    main()
