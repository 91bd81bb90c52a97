"""Every function of the extension with a maker of valid arguments; a new binding is a new entry of `BINDINGS`."""

import numpy as np

from quicksurf.kernels import _native

LEVELS = [(3.0, 4, 64, False), (7.0, 8, 64, True)]
PARTS = [("Identity", 0, 3, 0, 0, []), ("Grid", 3, 3, 0, 2, LEVELS), ("SphericalHarmonics", 3, 3, 3, 0, [])]
LAYOUT = {
    "n_input": 6,
    "parts": PARTS,
    "width": 16,
    "n_hidden_layers": 2,
    "n_output": 4,
    "hidden_activation": "Softplus",
    "output_activation": "Sigmoid",
}
NETWORK = _native.Network.make(**LAYOUT)
ENCODING = _native.Network.make(**LAYOUT | {"n_hidden_layers": 0})


class Maker:
    """Valid arrays of one size and one float type, from one seed."""

    def __init__(self, n: int, real: str, seed: int):
        self.n, self.real, self.rng = n, real, np.random.default_rng(seed)

    def values(self, *shape: int, dtype: str | None = None) -> np.ndarray:
        return self.rng.random(shape).astype(dtype or self.real)

    def counts(self) -> np.ndarray:
        return self.rng.integers(0, 5, self.n)

    def offsets(self, counts: np.ndarray) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


def rays(make: Maker) -> dict:
    directions = make.values(make.n, 3, dtype="f4") - 0.5
    boxes = np.array([[-1, -1, -1, 1, 1, 1], [-2, -2, -2, 2, 2, 2]], np.float32)
    return {
        "origins": -2 * directions,
        "directions": directions,
        "binaries": make.values(2, 3, 4, 5) < 0.5,
        "aabbs": boxes,
        "near_planes": np.zeros(make.n, np.float32),
        "far_planes": np.full(make.n, 9, np.float32),
        "step_size": 0.2,
    }


def walks(make: Maker) -> dict:
    known = rays(make)
    return {
        "rays_o": known["origins"],
        "rays_d": known["directions"],
        "rays_mask": make.values(make.n) < 0.9,
        "binaries": known["binaries"],
        "aabbs": known["aabbs"],
        "hits": make.values(make.n, 2) < 0.9,
        "t_sorted": np.tile(np.array([0, 0, 1, 2], np.float32), (make.n, 1)),
        "t_indices": np.tile(np.array([1, 0, 2, 3]), (make.n, 1)),
        "near_planes": known["near_planes"],
        "far_planes": known["far_planes"],
        "step_size": 0.2,
        "cone_angle": 0.01,
        "traverse_steps_limit": 20,
    }


def walk_count(make: Maker) -> dict:
    counts = {name: np.zeros(make.n, np.int64) for name in ("n_edges", "n_mids")}
    return walks(make) | counts


def count_steps(n_edges, n_mids, **known):
    return _native.Walks(**known).count(n_edges, n_mids)


def walk_fill(make: Maker) -> dict:
    args, known = {}, walks(make)
    for kind, room in (("edge", 60), ("mid", 40)):
        args |= {f"{kind}_starts": room * np.arange(make.n), f"{kind}_room": np.full(make.n, room)}
        args |= {f"{kind}_ts": np.zeros(room * make.n, np.float32)}
        args |= {f"{kind}_rays": np.zeros(room * make.n, np.int64), f"n_{kind}s": np.zeros(make.n, np.int64)}
    flags = {name: np.zeros(60 * make.n, bool) for name in ("is_left", "is_right")}
    valid = np.zeros(40 * make.n, bool)
    return known | args | flags | {"is_valid": valid, "t_ends": np.zeros(make.n, np.float32)}


def fill_steps(**args):
    names = walks(Maker(0, "f4", 0))
    known = {name: args.pop(name) for name in names}
    return _native.Walks(**known).fill(**args)


def chunks(make: Maker, starts: str, counts: str, extra: int = 0) -> tuple[dict, int]:
    """Where chunks of a packed array begin and how long they are, and the length of the array."""
    sizes = make.counts() + extra
    offsets = make.offsets(sizes)
    return {starts: offsets[:-1].copy(), counts: sizes}, int(offsets[-1])


def scan(make: Maker, *arrays: str, **options: bool) -> dict:
    known, m = chunks(make, "chunk_starts", "chunk_cnts")
    return known | {"inclusive": True} | options | {name: make.values(m) for name in arrays}


def importance_sampling(make: Maker) -> dict:
    keys, m = chunks(make, "key_starts", "key_counts")
    samples, n_samples = chunks(make, "sample_starts", "sample_counts")
    sizes = samples["sample_counts"] + 1
    edges = {"edge_starts": make.offsets(sizes)[:-1].copy(), "edge_counts": sizes}
    values = {name: np.sort(make.values(m, dtype="f4")) for name in ("key_ts", "cdfs")}
    outputs = {"ts": make.values(n_samples, dtype="f4"), "edge_ts": make.values(sizes.sum(), dtype="f4")}
    return keys | values | {"biases": make.values(make.n, dtype="f4")} | samples | edges | outputs


def searchsorted(make: Maker) -> dict:
    keys, m = chunks(make, "key_starts", "key_counts", 1)
    queries, n_queries = chunks(make, "query_starts", "query_counts")
    outputs = {name: np.zeros(n_queries, np.int64) for name in ("left", "right")}
    values = {"key_ts": np.sort(make.values(m, dtype="f4")), "query_ts": make.values(n_queries, dtype="f4")}
    return keys | queries | values | {"relative": True} | outputs


def intersect_boxes(make: Maker) -> dict:
    known = rays(make)
    ranges = {"near_plane": 0.0, "far_plane": 9.0, "miss_value": -1.0}
    outputs = {name: np.zeros((make.n, 2), np.float32) for name in ("t_mins", "t_maxs")}
    given = {"rays_o": known["origins"], "rays_d": known["directions"], "aabbs": known["aabbs"]}
    return given | ranges | outputs | {"hits": np.zeros((make.n, 2), bool)}


def sample_surface(make: Maker) -> dict:
    m = 5 * make.n
    numbers = {
        "n_active_levels": 2,
        "radius": 0.5,
        "scale": 0.5,
        "max_slope": 4.0,
        "n_secant": 3,
        "half_width": 0.2,
        "reach": 0.1,
    }
    outputs = {
        "hits": np.zeros(make.n, bool),
        "t_surface": np.zeros(make.n, np.float32),
        "packed_info": np.zeros((make.n, 2), np.int64),
        "t": np.zeros(m, np.float32),
        "deltas": np.zeros(m, np.float32),
        "ray_indices": np.zeros(m, np.int64),
    }
    samples = {"n_interval": 3, "n_front": 2, "level": 0.05, "jitter": make.values(make.n, 5, dtype="f4")}
    known = {"network": NETWORK, "params": make.values(NETWORK.n_params, dtype="f4")}
    return known | rays(make) | numbers | samples | outputs


def logit_weights(make: Maker, **arrays: str) -> dict:
    """Arrays by name, one value a sample or one a ray."""
    offsets = make.offsets(make.counts())
    sizes = {"sample": int(offsets[-1]), "ray": make.n}
    values = {name: make.values(sizes[per]) for name, per in arrays.items()}
    medium = {"absorption": 3.0, "shift": 0.6}
    return {"offsets": offsets, "sharpness": 20.0, "transmittance": True} | medium | values


def packed(make: Maker, *names: str) -> dict:
    offsets = make.offsets(make.counts())
    return {"offsets": offsets} | {name: make.values(int(offsets[-1])) for name in names}


def accumulate(make: Maker, backward: bool) -> dict:
    args = packed(make, "weights")
    m = len(args["weights"])
    if not backward:
        return args | {"values": make.values(m, 3), "out": make.values(make.n, 3)}
    grads = {"grad_weights": make.values(m), "grad_values": make.values(m, 3)}
    return args | {"values": make.values(m, 3), "grad_out": make.values(make.n, 3)} | grads


def network_forward(make: Maker, network: _native.Network) -> dict:
    return {
        "params": make.values(network.n_params),
        "n_active_levels": 2,
        "x": make.values(make.n, 6),
        "output": make.values(network.n_output, make.n),
        "saved": make.values(network.n_saved, make.n),
    }


def network_backward(make: Maker, network: _native.Network) -> dict:
    args = network_forward(make, network)
    grads = {"grad_params": make.values(network.n_params), "grad_x": make.values(6, make.n)}
    return args | {"grad_output": args.pop("output")} | grads


def adam(make: Maker) -> dict:
    arrays = {name: make.values(make.n, dtype="f4") for name in ("param", "grad", "first", "second")}
    numbers = {
        "learning_rate": 0.1,
        "beta1": 0.9,
        "beta2": 0.99,
        "epsilon": 1e-15,
        "step": 3,
        "skip_zero": True,
    }
    return arrays | numbers


def rasterize(make: Maker) -> dict:
    vertices = 8 * make.values(max(make.n, 1), 3, dtype="f4")
    faces = make.rng.integers(0, len(vertices), (make.n, 3)).astype(np.int32)
    return {"vertices": vertices, "faces": faces, "width": 9, "height": 7}


def match_descriptors(make: Maker) -> dict:
    first = make.rng.integers(0, 256, (make.n, 128), np.uint8)
    pairs = np.array([(0, 1), (1, 0), (1, 1)], np.int32)
    return {
        "first": first,
        "second": first[::-1].copy(),
        "pairs": pairs,
        "max_ratio": 0.8,
        "max_distance": 0.7,
    }


def match_images(make: Maker) -> dict:
    args = match_descriptors(make)
    return {"descriptors": [args.pop("first"), args.pop("second")]} | args


def stereo_transforms() -> np.ndarray:
    return np.tile(np.array([[1, 0, 0, 3], [0, 1, 0, 0], [0, 0, 1, 0]], np.float32), (2, 1, 1))


def patches(make: Maker) -> dict:
    shape = make.n + 1, 9
    grey = make.rng.integers(0, 256, (3, *shape), np.uint8)
    return {
        "reference": grey[0],
        "first": grey[1],
        "second": grey[2],
        "transforms": stereo_transforms(),
        "planes": make.values(3, *shape, dtype="f4"),
        "costs": np.zeros(shape, np.float32),
        "range": (0.1, 1.0),
        "reach": 0.5,
        "tilt": 0.5,
        "shrink": 0.5,
        "focal": 10.0,
        "similarity": 20.0,
        "least_contrast": 2.0,
        "n_best": 2,
        "n_sweeps": 1,
        "seed": 0,
    }


def match_two_patches(reference, first, second, **args):
    return _native.match_patches(reference, [first, second], **args)


def depths(make: Maker) -> dict:
    shape = make.n + 1, 9
    return {
        "planes": make.values(3, *shape, dtype="f4"),
        "costs": make.values(*shape, dtype="f4"),
        "other_planes": make.values(3, *shape, dtype="f4"),
        "other_costs": make.values(*shape, dtype="f4"),
        "there": stereo_transforms(),
        "back": stereo_transforms(),
        "intrinsics": np.array([9, 9, 4, 4], np.float32),
        "inverse_depths": np.zeros(shape, np.float32),
        "spreads": np.zeros(shape, np.float32),
        "most_cost": 0.4,
        "most_other_cost": 0.8,
        "most_pixels": 1.0,
        "most_relative": 0.1,
        "least_cosine": 0.1,
        "n_agreeing": 1,
    }


def verify_by_two(other_planes, other_costs, **args):
    return _native.verify_depths(other_planes=[other_planes] * 2, other_costs=[other_costs] * 2, **args)


def match_two(first, second, **args):
    return _native.match_descriptors([first, second], **args)


# Name, what is called, its valid arguments.
BINDINGS = {
    "usable_cpus": (_native.usable_cpus, lambda make: {}),
    "num_threads": (_native.num_threads, lambda make: {}),
    "set_num_threads": (_native.set_num_threads, lambda make: {"n": 2}),
    "instruction_set": (_native.instruction_set, lambda make: {}),
    "instruction_sets": (_native.instruction_sets, lambda make: {}),
    "set_instruction_set": (_native.set_instruction_set, lambda make: {"name": _native.instruction_set()}),
    "Network.make": (_native.Network.make, lambda make: dict(LAYOUT)),
    "Network.forward": (NETWORK.forward, lambda make: network_forward(make, NETWORK)),
    "Network.forward, encoding": (ENCODING.forward, lambda make: network_forward(make, ENCODING)),
    "Network.backward": (NETWORK.backward, lambda make: network_backward(make, NETWORK)),
    "Network.backward, encoding": (ENCODING.backward, lambda make: network_backward(make, ENCODING)),
    "adam": (_native.adam, adam),
    "Walks.count": (count_steps, walk_count),
    "Walks.fill": (fill_steps, walk_fill),
    "sum_scan": (
        _native.sum_scan,
        lambda make: scan(make, "inputs", "outputs", normalize=True, from_back=False),
    ),
    "prod_scan": (_native.prod_scan, lambda make: scan(make, "inputs", "outputs")),
    "prod_scan_backward": (
        _native.prod_scan_backward,
        lambda make: scan(make, "inputs", "outputs", "grad_outputs", "grad_inputs"),
    ),
    "importance_sampling": (_native.importance_sampling, importance_sampling),
    "searchsorted": (_native.searchsorted, searchsorted),
    "intersect_boxes": (_native.intersect_boxes, intersect_boxes),
    "sample_surface": (_native.sample_surface, sample_surface),
    "logit_weights_forward": (
        _native.logit_weights_forward,
        lambda make: logit_weights(
            make,
            logits="sample",
            deltas="sample",
            depths="sample",
            alphas="sample",
            weights="sample",
            opacities="ray",
        ),
    ),
    "logit_weights_backward": (
        _native.logit_weights_backward,
        lambda make: logit_weights(
            make,
            deltas="sample",
            depths="sample",
            alphas="sample",
            grad_weights="sample",
            grad_opacities="ray",
            grad_logits="sample",
        ),
    ),
    "accumulate_forward": (_native.accumulate_forward, lambda make: accumulate(make, False)),
    "accumulate_backward": (_native.accumulate_backward, lambda make: accumulate(make, True)),
    "match_descriptors": (match_two, match_descriptors),
    "match_descriptors, images": (_native.match_descriptors, match_images),
    "match_patches": (match_two_patches, patches),
    "verify_depths": (verify_by_two, depths),
    "rasterize": (_native.rasterize, rasterize),
}
