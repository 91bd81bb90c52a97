// What nerfacc's Python calls in place of its CUDA extension; quicksurf/kernels/nerfacc.py holds the names.
#include <algorithm>
#include <cfloat>
#include <cmath>

#include "bindings.h"
#include "importance.h"
#include "packed_scans.h"
#include "traversal.h"

namespace quicksurf {

namespace {

using Indices = Vector<const int64_t>;

bool overlap(const Chunks& chunks) {
    std::vector<std::pair<int64_t, int64_t>> used;
    for (size_t i = 0; i < chunks.n; ++i)
        if (chunks.counts[i] > 0) used.emplace_back(chunks.starts[i], chunks.starts[i] + chunks.counts[i]);
    std::sort(used.begin(), used.end());
    for (size_t i = 1; i < used.size(); ++i)
        if (used[i - 1].second > used[i].first) return true;
    return false;
}

// ValueError unless every chunk lies in [0, n_values) and no two share a value.
Chunks make_chunks(const Indices& starts, const Indices& counts, size_t n_values, const char* name) {
    expect(counts.size() == starts.size(), std::string(name) + ": as many chunks begin as have a count");
    Chunks chunks{
        starts.size(), {starts.data(), starts.data() + starts.size()}, {counts.data(), counts.data() + counts.size()}};
    const int64_t size = static_cast<int64_t>(n_values);
    int64_t end = 0;
    bool in_order = true;
    for (size_t i = 0; i < chunks.n; ++i) {
        const int64_t start = chunks.starts[i], count = chunks.counts[i];
        if (start < 0 || start > size || count < 0 || count > size - start)
            throw std::invalid_argument(std::string(name) + ": chunk " + std::to_string(i) + " (start " +
                                        std::to_string(start) + ", count " + std::to_string(count) +
                                        ") is not within " + std::to_string(size) + " values");
        if (count == 0) continue;
        in_order &= start >= end;
        end = start + count;
    }
    expect(in_order || !overlap(chunks), std::string(name) + ": chunks overlap");
    return chunks;
}

// Outputs that no chunk holds are zero.
template <class T>
void clear_gaps(const Chunks& chunks, const Vector<T>& outputs) {
    int64_t covered = 0;
    for (size_t i = 0; i < chunks.n; ++i) covered += chunks.counts[i];
    if (covered < static_cast<int64_t>(outputs.size()))
        std::fill(outputs.data(), outputs.data() + outputs.size(), T(0));
}

template <class T>
void bind_sum_scan(Indices starts, Indices counts, bool inclusive, bool normalize, bool from_back,
                   Vector<const T> inputs, Vector<T> outputs) {
    const Chunks chunks = make_chunks(starts, counts, inputs.size(), "inputs");
    expect_size(outputs.size(), inputs.size(), "outputs");
    nb::gil_scoped_release release;
    clear_gaps(chunks, outputs);
    sum_scan<T>(chunks, inclusive, normalize, from_back, inputs.data(), outputs.data());
}

template <class T>
void bind_prod_scan(Indices starts, Indices counts, bool inclusive, Vector<const T> inputs, Vector<T> outputs) {
    const Chunks chunks = make_chunks(starts, counts, inputs.size(), "inputs");
    expect_size(outputs.size(), inputs.size(), "outputs");
    nb::gil_scoped_release release;
    clear_gaps(chunks, outputs);
    prod_scan<T>(chunks, inclusive, inputs.data(), outputs.data());
}

template <class T>
void bind_prod_scan_backward(Indices starts, Indices counts, bool inclusive, Vector<const T> inputs,
                             Vector<const T> outputs, Vector<const T> grad_outputs, Vector<T> grad_inputs) {
    const Chunks chunks = make_chunks(starts, counts, inputs.size(), "inputs");
    expect_size(outputs.size(), inputs.size(), "outputs");
    expect_size(grad_outputs.size(), inputs.size(), "grad_outputs");
    expect_size(grad_inputs.size(), inputs.size(), "grad_inputs");
    nb::gil_scoped_release release;
    clear_gaps(chunks, grad_inputs);
    prod_scan_backward<T>(chunks, inclusive, inputs.data(), outputs.data(), grad_outputs.data(), grad_inputs.data());
}

void bind_importance(Indices key_starts, Indices key_counts, Vector<const float> key_ts, Vector<const float> cdfs,
                     Vector<const float> biases, Indices sample_starts, Indices sample_counts, Vector<float> ts,
                     Indices edge_starts, Indices edge_counts, Vector<float> edge_ts) {
    const Chunks keys = make_chunks(key_starts, key_counts, key_ts.size(), "key_ts");
    const Chunks samples = make_chunks(sample_starts, sample_counts, ts.size(), "ts");
    const Chunks edges = make_chunks(edge_starts, edge_counts, edge_ts.size(), "edge_ts");
    expect_size(cdfs.size(), key_ts.size(), "cdfs");
    expect_size(biases.size(), keys.n, "biases");
    expect_size(samples.n, keys.n, "sample_starts");
    expect_size(edges.n, keys.n, "edge_starts");
    for (size_t i = 0; i < keys.n; ++i)
        expect(edges.counts[i] >= (samples.counts[i] > 0 ? samples.counts[i] + 1 : 0),
               "edge_counts: one more than sample_counts");
    nb::gil_scoped_release release;
    importance_sampling(keys, key_ts.data(), cdfs.data(), biases.data(), samples, ts.data(), edges, edge_ts.data());
}

void bind_searchsorted(Indices key_starts, Indices key_counts, Vector<const float> key_ts, Indices query_starts,
                       Indices query_counts, Vector<const float> query_ts, bool relative, Vector<int64_t> left,
                       Vector<int64_t> right) {
    const Chunks keys = make_chunks(key_starts, key_counts, key_ts.size(), "key_ts");
    const Chunks queries = make_chunks(query_starts, query_counts, query_ts.size(), "query_ts");
    expect_size(queries.n, keys.n, "query_starts");
    expect_size(left.size(), query_ts.size(), "left");
    expect_size(right.size(), query_ts.size(), "right");
    nb::gil_scoped_release release;
    clear_gaps(queries, left);
    clear_gaps(queries, right);
    searchsorted(keys, key_ts.data(), queries, query_ts.data(), relative, left.data(), right.data());
}

void bind_intersect(Points origins, Points directions, Matrix<const float> aabbs, float near, float far, float miss,
                    Matrix<float> t_mins, Matrix<float> t_maxs, Matrix<bool> hits) {
    const size_t n = origins.shape(0), m = aabbs.shape(0);
    expect_shape(directions, n, 3, "rays_d");
    expect_shape(aabbs, m, 6, "aabbs");
    expect_shape(t_mins, n, m, "t_mins");
    expect_shape(t_maxs, n, m, "t_maxs");
    expect_shape(hits, n, m, "hits");
    nb::gil_scoped_release release;
    intersect_boxes(n, origins.data(), directions.data(), m, aabbs.data(), near, far, miss, t_mins.data(),
                    t_maxs.data(), reinterpret_cast<uint8_t*>(hits.data()));
}

// nerfacc's rays, grids, crossings and options. It keeps the arrays alive and checks them in every call: they may have
// changed since the last.
struct Walks {
    Points origins, directions;
    Vector<const bool> mask;
    Binaries binaries;
    Matrix<const float> aabbs;
    Matrix<const bool> hits;
    Matrix<const float> t_sorted;
    Matrix<const int64_t> t_indices;
    Vector<const float> near, far;
    float step_size, cone_angle;
    int64_t steps_limit;

    Traversal checked() const;
    void count(Vector<int64_t> n_edges, Vector<int64_t> n_mids) const;
    void fill(Indices edge_starts, Indices edge_room, Vector<float> edge_ts, Vector<int64_t> edge_rays,
              Vector<bool> is_left, Vector<bool> is_right, Vector<int64_t> n_edges, Indices mid_starts,
              Indices mid_room, Vector<float> mid_ts, Vector<int64_t> mid_rays, Vector<bool> is_valid,
              Vector<int64_t> n_mids, Vector<float> t_ends) const;
};

Traversal Walks::checked() const {
    const Grids grids = make_grids(binaries, aabbs);
    const RayBatch rays = make_rays(origins, directions, near, far);
    const size_t n_crossings = 2 * binaries.shape(0);
    expect_size(mask.size(), rays.n, "rays_mask");
    expect_shape(hits, rays.n, binaries.shape(0), "hits");
    expect_shape(t_sorted, rays.n, n_crossings, "t_sorted");
    expect_shape(t_indices, rays.n, n_crossings, "t_indices");
    std::vector<int64_t> crossings(t_indices.data(),
                                   t_indices.data() + rays.n * n_crossings);  // may share an output's memory
    bool in_range = true;
    for (const int64_t i : crossings) in_range &= i >= 0 && i < int64_t(n_crossings);
    expect(in_range, "t_indices holds a number that is no crossing of a grid");
    expect(std::isfinite(step_size) && (step_size <= 0 || step_size >= FLT_MIN),
           "step_size must be finite: above 0 and not subnormal, or at most 0 for one step per cell");
    expect(std::isfinite(cone_angle) && cone_angle >= 0, "cone_angle must be finite and not negative");
    return {grids,
            rays,
            reinterpret_cast<const uint8_t*>(mask.data()),
            reinterpret_cast<const uint8_t*>(hits.data()),
            t_sorted.data(),
            std::move(crossings),
            step_size,
            cone_angle,
            steps_limit};
}

void Walks::count(Vector<int64_t> n_edges, Vector<int64_t> n_mids) const {
    const Traversal traversal = checked();
    expect_size(n_edges.size(), traversal.rays.n, "n_edges");
    expect_size(n_mids.size(), traversal.rays.n, "n_mids");
    bool bounded;
    {
        nb::gil_scoped_release release;
        bounded = count_steps(traversal, n_edges.data(), n_mids.data());
    }
    expect(bounded, "a ray takes more than a million steps: choose a larger step_size");
}

void Walks::fill(Indices edge_starts, Indices edge_room, Vector<float> edge_ts, Vector<int64_t> edge_rays,
                 Vector<bool> is_left, Vector<bool> is_right, Vector<int64_t> n_edges, Indices mid_starts,
                 Indices mid_room, Vector<float> mid_ts, Vector<int64_t> mid_rays, Vector<bool> is_valid,
                 Vector<int64_t> n_mids, Vector<float> t_ends) const {
    const Traversal traversal = checked();
    const StepEdges edges{make_chunks(edge_starts, edge_room, edge_ts.size(), "edge_ts"),
                          edge_ts.data(),
                          edge_rays.data(),
                          reinterpret_cast<uint8_t*>(is_left.data()),
                          reinterpret_cast<uint8_t*>(is_right.data()),
                          n_edges.data()};
    const StepMids mids{make_chunks(mid_starts, mid_room, mid_ts.size(), "mid_ts"), mid_ts.data(), mid_rays.data(),
                        reinterpret_cast<uint8_t*>(is_valid.data()), n_mids.data()};
    const size_t n = traversal.rays.n;
    for (const auto& [size, expected, name] : {std::tuple{edges.room.n, n, "edge_starts"},
                                               {mids.room.n, n, "mid_starts"},
                                               {n_edges.size(), n, "n_edges"},
                                               {n_mids.size(), n, "n_mids"},
                                               {t_ends.size(), n, "t_ends"},
                                               {edge_rays.size(), edge_ts.size(), "edge_rays"},
                                               {is_left.size(), edge_ts.size(), "is_left"},
                                               {is_right.size(), edge_ts.size(), "is_right"},
                                               {mid_rays.size(), mid_ts.size(), "mid_rays"},
                                               {is_valid.size(), mid_ts.size(), "is_valid"}})
        expect_size(size, expected, name);
    bool fits;
    {
        nb::gil_scoped_release release;
        fits = fill_steps(traversal, edges, mids, t_ends.data());
    }
    expect(fits,
           "a ray takes more than a million steps, or more than it has room for in edge_room and mid_room: choose a "
           "larger step_size");
}

void bind_walks(nb::module_& m) {
    nb::class_<Walks>(m, "Walks")
        .def(
            "__init__",
            [](Walks* self, Points origins, Points directions, Vector<const bool> mask, Binaries binaries,
               Matrix<const float> aabbs, Matrix<const bool> hits, Matrix<const float> t_sorted,
               Matrix<const int64_t> t_indices, Vector<const float> near, Vector<const float> far, float step_size,
               float cone_angle, int64_t steps_limit) {
                new (self) Walks{origins,   directions, mask, binaries,  aabbs,      hits,       t_sorted,
                                 t_indices, near,       far,  step_size, cone_angle, steps_limit};
            },
            "rays_o"_a.noconvert(), "rays_d"_a.noconvert(), "rays_mask"_a.noconvert(), "binaries"_a.noconvert(),
            "aabbs"_a.noconvert(), "hits"_a.noconvert(), "t_sorted"_a.noconvert(), "t_indices"_a.noconvert(),
            "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "cone_angle"_a,
            "traverse_steps_limit"_a)
        .def("count", &Walks::count, "n_edges"_a.noconvert(), "n_mids"_a.noconvert())
        .def("fill", &Walks::fill, "edge_starts"_a.noconvert(), "edge_room"_a.noconvert(), "edge_ts"_a.noconvert(),
             "edge_rays"_a.noconvert(), "is_left"_a.noconvert(), "is_right"_a.noconvert(), "n_edges"_a.noconvert(),
             "mid_starts"_a.noconvert(), "mid_room"_a.noconvert(), "mid_ts"_a.noconvert(), "mid_rays"_a.noconvert(),
             "is_valid"_a.noconvert(), "n_mids"_a.noconvert(), "t_ends"_a.noconvert());
}

template <class T>
void bind_scans(nb::module_& m) {
    m.def("sum_scan", &bind_sum_scan<T>, "chunk_starts"_a.noconvert(), "chunk_cnts"_a.noconvert(), "inclusive"_a,
          "normalize"_a, "from_back"_a, "inputs"_a.noconvert(), "outputs"_a.noconvert());
    m.def("prod_scan", &bind_prod_scan<T>, "chunk_starts"_a.noconvert(), "chunk_cnts"_a.noconvert(), "inclusive"_a,
          "inputs"_a.noconvert(), "outputs"_a.noconvert());
    m.def("prod_scan_backward", &bind_prod_scan_backward<T>, "chunk_starts"_a.noconvert(), "chunk_cnts"_a.noconvert(),
          "inclusive"_a, "inputs"_a.noconvert(), "outputs"_a.noconvert(), "grad_outputs"_a.noconvert(),
          "grad_inputs"_a.noconvert());
}

}  // namespace

void bind_nerfacc(nb::module_& m) {
    bind_scans<float>(m);
    bind_scans<double>(m);
    m.def("importance_sampling", &bind_importance, "key_starts"_a.noconvert(), "key_counts"_a.noconvert(),
          "key_ts"_a.noconvert(), "cdfs"_a.noconvert(), "biases"_a.noconvert(), "sample_starts"_a.noconvert(),
          "sample_counts"_a.noconvert(), "ts"_a.noconvert(), "edge_starts"_a.noconvert(), "edge_counts"_a.noconvert(),
          "edge_ts"_a.noconvert());
    m.def("searchsorted", &bind_searchsorted, "key_starts"_a.noconvert(), "key_counts"_a.noconvert(),
          "key_ts"_a.noconvert(), "query_starts"_a.noconvert(), "query_counts"_a.noconvert(), "query_ts"_a.noconvert(),
          "relative"_a, "left"_a.noconvert(), "right"_a.noconvert());
    m.def("intersect_boxes", &bind_intersect, "rays_o"_a.noconvert(), "rays_d"_a.noconvert(), "aabbs"_a.noconvert(),
          "near_plane"_a, "far_plane"_a, "miss_value"_a, "t_mins"_a.noconvert(), "t_maxs"_a.noconvert(),
          "hits"_a.noconvert());
    bind_walks(m);
}

}  // namespace quicksurf
