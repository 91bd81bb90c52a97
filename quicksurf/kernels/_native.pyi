"""Native CPU kernels of quicksurf."""

from collections.abc import Sequence
from typing import overload

import numpy
from numpy.typing import NDArray
from torch import Tensor

def usable_cpus() -> int: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def instruction_set() -> str: ...
def instruction_sets() -> list[str]: ...
def set_instruction_set(name: str) -> None: ...

class Network:
    @staticmethod
    def make(
        n_input: int,
        parts: Sequence[tuple[str, int, int, int, int, Sequence[tuple[float, int, int, bool]]]],
        width: int,
        n_hidden_layers: int,
        n_output: int,
        hidden_activation: str,
        output_activation: str,
    ) -> Network: ...
    @property
    def n_params(self) -> int: ...
    @property
    def n_network_params(self) -> int: ...
    @property
    def n_saved(self) -> int: ...
    @property
    def n_output(self) -> int: ...
    @overload
    def forward(
        self,
        params: NDArray[numpy.float32] | Tensor,
        n_active_levels: int,
        x: NDArray[numpy.float32] | Tensor,
        output: NDArray[numpy.float32] | Tensor,
        saved: NDArray[numpy.float32] | Tensor | None,
    ) -> None: ...
    @overload
    def forward(
        self,
        params: NDArray[numpy.float64] | Tensor,
        n_active_levels: int,
        x: NDArray[numpy.float64] | Tensor,
        output: NDArray[numpy.float64] | Tensor,
        saved: NDArray[numpy.float64] | Tensor | None,
    ) -> None: ...
    @overload
    def backward(
        self,
        params: NDArray[numpy.float32] | Tensor,
        n_active_levels: int,
        x: NDArray[numpy.float32] | Tensor,
        saved: NDArray[numpy.float32] | Tensor,
        grad_output: NDArray[numpy.float32] | Tensor,
        grad_params: NDArray[numpy.float32] | Tensor | None,
        grad_x: NDArray[numpy.float32] | Tensor | None,
    ) -> None: ...
    @overload
    def backward(
        self,
        params: NDArray[numpy.float64] | Tensor,
        n_active_levels: int,
        x: NDArray[numpy.float64] | Tensor,
        saved: NDArray[numpy.float64] | Tensor,
        grad_output: NDArray[numpy.float64] | Tensor,
        grad_params: NDArray[numpy.float64] | Tensor | None,
        grad_x: NDArray[numpy.float64] | Tensor | None,
    ) -> None: ...

def adam(
    param: NDArray[numpy.float32] | Tensor,
    grad: NDArray[numpy.float32] | Tensor,
    first: NDArray[numpy.float32] | Tensor,
    second: NDArray[numpy.float32] | Tensor,
    learning_rate: float,
    beta1: float,
    beta2: float,
    epsilon: float,
    step: int,
    skip_zero: bool,
) -> None: ...
@overload
def accumulate_forward(
    offsets: NDArray[numpy.int64] | Tensor,
    weights: NDArray[numpy.float32] | Tensor,
    values: NDArray[numpy.float32] | Tensor | None,
    out: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def accumulate_forward(
    offsets: NDArray[numpy.int64] | Tensor,
    weights: NDArray[numpy.float64] | Tensor,
    values: NDArray[numpy.float64] | Tensor | None,
    out: NDArray[numpy.float64] | Tensor,
) -> None: ...
@overload
def accumulate_backward(
    offsets: NDArray[numpy.int64] | Tensor,
    weights: NDArray[numpy.float32] | Tensor,
    values: NDArray[numpy.float32] | Tensor | None,
    grad_out: NDArray[numpy.float32] | Tensor,
    grad_weights: NDArray[numpy.float32] | Tensor,
    grad_values: NDArray[numpy.float32] | Tensor | None,
) -> None: ...
@overload
def accumulate_backward(
    offsets: NDArray[numpy.int64] | Tensor,
    weights: NDArray[numpy.float64] | Tensor,
    values: NDArray[numpy.float64] | Tensor | None,
    grad_out: NDArray[numpy.float64] | Tensor,
    grad_weights: NDArray[numpy.float64] | Tensor,
    grad_values: NDArray[numpy.float64] | Tensor | None,
) -> None: ...
def sample_surface(
    network: Network,
    params: NDArray[numpy.float32] | Tensor,
    n_active_levels: int,
    origins: NDArray[numpy.float32] | Tensor,
    directions: NDArray[numpy.float32] | Tensor,
    binaries: NDArray[numpy.bool_] | Tensor,
    aabbs: NDArray[numpy.float32] | Tensor,
    near_planes: NDArray[numpy.float32] | Tensor,
    far_planes: NDArray[numpy.float32] | Tensor,
    step_size: float,
    radius: float,
    scale: float,
    max_slope: float,
    n_secant: int,
    half_width: float,
    reach: float,
    n_interval: int,
    n_front: int,
    level: float,
    jitter: NDArray[numpy.float32] | Tensor,
    hits: NDArray[numpy.bool_] | Tensor,
    t_surface: NDArray[numpy.float32] | Tensor,
    packed_info: NDArray[numpy.int64] | Tensor,
    t: NDArray[numpy.float32] | Tensor,
    deltas: NDArray[numpy.float32] | Tensor,
    ray_indices: NDArray[numpy.int64] | Tensor,
) -> tuple[int, int]: ...
@overload
def logit_weights_forward(
    offsets: NDArray[numpy.int64] | Tensor,
    logits: NDArray[numpy.float32] | Tensor,
    deltas: NDArray[numpy.float32] | Tensor,
    sharpness: float,
    transmittance: bool,
    absorption: float,
    shift: float,
    depths: NDArray[numpy.float32] | Tensor,
    alphas: NDArray[numpy.float32] | Tensor,
    weights: NDArray[numpy.float32] | Tensor,
    opacities: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def logit_weights_forward(
    offsets: NDArray[numpy.int64] | Tensor,
    logits: NDArray[numpy.float64] | Tensor,
    deltas: NDArray[numpy.float64] | Tensor,
    sharpness: float,
    transmittance: bool,
    absorption: float,
    shift: float,
    depths: NDArray[numpy.float64] | Tensor,
    alphas: NDArray[numpy.float64] | Tensor,
    weights: NDArray[numpy.float64] | Tensor,
    opacities: NDArray[numpy.float64] | Tensor,
) -> None: ...
@overload
def logit_weights_backward(
    offsets: NDArray[numpy.int64] | Tensor,
    deltas: NDArray[numpy.float32] | Tensor,
    depths: NDArray[numpy.float32] | Tensor,
    alphas: NDArray[numpy.float32] | Tensor,
    sharpness: float,
    transmittance: bool,
    absorption: float,
    shift: float,
    grad_weights: NDArray[numpy.float32] | Tensor,
    grad_opacities: NDArray[numpy.float32] | Tensor,
    grad_logits: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def logit_weights_backward(
    offsets: NDArray[numpy.int64] | Tensor,
    deltas: NDArray[numpy.float64] | Tensor,
    depths: NDArray[numpy.float64] | Tensor,
    alphas: NDArray[numpy.float64] | Tensor,
    sharpness: float,
    transmittance: bool,
    absorption: float,
    shift: float,
    grad_weights: NDArray[numpy.float64] | Tensor,
    grad_opacities: NDArray[numpy.float64] | Tensor,
    grad_logits: NDArray[numpy.float64] | Tensor,
) -> None: ...
def rasterize(
    vertices: NDArray[numpy.float32] | Tensor, faces: NDArray[numpy.int32] | Tensor, width: int, height: int
) -> tuple[NDArray[numpy.float32], NDArray[numpy.int32]]:
    """Depth (+inf where nothing is) and face index (-1) of each pixel."""

def match_descriptors(
    descriptors: Sequence[NDArray[numpy.uint8] | Tensor],
    pairs: NDArray[numpy.int32] | Tensor,
    max_ratio: float,
    max_distance: float,
) -> list[NDArray[numpy.int32]]:
    """
    Matches (i, j) of each pair of arrays of descriptors, as int32 arrays [k, 2].
    """

def match_patches(
    reference: NDArray[numpy.uint8] | Tensor,
    sources: Sequence[NDArray[numpy.uint8] | Tensor],
    transforms: NDArray[numpy.float32] | Tensor,
    planes: NDArray[numpy.float32] | Tensor,
    costs: NDArray[numpy.float32] | Tensor,
    *,
    range: tuple[float, float],
    reach: float,
    tilt: float,
    shrink: float,
    focal: float,
    similarity: float,
    least_contrast: float,
    n_best: int,
    n_sweeps: int,
    seed: int,
) -> None:
    """
    Improve planes (inverse depth, its derivatives by pixel) of a photo in place; write the costs of each.
    """

def verify_depths(
    planes: NDArray[numpy.float32] | Tensor,
    costs: NDArray[numpy.float32] | Tensor,
    other_planes: Sequence[NDArray[numpy.float32] | Tensor],
    other_costs: Sequence[NDArray[numpy.float32] | Tensor],
    there: NDArray[numpy.float32] | Tensor,
    back: NDArray[numpy.float32] | Tensor,
    intrinsics: NDArray[numpy.float32] | Tensor,
    inverse_depths: NDArray[numpy.float32] | Tensor,
    spreads: NDArray[numpy.float32] | Tensor,
    *,
    most_cost: float,
    most_other_cost: float,
    most_pixels: float,
    most_relative: float,
    least_cosine: float,
    n_agreeing: int,
) -> None:
    """
    Inverse depths that other photos confirm, 0 elsewhere; how far each may be off, as a part of it, for a pixel.
    """

@overload
def sum_scan(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    normalize: bool,
    from_back: bool,
    inputs: NDArray[numpy.float32] | Tensor,
    outputs: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def sum_scan(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    normalize: bool,
    from_back: bool,
    inputs: NDArray[numpy.float64] | Tensor,
    outputs: NDArray[numpy.float64] | Tensor,
) -> None: ...
@overload
def prod_scan(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    inputs: NDArray[numpy.float32] | Tensor,
    outputs: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def prod_scan(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    inputs: NDArray[numpy.float64] | Tensor,
    outputs: NDArray[numpy.float64] | Tensor,
) -> None: ...
@overload
def prod_scan_backward(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    inputs: NDArray[numpy.float32] | Tensor,
    outputs: NDArray[numpy.float32] | Tensor,
    grad_outputs: NDArray[numpy.float32] | Tensor,
    grad_inputs: NDArray[numpy.float32] | Tensor,
) -> None: ...
@overload
def prod_scan_backward(
    chunk_starts: NDArray[numpy.int64] | Tensor,
    chunk_cnts: NDArray[numpy.int64] | Tensor,
    inclusive: bool,
    inputs: NDArray[numpy.float64] | Tensor,
    outputs: NDArray[numpy.float64] | Tensor,
    grad_outputs: NDArray[numpy.float64] | Tensor,
    grad_inputs: NDArray[numpy.float64] | Tensor,
) -> None: ...
def importance_sampling(
    key_starts: NDArray[numpy.int64] | Tensor,
    key_counts: NDArray[numpy.int64] | Tensor,
    key_ts: NDArray[numpy.float32] | Tensor,
    cdfs: NDArray[numpy.float32] | Tensor,
    biases: NDArray[numpy.float32] | Tensor,
    sample_starts: NDArray[numpy.int64] | Tensor,
    sample_counts: NDArray[numpy.int64] | Tensor,
    ts: NDArray[numpy.float32] | Tensor,
    edge_starts: NDArray[numpy.int64] | Tensor,
    edge_counts: NDArray[numpy.int64] | Tensor,
    edge_ts: NDArray[numpy.float32] | Tensor,
) -> None: ...
def searchsorted(
    key_starts: NDArray[numpy.int64] | Tensor,
    key_counts: NDArray[numpy.int64] | Tensor,
    key_ts: NDArray[numpy.float32] | Tensor,
    query_starts: NDArray[numpy.int64] | Tensor,
    query_counts: NDArray[numpy.int64] | Tensor,
    query_ts: NDArray[numpy.float32] | Tensor,
    relative: bool,
    left: NDArray[numpy.int64] | Tensor,
    right: NDArray[numpy.int64] | Tensor,
) -> None: ...
def intersect_boxes(
    rays_o: NDArray[numpy.float32] | Tensor,
    rays_d: NDArray[numpy.float32] | Tensor,
    aabbs: NDArray[numpy.float32] | Tensor,
    near_plane: float,
    far_plane: float,
    miss_value: float,
    t_mins: NDArray[numpy.float32] | Tensor,
    t_maxs: NDArray[numpy.float32] | Tensor,
    hits: NDArray[numpy.bool_] | Tensor,
) -> None: ...

class Walks:
    def __init__(
        self,
        rays_o: NDArray[numpy.float32] | Tensor,
        rays_d: NDArray[numpy.float32] | Tensor,
        rays_mask: NDArray[numpy.bool_] | Tensor,
        binaries: NDArray[numpy.bool_] | Tensor,
        aabbs: NDArray[numpy.float32] | Tensor,
        hits: NDArray[numpy.bool_] | Tensor,
        t_sorted: NDArray[numpy.float32] | Tensor,
        t_indices: NDArray[numpy.int64] | Tensor,
        near_planes: NDArray[numpy.float32] | Tensor,
        far_planes: NDArray[numpy.float32] | Tensor,
        step_size: float,
        cone_angle: float,
        traverse_steps_limit: int,
    ) -> None: ...
    def count(
        self, n_edges: NDArray[numpy.int64] | Tensor, n_mids: NDArray[numpy.int64] | Tensor
    ) -> None: ...
    def fill(
        self,
        edge_starts: NDArray[numpy.int64] | Tensor,
        edge_room: NDArray[numpy.int64] | Tensor,
        edge_ts: NDArray[numpy.float32] | Tensor,
        edge_rays: NDArray[numpy.int64] | Tensor,
        is_left: NDArray[numpy.bool_] | Tensor,
        is_right: NDArray[numpy.bool_] | Tensor,
        n_edges: NDArray[numpy.int64] | Tensor,
        mid_starts: NDArray[numpy.int64] | Tensor,
        mid_room: NDArray[numpy.int64] | Tensor,
        mid_ts: NDArray[numpy.float32] | Tensor,
        mid_rays: NDArray[numpy.int64] | Tensor,
        is_valid: NDArray[numpy.bool_] | Tensor,
        n_mids: NDArray[numpy.int64] | Tensor,
        t_ends: NDArray[numpy.float32] | Tensor,
    ) -> None: ...
