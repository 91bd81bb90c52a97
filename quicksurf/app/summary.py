"""What came out of a fit: the entries of summary.json and the lines for a person."""

import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from quicksurf.app.run.folder import Run
from quicksurf.capture.scene import Scene
from quicksurf.model import TrainedModel


class FitResult(NamedTuple):
    """What a fit leaves in memory; the same is in the run folder."""

    run: Run
    reconstruction: TrainedModel
    summary: dict[str, Any]
    report: Path | None
    """The page of the run, if there was time for it."""

    @property
    def problems(self) -> list[str]:
        """What speaks against the poses and the surface."""
        return [*self.summary["poses"]["problems"], *self.summary["points"]["problems"]]

    def describe(self) -> list[str]:
        """Write the lines for a person."""
        summary, points, held_out = self.summary, self.summary["points"], self.summary["psnr_held_out"]
        parts = ", ".join(
            f"{name} {value:.1f} s" for name, value in summary["seconds"].items() if name != "total"
        )
        lines = [str(self.run.path / name) for name in summary["files"]]
        lines += [] if self.report is None else [str(self.report)]
        lines += [
            f"{summary['faces']:,} faces; {summary['registered']} of {summary['photos']} photos used; "
            + ("no held-out views" if held_out is None else f"{held_out:.2f} dB on held-out views")
            + (", which then joined the fit" if summary["held_out"]["joined"] else ""),
            summary["surface"],
        ]
        if points["median_percent"] is not None:
            lines.append(
                f"{points['points']:,} points that the photos confirm lie {points['median_percent']:.2f} % of the "
                f"region's radius from the mesh (median); {points['far']:.0%} lie farther than 2 %"
            )
        total, memory = summary["seconds"]["total"], summary["peak_memory_mb"]
        lines.append(f"{total:.1f} s ({parts}), {memory:.0f} MB, {summary['backend']}")
        return lines + [f"doubtful: {problem}" for problem in self.problems]


def of_capture(scene: Scene, record: Mapping[str, Any]) -> dict[str, Any]:
    """Summarize what was read; `record` is that of the run."""
    report = scene.report
    made = record.get("made_masks") or {"made": 0, "verdict": "", "agreement": 0.0, "angle": 0.0}
    n_masks = sum(mask is not None for mask in scene.masks)
    return {
        "photos": report.photos,
        "registered": len(scene.images),
        "lost": report.lost,
        "input": {"found": report.found, "used": report.used, "notes": report.notes},
        "poses": report.poses(),
        "masks": {"option": record.get("mask_option", "auto"), "used": n_masks, **made},
    }


def of_model(model: TrainedModel, record: Mapping[str, Any]) -> dict[str, Any]:
    """Summarize the fitted field; `record` is that of the run."""
    found = "as given" if record.get("posed_images") is None else "found from the photos"
    return {
        "seconds_fitted": model.seconds_fitted,
        "psnr_held_out": model.psnr_held_out,
        "held_out": {"photos": int(model.held_out.sum()), "joined": model.joined},
        "cameras": "refined" if model.cameras_refined else found,
        "device": str(model.device),
        "backend": model.backend,
        "roi": [*model.roi.center, model.roi.radius],
        "peak_memory_mb": round(peak_memory_mb(), 1),
    }


def stage_seconds(poses: float, began: float, fitted: float, total: float) -> dict[str, float]:
    """Divide the seconds among the stages: `read` holds start-up and imports, `mesh` the files.

    Args:
        poses: seconds that structure from motion took, between the start and `began`.
        began: when the fit began.
        fitted: when it ended and the mesh was begun.
    """
    stages = {"read": began - poses, "poses": poses, "fit": fitted - began, "mesh": total - fitted}
    return {name: round(value, 3) for name, value in {**stages, "total": total}.items()}


def peak_memory_mb() -> float:
    """Measure the largest resident memory of this process or of one that it started (structure from motion) so far.

    They are not added up: this process waits, small, while the other works. Linux counts kilobytes, macOS bytes
    (getrusage(2)).
    """
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
