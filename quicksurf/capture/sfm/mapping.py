"""From verified pairs to models: incremental mapping on the matches that matter.

A photo of 8192 features has ten times the tracks that its pose needs. Mapping takes those that connect the most
photos, spread over the picture (4 s instead of 17 for 25 photos, the same poses to 0.1 % of their extent); the last
bundle adjustment takes all (`refinement`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pycolmap
from jaxtyping import Bool

from quicksurf.capture.sfm.view_graph import ViewGraph, name

N_MAPPED = 800  # features of a photo that mapping takes
_CELLS = 8  # across a photo, for their spread


def map_photos(
    graph: ViewGraph,
    photos: Sequence[int],
    folder: Path,
    seconds: float,
    n_threads: int,
    adjust_distortion: bool = True,
) -> list[pycolmap.Reconstruction]:
    """Map `photos`, the model of most photos first.

    Args:
        folder: for COLMAP's files.
        seconds: mapping ends after about so long, with what it has.
        adjust_distortion: from the first photos on; with a long lens or few points it runs away and takes the model
            with it.
    """
    database = folder / "mapping.db"
    graph.write(database, connecting_features(graph))
    options = pycolmap.IncrementalPipelineOptions(num_threads=n_threads, random_seed=0)
    options.image_names = [name(index) for index in photos]
    options.max_num_models, options.min_model_size = 6, 3
    options.max_runtime_seconds = max(1, int(seconds))
    options.extract_colors = False
    # Bundle adjustment of everything only when a model has grown by 30 %, and twice at most: the default
    # (10 %, five times) takes 1.8 times longer and ends at the same error (0.59 pixels, 69 photos).
    options.ba_global_frames_ratio = options.ba_global_points_ratio = 1.3
    options.ba_global_max_refinements = 2
    options.ba_local_max_refinements = 1
    options.ba_refine_extra_params = options.mapper.abs_pose_refine_extra_params = adjust_distortion
    output = folder / "models"
    output.mkdir(exist_ok=True)
    models = pycolmap.incremental_mapping(database, folder, output, options).values()
    return sorted(models, key=lambda model: -model.num_reg_images())


def connecting_features(graph: ViewGraph) -> Callable[[int], Bool[np.ndarray, "n"]]:
    """Return a function that marks the features of a photo that connect it best, spread over the picture.

    Features are ranked by the pairs they match in, divided by one plus their rank in their cell of the picture over
    a cell's fair number.
    """
    degrees = [np.zeros(len(item.points), np.int64) for item in graph.features]
    for (first, second), geometry in graph.pairs.items():
        found = np.asarray(geometry.inlier_matches)
        np.add.at(degrees[first], found[:, 0], 1)
        np.add.at(degrees[second], found[:, 1], 1)

    def marks(index: int) -> Bool[np.ndarray, "n"]:
        item, degree = graph.features[index], degrees[index]
        marked = np.zeros(len(degree), bool)
        cells = (item.points / np.array(item.size) * _CELLS).astype(int).clip(0, _CELLS - 1) @ [1, _CELLS]
        order = np.lexsort((-degree, cells))
        begins = np.searchsorted(cells[order], cells[order])
        rank = np.empty(len(degree))
        rank[order] = np.arange(len(degree)) - begins
        score = degree / (1 + rank * _CELLS**2 / N_MAPPED)
        marked[np.argsort(-score, kind="stable")[:N_MAPPED]] = True
        return marked & (degree > 0)

    return marks
