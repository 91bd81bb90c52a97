"""nerfacc's scans and importance sampling on CPU tensors against their twin: values, gradients, bad arguments."""

import nerfacc
import pytest
import scans_twin
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tolerances import EXACT64, SCAN32, relative
from torch import Tensor

from quicksurf import kernels
from quicksurf.geometry.rays import pack_counts
from quicksurf.kernels import _native
from quicksurf.kernels import nerfacc as nerfacc_cpu

NAMES = ("inclusive_sum", "exclusive_sum", "inclusive_prod", "exclusive_prod")
COUNTS = ([], [0], [1], [0, 0, 3], [4], [5, 0, 1, 2, 8, 3, 0], [20_000])


@pytest.fixture(autouse=True)
def installed():
    nerfacc_cpu.install()


def packed(counts: list[int]) -> Tensor:
    return pack_counts(torch.tensor(counts, dtype=torch.long))


def values(n: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    """Around 1, so that products of thousands neither vanish nor explode."""
    return torch.empty(n, dtype=dtype).uniform_(0.99, 1.01, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("counts", COUNTS, ids=str)
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, SCAN32), (torch.float64, EXACT64)])
def test_scans_equal_their_twin(name, counts, dtype, tolerance):
    x, weights = values(sum(counts), dtype).requires_grad_(), values(sum(counts), dtype, 1) - 1
    found = getattr(nerfacc, name)(x, packed(counts))
    expected = scans_twin.scan_chunks(getattr(scans_twin, name), x, packed(counts))
    assert found.dtype == dtype and relative(found, expected) < tolerance
    if sum(counts):
        gradients = [torch.autograd.grad((y * weights).sum(), x)[0] for y in (found, expected)]
        assert relative(*gradients) < 10 * tolerance


@pytest.mark.parametrize("name", NAMES)
def test_gradients_by_differences(name):
    x = torch.tensor([0.5, 0.0, 1.0, -2.0, 0.0, 0.0, 3.0, 1.0, 0.3, 0.0], dtype=torch.float64)
    packed_info = packed([4, 0, 3, 1, 2])
    assert torch.autograd.gradcheck(lambda x: getattr(nerfacc, name)(x, packed_info), x.requires_grad_())


@pytest.mark.parametrize("n_rays", [0, 1, 7])
def test_weights_at_alpha_zero_and_one(n_rays):
    counts = [3, 0, 5, 1, 2, 4, 6][:n_rays]
    alphas = torch.rand(sum(counts), dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    alphas[::3], alphas[1::4] = 1.0, 0.0
    packed_info = packed(counts)

    def twin(a: Tensor) -> Tensor:
        return a * scans_twin.scan_chunks(scans_twin.exclusive_prod, 1 - a, packed_info)

    alphas.requires_grad_()
    weights, transmittance = nerfacc.render_weight_from_alpha(alphas, packed_info)
    assert relative(weights, twin(alphas)) < EXACT64 and transmittance.shape == alphas.shape
    assert torch.autograd.gradcheck(lambda a: nerfacc.render_weight_from_alpha(a, packed_info)[0], alphas)


def test_the_gradient_behind_an_opaque_sample_is_finite_in_float32():
    alphas = torch.tensor([0.2, 1.0, 0.5], requires_grad=True)
    nerfacc.render_weight_from_alpha(alphas, packed([3]))[0].sum().backward()
    # Σw = 1 − (1 − a)(1 − b)(1 − c): its derivatives are the products of the other two factors.
    assert torch.allclose(alphas.grad, torch.tensor([0.0, 0.4, 0.0]))


def test_visibility_and_density_use_the_scans():
    alphas = torch.tensor([0.4, 0.8, 0.1, 0.8, 0.1, 0.0, 0.9])
    ray_indices = torch.tensor([0, 0, 0, 1, 1, 2, 2])  # nerfacc's own example
    visible = nerfacc.render_visibility_from_alpha(
        alphas, ray_indices=ray_indices, early_stop_eps=0.3, alpha_thre=0.2
    )
    assert visible.tolist() == [True, True, False, True, False, False, True]
    ones = torch.ones(7)
    _, transmittance, _ = nerfacc.render_weight_from_density(0 * ones, ones, alphas, ray_indices=ray_indices)
    assert torch.allclose(transmittance[[1, 2, 4]], torch.exp(-torch.tensor([0.4, 1.2, 0.8])))


@pytest.mark.parametrize("inclusive", [True, False])
@pytest.mark.parametrize("from_back", [True, False])
@pytest.mark.parametrize("normalize", [True, False])
def test_sums_from_either_end_and_normalised(inclusive, from_back, normalize):
    counts, x = packed([4, 0, 1, 9]), values(14)
    x[4] = 0.0  # a chunk whose sum is zero
    function = nerfacc_cpu.inclusive_sum if inclusive else nerfacc_cpu.exclusive_sum
    scan = scans_twin.inclusive_sum if inclusive else scans_twin.exclusive_sum

    def reversed_scan(chunk: Tensor) -> Tensor:
        return scan(chunk.flip(0)).flip(0)

    found = function(*counts.T.contiguous(), x, normalize, from_back)
    twin = scans_twin.scan_chunks(reversed_scan if from_back else scan, x, counts, normalize)
    assert relative(found, twin) < EXACT64


def test_chunks_lie_in_any_order_and_gaps_are_zero():
    packed_info, x = torch.tensor([[6, 2], [0, 3], [9, 0], [4, 1]]), values(9)
    for name in NAMES:
        found = getattr(nerfacc, name)(x, packed_info)
        assert relative(found, scans_twin.scan_chunks(getattr(scans_twin, name), x, packed_info)) < EXACT64
        assert found[[3, 5, 8]].tolist() == [0, 0, 0]


def test_results_do_not_depend_on_the_number_of_threads():
    counts = packed(torch.randint(0, 60, (3000,), generator=torch.Generator().manual_seed(0)).tolist())
    x, before, results = values(int(counts[:, 1].sum()), torch.float32), _native.num_threads(), []
    for n in (1, 2, 5):
        kernels.set_num_threads(n)
        results.append([getattr(nerfacc, name)(x, counts) for name in NAMES])
    kernels.set_num_threads(before)
    assert all(torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True))


def test_pack_info():
    assert nerfacc.pack_info(torch.tensor([0, 0, 1, 3]), 5).tolist() == [
        [0, 2],
        [2, 1],
        [3, 0],
        [3, 1],
        [4, 0],
    ]
    assert nerfacc.pack_info(torch.tensor([0, 2])).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert nerfacc.pack_info(torch.zeros(0, dtype=torch.long)).shape == (0, 2)
    for bad, n_rays in (([0, 2], 2), ([-1, 0], 3)):
        with pytest.raises(ValueError, match="ray_indices"):
            nerfacc.pack_info(torch.tensor(bad), n_rays)


def distribution(counts: list[int], seed: int = 0) -> tuple[nerfacc.RayIntervals, Tensor]:
    """Rising edges with gaps of weight zero among them, and their cdf on each ray."""
    generator = torch.Generator().manual_seed(seed)
    ts = [torch.rand(n, generator=generator).sort().values for n in counts]
    weights = [
        torch.rand(n, generator=generator) * (torch.rand(n, generator=generator) < 0.7) for n in counts
    ]
    cdfs = [w.cumsum(0) / w.sum().clamp_min(1e-6) for w in weights]
    return nerfacc.RayIntervals(torch.cat(ts), packed(counts)), torch.cat(cdfs)


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("n", [0, 1, 2, 33])
def test_importance_sampling_equals_its_twin(n, stratified):
    intervals, cdfs = distribution([5, 1, 0, 2, 17, 400, 3])
    torch.manual_seed(5)
    edges, samples = nerfacc.importance_sampling(intervals, cdfs, n, stratified)
    torch.manual_seed(5)
    biases = torch.rand(7) if stratified else torch.full((7,), 0.5)
    assert edges.vals.shape == (7, n + 1) and samples.vals.shape == (7, n)
    for ray, (start, count) in enumerate(intervals.packed_info.tolist()):
        ray_keys = intervals.vals[start : start + count], cdfs[start : start + count]
        twin = scans_twin.importance_sampling(*ray_keys, n, float(biases[ray]))
        if n:
            assert torch.allclose(
                edges.vals[ray], twin[0], atol=1e-4, rtol=0
            )  # 1/weight amplifies u's rounding
        assert torch.allclose(samples.vals[ray], twin[1], atol=1e-4, rtol=0)


def test_a_number_of_intervals_for_each_ray():
    intervals, cdfs = distribution([5, 9, 2, 4])
    n = torch.tensor([3, 0, 1, 6])
    edges, samples = nerfacc.importance_sampling(intervals, cdfs, n)
    assert samples.packed_info.tolist() == packed(n.tolist()).tolist()
    assert edges.packed_info[:, 1].tolist() == [4, 0, 2, 7] and edges.ray_indices.bincount().tolist() == [
        4,
        0,
        2,
        7,
    ]
    starts, ends = edges.vals[edges.is_left], edges.vals[edges.is_right]
    assert len(starts) == len(ends) == len(samples.vals) == 10
    assert bool((starts <= samples.vals).all()) and bool((samples.vals <= ends).all())
    for ray, count in ((0, 3), (3, 6)):
        batched, _ = nerfacc.importance_sampling(intervals, cdfs, count)
        start, length = edges.packed_info[ray]
        assert torch.equal(batched.vals[ray], edges.vals[start : start + length])


def test_batched_and_flat_layout_agree():
    ts, cdfs = torch.rand(4, 6).sort().values, torch.rand(4, 6).sort().values
    flat = nerfacc.RayIntervals(ts.reshape(-1), packed([6] * 4))
    for layout in (nerfacc.RayIntervals(ts), flat):
        shaped = cdfs.reshape(layout.vals.shape)
        found = nerfacc.importance_sampling(layout, shaped, 5)[1].vals
        assert torch.equal(found, nerfacc.importance_sampling(flat, cdfs.reshape(-1), 5)[1].vals)
    left, right = nerfacc.searchsorted(nerfacc.RayIntervals(ts), nerfacc.RayIntervals(cdfs))
    for ray in range(4):
        assert torch.equal(torch.stack([left[ray], right[ray]]), scans_twin.searchsorted(ts[ray], cdfs[ray]))


def test_searching_flat_rays_counts_from_the_first_key_of_all():
    keys, _ = distribution([5, 1, 8])
    queries, _ = distribution([2, 3, 0], seed=1)
    left, right = nerfacc.searchsorted(keys, queries)
    for ray, (start, count) in enumerate(queries.packed_info.tolist()):
        key_start, key_count = keys.packed_info[ray].tolist()
        ray_keys, here = keys.vals[key_start : key_start + key_count], slice(start, start + count)
        twin = scans_twin.searchsorted(ray_keys, queries.vals[here]) + key_start
        assert torch.equal(torch.stack([left[here], right[here]]), twin)


BAD = {
    "outside": ([[0, 4]], ValueError),
    "negative start": ([[-1, 2]], ValueError),
    "negative count": ([[0, -1]], ValueError),
    "huge": ([[2, 2**63 - 1]], ValueError),
    "overlap": ([[0, 2], [1, 2]], ValueError),
    "overlap in another order": ([[1, 2], [0, 2]], ValueError),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("name", NAMES)
def test_bad_chunks_are_refused(name, case):
    packed_info, error = BAD[case]
    with pytest.raises(error, match="inputs: chunk"):
        getattr(nerfacc, name)(torch.rand(3), torch.tensor(packed_info))


def test_bad_arguments_are_named():
    starts, counts = torch.tensor([0]), torch.tensor([3])
    with pytest.raises(TypeError, match="inputs"):
        nerfacc_cpu.inclusive_prod_forward(starts, counts, torch.arange(3))
    with pytest.raises(TypeError, match="inputs"):
        nerfacc_cpu.inclusive_prod_forward(starts, counts, torch.rand(6)[::2])
    with pytest.raises(TypeError, match="chunk_starts"):
        nerfacc_cpu.inclusive_prod_forward(starts.int(), counts, torch.rand(3))
    with pytest.raises(TypeError, match="inputs"):
        nerfacc_cpu.inclusive_prod_forward(starts, counts, torch.rand(3, device="meta"))
    with pytest.raises(ValueError, match="grad_outputs has 2 values, expected 3"):
        nerfacc_cpu.inclusive_prod_backward(starts, counts, *torch.rand(2, 3), torch.rand(2))
    intervals, cdfs = distribution([3, 4])
    with pytest.raises(ValueError, match="cdfs has 6 values, expected 7"):
        nerfacc.importance_sampling(intervals, cdfs[:6], 2)
    for bad in (-1, 2**40, torch.tensor([1, -1]), torch.tensor([2**62, 2**62])):
        with pytest.raises(ValueError, match="n_intervals_per_ray"):
            nerfacc.importance_sampling(intervals, cdfs, bad)


numbers = st.one_of(st.integers(-3, 12), st.sampled_from([2**62, -(2**63), 2**63 - 1]))
floats = st.floats(width=32)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(numbers, numbers), max_size=6), st.lists(floats, max_size=10), st.integers(0, 5))
def test_any_chunks_and_values_give_a_result_or_an_error(chunks, numbers, n):
    packed_info = torch.tensor(chunks, dtype=torch.long).reshape(-1, 2)
    x = torch.tensor(numbers, dtype=torch.float32).requires_grad_()
    for name in NAMES:
        try:
            getattr(nerfacc, name)(x, packed_info).sum().backward()
        except ValueError as error:
            assert "chunk" in str(error)
    intervals = nerfacc.RayIntervals(x, packed_info)
    try:
        edges, _ = nerfacc.importance_sampling(intervals, x, n, stratified=True)
        nerfacc.searchsorted(intervals, intervals)
        assert edges.vals.shape == (len(chunks), n + 1)
    except ValueError as error:
        assert "chunk" in str(error)
