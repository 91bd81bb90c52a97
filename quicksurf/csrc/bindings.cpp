// The Python module quicksurf._native: constrained arrays in, kernels called without the GIL. Outputs are allocated by
// the caller. Wrong dtypes, ranks, devices and layouts are TypeErrors by the signatures; wrong sizes are ValueErrors.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>

#include "kernels.h"
#include "rasterize.h"
#include "rays.h"
#include "thread_pool.h"

namespace nb = nanobind;
using namespace nb::literals;
using namespace quicksurf;

namespace {

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using StridedMatrix = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;
using Points = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;

void expect(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

void expect_size(size_t found, size_t expected, const char* name) {
    expect(found == expected,
           std::string(name) + " has " + std::to_string(found) + " values, expected " + std::to_string(expected));
}

template <class A>
void expect_shape(const A& array, size_t rows, size_t columns, const char* name) {
    expect(array.shape(0) == rows && array.shape(1) == columns,
           std::string(name) + " has shape (" + std::to_string(array.shape(0)) + ", " + std::to_string(array.shape(1)) +
               "), expected (" + std::to_string(rows) + ", " + std::to_string(columns) + ")");
}

// ---------------------------------------------------------------- networks

Activation activation(const std::string& name) {
    if (name == "None") return Activation::none;
    if (name == "ReLU") return Activation::relu;
    if (name == "Softplus") return Activation::softplus;
    if (name == "Sigmoid") return Activation::sigmoid;
    throw std::invalid_argument("activation '" + name + "' is unknown: choose None, ReLU, Softplus or Sigmoid");
}

int padded(int n) { return (n + 15) / 16 * 16; }

struct PartSpec {
    std::string kind;
    int input_begin, n_dims, degree, n_features;
    std::vector<std::tuple<double, uint32_t, uint32_t, bool>> levels;  // scale, resolution, size, hashed
};

EncodingPart make_part(const PartSpec& from, NetworkSpec& spec, size_t& n_table) {
    EncodingPart part{};
    part.input_begin = from.input_begin;
    part.n_dims = from.n_dims;
    part.row_begin = spec.n_encoded;
    expect(from.input_begin >= 0 && from.n_dims > 0 && from.input_begin + from.n_dims <= spec.n_input,
           "an encoding reads inputs that do not exist");
    if (from.kind == "Identity") {
        part.kind = EncodingKind::identity;
        part.n_rows = from.n_dims;
        return part;
    }
    expect(from.n_dims == 3, from.kind + " encodes 3 dimensions, not " + std::to_string(from.n_dims));
    if (from.kind == "SphericalHarmonics") {
        expect(from.degree >= 1 && from.degree <= 4, "SphericalHarmonics: degree must be 1 to 4");
        part.kind = EncodingKind::spherical_harmonics;
        part.degree = from.degree;
        part.n_rows = from.degree * from.degree;
        return part;
    }
    expect(from.kind == "Grid", "encoding '" + from.kind + "' is unknown");
    const int f = from.n_features;
    expect(f == 1 || f == 2 || f == 4 || f == 8, "Grid: n_features_per_level must be 1, 2, 4 or 8");
    expect(!from.levels.empty() && from.levels.size() <= 32, "Grid: n_levels must be 1 to 32");
    part.kind = EncodingKind::grid;
    part.n_features = f;
    part.n_rows = f * static_cast<int>(from.levels.size());
    part.saved_begin = spec.n_saved;
    spec.n_saved += part.n_rows;
    size_t entries = 0;
    for (const auto& [scale, resolution, size, hashed] : from.levels) {
        expect(scale >= 0 && scale < 1 << 20 && resolution >= 1 && resolution <= 1 << 20, "Grid: resolution out of range");
        expect(size >= 1 && size <= 1u << 28, "Grid: table size out of range");
        expect(hashed ? (size & (size - 1)) == 0
                      : resolution <= 1024 && size >= uint64_t(resolution) * resolution * resolution && size >= 8,
               "Grid: a hashed level's size must be a power of two, a dense level must hold its grid");
        part.levels.push_back({scale, resolution, size, hashed, entries});
        entries += size;
    }
    part.table_offset = n_table;
    n_table += entries * f;
    return part;
}

NetworkSpec make_network(int n_input, const std::vector<PartSpec>& parts, int width, int n_hidden_layers, int n_output,
                         const std::string& hidden_activation, const std::string& output_activation) {
    expect(n_input >= 1 && n_input <= 256, "n_input must be 1 to 256");
    expect(!parts.empty(), "an encoding needs at least one part");
    NetworkSpec spec{};
    spec.n_input = n_input;
    size_t n_table = 0;
    for (const PartSpec& part : parts) {
        spec.parts.push_back(make_part(part, spec, n_table));
        spec.n_encoded += spec.parts.back().n_rows;
    }
    expect(spec.n_encoded <= 512, "an encoding has at most 512 outputs");
    spec.hidden_activation = activation(hidden_activation);
    spec.output_activation = activation(output_activation);
    spec.n_hidden_layers = n_hidden_layers;
    if (n_hidden_layers > 0) {
        expect(n_hidden_layers <= 8, "n_hidden_layers must be 1 to 8");
        expect(width == 16 || width == 32 || width == 64 || width == 128, "n_neurons must be 16, 32, 64 or 128");
        expect(n_output >= 1 && n_output <= 128, "n_output_dims must be 1 to 128");
        spec.width = width;
        spec.n_output = n_output;
        spec.n_output_padded = padded(n_output);
        spec.n_encoded_padded = padded(spec.n_encoded);
        spec.n_network_params = spec.layer_offset(n_hidden_layers + 1);
    } else {
        expect(n_hidden_layers == 0, "n_hidden_layers must not be negative");
        spec.n_output = spec.n_output_padded = spec.n_encoded_padded = spec.n_encoded;
    }
    for (EncodingPart& part : spec.parts) part.table_offset += spec.n_network_params;
    spec.n_params = spec.n_network_params + n_table;
    return spec;
}

template <class T>
Strided<const T> strided(const StridedMatrix<const T>& x) {
    return {x.data(), x.stride(0), x.stride(1)};
}

template <class T>
const NetworkKernels<T>& network_kernels() {
    if constexpr (std::is_same_v<T, float>)
        return kernels().network32;
    else
        return kernels().network64;
}

template <class T>
void network_forward(const NetworkSpec& spec, Vector<const T> params, int n_active_levels, StridedMatrix<const T> x,
                     Matrix<T> output, std::optional<Matrix<T>> saved) {
    const size_t n = x.shape(0);
    expect_size(params.size(), spec.n_params, "params");
    expect_shape(x, n, spec.n_input, "x");
    expect_shape(output, spec.n_output, n, "output");
    if (saved) expect_shape(*saved, spec.n_saved, n, "saved");
    nb::gil_scoped_release release;
    network_kernels<T>().forward(spec, params.data(), n_active_levels, strided<T>(x), n, output.data(),
                                 saved ? saved->data() : nullptr);
}

template <class T>
void network_backward(const NetworkSpec& spec, Vector<const T> params, int n_active_levels, StridedMatrix<const T> x,
                      Matrix<const T> saved, Matrix<const T> grad_output, std::optional<Vector<T>> grad_params,
                      std::optional<Matrix<T>> grad_x) {
    const size_t n = x.shape(0);
    expect_size(params.size(), spec.n_params, "params");
    expect_shape(x, n, spec.n_input, "x");
    expect_shape(saved, spec.n_saved, n, "saved");
    expect_shape(grad_output, spec.n_output, n, "grad_output");
    if (grad_params) expect_size(grad_params->size(), spec.n_params, "grad_params");
    if (grad_x) expect_shape(*grad_x, spec.n_input, n, "grad_x");
    nb::gil_scoped_release release;
    std::vector<T> grad_saved(grad_params ? size_t(spec.n_saved) * n : 0);
    network_kernels<T>().backward(spec, params.data(), n_active_levels, strided<T>(x), n, saved.data(), grad_output.data(),
                                  grad_params ? grad_params->data() : nullptr, grad_x ? grad_x->data() : nullptr,
                                  grad_saved.data());
}

void adam(Vector<float> param, Vector<const float> grad, Vector<float> first, Vector<float> second, float learning_rate,
          float beta1, float beta2, float epsilon, int64_t step, bool skip_zero) {
    expect(step >= 1, "step counts from 1");
    expect_size(grad.size(), param.size(), "grad");
    expect_size(first.size(), param.size(), "first");
    expect_size(second.size(), param.size(), "second");
    const AdamStep s{learning_rate, beta1, beta2, epsilon, float(1 / (1 - std::pow(double(beta1), double(step)))),
                     float(1 / (1 - std::pow(double(beta2), double(step)))), skip_zero};
    nb::gil_scoped_release release;
    kernels().adam(s, param.size(), param.data(), grad.data(), first.data(), second.data());
}

// ---------------------------------------------------------------- rays

size_t check_offsets(const Vector<const int64_t>& offsets, size_t n_values, const char* name) {
    const size_t n = offsets.size();
    expect(n >= 1 && offsets.data()[0] == 0 && offsets.data()[n - 1] == int64_t(n_values),
           std::string("offsets must start at 0 and end at the length of ") + name);
    bool sorted = true;
    for (size_t i = 1; i < n; ++i) sorted &= offsets.data()[i - 1] <= offsets.data()[i];
    expect(sorted, "offsets must not decrease");
    return n - 1;
}

using Binaries = nb::ndarray<const bool, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

Grids make_grids(const Binaries& binaries, const Matrix<const float>& aabbs) {
    expect_shape(aabbs, binaries.shape(0), 6, "aabbs");
    Grids grids{reinterpret_cast<const uint8_t*>(binaries.data()), aabbs.data(), int(binaries.shape(0)), {}};
    for (int d = 0; d < 3; ++d) {
        expect(binaries.shape(d + 1) >= 1 && binaries.shape(d + 1) <= 4096, "binaries: resolution must be 1 to 4096");
        grids.resolution[d] = int(binaries.shape(d + 1));
    }
    expect(grids.n_levels >= 1, "binaries: at least one level");
    for (size_t i = 0; i < binaries.shape(0) * 6; ++i)
        expect(std::isfinite(aabbs.data()[i]) && (i % 6 < 3 || aabbs.data()[i] > aabbs.data()[i - 3]),
               "aabbs: finite, and min below max");
    return grids;
}

RayBatch make_rays(const Points& origins, const Points& directions, const Vector<const float>& near,
                   const Vector<const float>& far) {
    const size_t n = origins.shape(0);
    expect_shape(directions, n, 3, "directions");
    expect_size(near.size(), n, "near_planes");
    expect_size(far.size(), n, "far_planes");
    return {n, origins.data(), directions.data(), near.data(), far.data()};
}

void bind_traverse(Points origins, Points directions, Binaries binaries, Matrix<const float> aabbs, Vector<const float> near,
                   Vector<const float> far, float step_size, float cone_angle, Vector<int64_t> counts) {
    const Grids grids = make_grids(binaries, aabbs);
    const RayBatch rays = make_rays(origins, directions, near, far);
    expect_size(counts.size(), rays.n, "counts");
    expect(step_size > 0 && std::isfinite(step_size), "step_size must be positive");
    expect(cone_angle >= 0 && cone_angle < 1, "cone_angle must be in [0, 1)");
    bool bounded;
    {
        nb::gil_scoped_release release;
        bounded = traverse_count(grids, rays, step_size, cone_angle, counts.data());
    }
    expect(bounded, "a ray takes more than a million steps: choose a larger step_size");
}

void bind_traverse_fill(Points origins, Points directions, Binaries binaries, Matrix<const float> aabbs,
                        Vector<const float> near, Vector<const float> far, float step_size, float cone_angle,
                        Vector<const int64_t> offsets, Vector<float> t_starts, Vector<float> t_ends,
                        Vector<int64_t> ray_indices) {
    const Grids grids = make_grids(binaries, aabbs);
    const RayBatch rays = make_rays(origins, directions, near, far);
    expect_size(check_offsets(offsets, t_starts.size(), "t_starts"), rays.n, "offsets");
    expect_size(t_ends.size(), t_starts.size(), "t_ends");
    expect_size(ray_indices.size(), t_starts.size(), "ray_indices");
    expect(step_size > 0 && std::isfinite(step_size), "step_size must be positive");
    expect(cone_angle >= 0 && cone_angle < 1, "cone_angle must be in [0, 1)");
    bool agrees;
    {
        nb::gil_scoped_release release;
        agrees = traverse_fill(grids, rays, step_size, cone_angle, offsets.data(), t_starts.data(), t_ends.data(),
                               ray_indices.data());
    }
    expect(agrees, "offsets are not those that traverse_count gives for these rays");
}

int64_t bind_search(const NetworkSpec& spec, Vector<const float> params, int n_active_levels, Points origins,
                    Points directions, Binaries binaries, Matrix<const float> aabbs, Vector<const float> near,
                    Vector<const float> far, float step_size, float radius, float scale, int n_secant, Vector<bool> hits,
                    Vector<float> ts) {
    const SurfaceSearch search{make_grids(binaries, aabbs), make_rays(origins, directions, near, far), step_size, radius,
                               scale, n_secant};
    expect_size(params.size(), spec.n_params, "params");
    expect(spec.n_input == 6 && spec.has_network(), "search needs a network on 6 inputs: x and (x + 1) / 2");
    expect_size(hits.size(), search.rays.n, "hits");
    expect_size(ts.size(), search.rays.n, "ts");
    expect(step_size > 0 && std::isfinite(step_size), "step_size must be positive");
    expect(n_secant >= 1 && n_secant <= 64, "n_secant must be 1 to 64");
    nb::gil_scoped_release release;
    return kernels().search(spec, params.data(), n_active_levels, search, reinterpret_cast<uint8_t*>(hits.data()), ts.data());
}

IntervalSpec make_interval(float half_width, int n_interval, int n_front) {
    expect(half_width > 0 && n_interval >= 1 && n_interval <= 4096 && n_front >= 0 && n_front <= 4096,
           "half_width and n_interval must be positive, n_front not negative");
    return {half_width, n_interval, n_front};
}

void bind_interval(Vector<const int64_t> offsets, Vector<const float> t_starts, Vector<const float> t_ends,
                   Vector<const bool> hits, Vector<const float> t_surface, float half_width, int n_interval, int n_front,
                   Vector<int64_t> counts) {
    const size_t n = check_offsets(offsets, t_starts.size(), "t_starts");
    expect_size(t_ends.size(), t_starts.size(), "t_ends");
    expect_size(hits.size(), n, "hits");
    expect_size(t_surface.size(), n, "t_surface");
    expect_size(counts.size(), n, "counts");
    const IntervalSpec spec = make_interval(half_width, n_interval, n_front);
    nb::gil_scoped_release release;
    interval_count(spec, n, offsets.data(), t_starts.data(), t_ends.data(), reinterpret_cast<const uint8_t*>(hits.data()),
                   t_surface.data(), counts.data());
}

void bind_interval_fill(Vector<const int64_t> offsets, Vector<const float> t_starts, Vector<const float> t_ends,
                        Vector<const bool> hits, Vector<const float> t_surface, float half_width, int n_interval, int n_front,
                        Matrix<const float> jitter, Vector<const int64_t> sample_offsets, Vector<float> t,
                        Vector<float> lengths, Vector<int64_t> ray_indices) {
    const size_t n = check_offsets(offsets, t_starts.size(), "t_starts");
    expect_size(check_offsets(sample_offsets, t.size(), "t"), n, "sample_offsets");
    expect_size(t_ends.size(), t_starts.size(), "t_ends");
    expect_size(hits.size(), n, "hits");
    expect_size(t_surface.size(), n, "t_surface");
    expect_shape(jitter, n, size_t(n_interval) + n_front, "jitter");
    expect_size(lengths.size(), t.size(), "lengths");
    expect_size(ray_indices.size(), t.size(), "ray_indices");
    const IntervalSpec spec = make_interval(half_width, n_interval, n_front);
    std::vector<int64_t> counts(n);
    const auto* hit = reinterpret_cast<const uint8_t*>(hits.data());
    bool agree = true;
    {
        nb::gil_scoped_release release;
        interval_count(spec, n, offsets.data(), t_starts.data(), t_ends.data(), hit, t_surface.data(), counts.data());
        for (size_t r = 0; r < n; ++r) agree &= counts[r] == sample_offsets.data()[r + 1] - sample_offsets.data()[r];
        if (agree)
            interval_fill(spec, n, offsets.data(), t_starts.data(), t_ends.data(), hit, t_surface.data(), jitter.data(),
                          sample_offsets.data(), t.data(), lengths.data(), ray_indices.data());
    }
    expect(agree, "sample_offsets do not agree with the counts of these rays");
}

template <class T>
void bind_weights_forward(Vector<const int64_t> offsets, Vector<const T> alphas, Vector<T> weights, Vector<T> transmittance) {
    const size_t n = check_offsets(offsets, alphas.size(), "alphas");
    expect_size(weights.size(), alphas.size(), "weights");
    expect_size(transmittance.size(), alphas.size(), "transmittance");
    nb::gil_scoped_release release;
    weights_forward<T>(n, offsets.data(), alphas.data(), weights.data(), transmittance.data());
}

template <class T>
void bind_weights_backward(Vector<const int64_t> offsets, Vector<const T> alphas, Vector<const T> transmittance,
                           Vector<const T> grad_weights, Vector<const T> grad_transmittance, Vector<T> grad_alphas) {
    const size_t n = check_offsets(offsets, alphas.size(), "alphas");
    for (const auto& [size, name] : {std::pair{transmittance.size(), "transmittance"}, {grad_weights.size(), "grad_weights"},
                                     {grad_transmittance.size(), "grad_transmittance"}, {grad_alphas.size(), "grad_alphas"}})
        expect_size(size, alphas.size(), name);
    nb::gil_scoped_release release;
    weights_backward<T>(n, offsets.data(), alphas.data(), transmittance.data(), grad_weights.data(), grad_transmittance.data(),
                        grad_alphas.data());
}

template <class T>
void bind_accumulate_forward(Vector<const int64_t> offsets, Vector<const T> weights, std::optional<Matrix<const T>> values,
                             Matrix<T> out) {
    const size_t n = check_offsets(offsets, weights.size(), "weights");
    if (values) expect_shape(*values, weights.size(), out.shape(1), "values");
    expect_shape(out, n, values ? values->shape(1) : 1, "out");
    nb::gil_scoped_release release;
    accumulate_forward<T>(n, offsets.data(), weights.data(), values ? values->data() : nullptr, out.shape(1), out.data());
}

template <class T>
void bind_accumulate_backward(Vector<const int64_t> offsets, Vector<const T> weights, std::optional<Matrix<const T>> values,
                              Matrix<const T> grad_out, Vector<T> grad_weights, std::optional<Matrix<T>> grad_values) {
    const size_t n = check_offsets(offsets, weights.size(), "weights"), n_dims = grad_out.shape(1);
    if (values) expect_shape(*values, weights.size(), n_dims, "values");
    if (grad_values) expect_shape(*grad_values, weights.size(), n_dims, "grad_values");
    expect_shape(grad_out, n, values ? n_dims : 1, "grad_out");
    expect_size(grad_weights.size(), weights.size(), "grad_weights");
    nb::gil_scoped_release release;
    accumulate_backward<T>(n, offsets.data(), weights.data(), values ? values->data() : nullptr, n_dims, grad_out.data(),
                           grad_weights.data(), grad_values ? grad_values->data() : nullptr);
}

// ---------------------------------------------------------------- rasteriser

using Vertices = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Faces = nb::ndarray<const int32_t, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;

template <class T>
using Image = nb::ndarray<nb::numpy, T, nb::ndim<2>, nb::c_contig>;

template <class T>
Image<T> new_image(int width, int height) {
    T* data = new T[size_t(width) * height];
    return Image<T>(data, {size_t(height), size_t(width)},
                    nb::capsule(data, [](void* p) noexcept { delete[] static_cast<T*>(p); }));
}

std::pair<Image<float>, Image<int32_t>> bind_rasterize(Vertices vertices, Faces faces, int width, int height) {
    expect(width >= 1 && height >= 1 && width <= 32768 && height <= 32768, "width and height must be 1 to 32768");
    const int64_t n_vertices = int64_t(vertices.shape(0)), n_faces = int64_t(faces.shape(0));
    bool in_range = true;
    for (int64_t i = 0; i < 3 * n_faces; ++i) in_range &= faces.data()[i] >= 0 && faces.data()[i] < n_vertices;
    expect(in_range, "faces hold an index that is no vertex");
    auto depth = new_image<float>(width, height);
    auto face_indices = new_image<int32_t>(width, height);
    {
        nb::gil_scoped_release release;
        rasterize(vertices.data(), faces.data(), n_faces, width, height, depth.data(), face_indices.data());
    }
    return {depth, face_indices};
}

template <class T>
void bind_templates(nb::module_& m, nb::class_<NetworkSpec>& network) {
    network.def("forward", &network_forward<T>, "params"_a.noconvert(), "n_active_levels"_a, "x"_a.noconvert(),
                "output"_a.noconvert(), "saved"_a.noconvert().none());
    network.def("backward", &network_backward<T>, "params"_a.noconvert(), "n_active_levels"_a, "x"_a.noconvert(),
                "saved"_a.noconvert(), "grad_output"_a.noconvert(), "grad_params"_a.noconvert().none(),
                "grad_x"_a.noconvert().none());
    m.def("weights_forward", &bind_weights_forward<T>, "offsets"_a.noconvert(), "alphas"_a.noconvert(),
          "weights"_a.noconvert(), "transmittance"_a.noconvert());
    m.def("weights_backward", &bind_weights_backward<T>, "offsets"_a.noconvert(), "alphas"_a.noconvert(),
          "transmittance"_a.noconvert(), "grad_weights"_a.noconvert(), "grad_transmittance"_a.noconvert(),
          "grad_alphas"_a.noconvert());
    m.def("accumulate_forward", &bind_accumulate_forward<T>, "offsets"_a.noconvert(), "weights"_a.noconvert(),
          "values"_a.noconvert().none(), "out"_a.noconvert());
    m.def("accumulate_backward", &bind_accumulate_backward<T>, "offsets"_a.noconvert(), "weights"_a.noconvert(),
          "values"_a.noconvert().none(), "grad_out"_a.noconvert(), "grad_weights"_a.noconvert(),
          "grad_values"_a.noconvert().none());
}

}  // namespace

NB_MODULE(_native, m) {
    m.doc() = "Native CPU kernels of quicksurf.";
    nb::set_leak_warnings(false);  // descriptions of networks are cached until the interpreter ends
    m.def("usable_cpus", &usable_cpus);
    m.def("num_threads", &num_threads);
    m.def("set_num_threads", [](int n) {
        expect(n >= 1 && n <= 1024, "the number of threads must be 1 to 1024");
        set_num_threads(n);
    }, "n"_a);
    m.def("instruction_set", &instruction_set);
    m.def("instruction_sets", &instruction_sets);
    m.def("set_instruction_set", &set_instruction_set, "name"_a);

    auto network = nb::class_<NetworkSpec>(m, "Network");
    network.def_static(
        "make",
        [](int n_input, const std::vector<std::tuple<std::string, int, int, int, int,
                                                     std::vector<std::tuple<double, uint32_t, uint32_t, bool>>>>& parts,
           int width, int n_hidden_layers, int n_output, const std::string& hidden, const std::string& output) {
            std::vector<PartSpec> list;
            for (const auto& [kind, begin, dims, degree, features, levels] : parts)
                list.push_back({kind, begin, dims, degree, features, levels});
            return make_network(n_input, list, width, n_hidden_layers, n_output, hidden, output);
        },
        "n_input"_a, "parts"_a, "width"_a, "n_hidden_layers"_a, "n_output"_a, "hidden_activation"_a, "output_activation"_a);
    network.def_ro("n_params", &NetworkSpec::n_params);
    network.def_ro("n_network_params", &NetworkSpec::n_network_params);
    network.def_ro("n_saved", &NetworkSpec::n_saved);
    network.def_ro("n_output", &NetworkSpec::n_output);
    network.def("search", &bind_search, "params"_a.noconvert(), "n_active_levels"_a, "origins"_a.noconvert(),
                "directions"_a.noconvert(), "binaries"_a.noconvert(), "aabbs"_a.noconvert(), "near_planes"_a.noconvert(),
                "far_planes"_a.noconvert(), "step_size"_a, "radius"_a, "scale"_a, "n_secant"_a, "hits"_a.noconvert(),
                "ts"_a.noconvert());
    bind_templates<float>(m, network);
    bind_templates<double>(m, network);

    m.def("adam", &adam, "param"_a.noconvert(), "grad"_a.noconvert(), "first"_a.noconvert(), "second"_a.noconvert(),
          "learning_rate"_a, "beta1"_a, "beta2"_a, "epsilon"_a, "step"_a, "skip_zero"_a);

    m.def("traverse_count", &bind_traverse, "origins"_a.noconvert(), "directions"_a.noconvert(), "binaries"_a.noconvert(),
          "aabbs"_a.noconvert(), "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "cone_angle"_a,
          "counts"_a.noconvert());
    m.def("traverse_fill", &bind_traverse_fill, "origins"_a.noconvert(), "directions"_a.noconvert(), "binaries"_a.noconvert(),
          "aabbs"_a.noconvert(), "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "cone_angle"_a,
          "offsets"_a.noconvert(), "t_starts"_a.noconvert(), "t_ends"_a.noconvert(), "ray_indices"_a.noconvert());
    m.def("interval_count", &bind_interval, "offsets"_a.noconvert(), "t_starts"_a.noconvert(), "t_ends"_a.noconvert(),
          "hits"_a.noconvert(), "t_surface"_a.noconvert(), "half_width"_a, "n_interval"_a, "n_front"_a, "counts"_a.noconvert());
    m.def("interval_fill", &bind_interval_fill, "offsets"_a.noconvert(), "t_starts"_a.noconvert(), "t_ends"_a.noconvert(),
          "hits"_a.noconvert(), "t_surface"_a.noconvert(), "half_width"_a, "n_interval"_a, "n_front"_a,
          "jitter"_a.noconvert(), "sample_offsets"_a.noconvert(), "t"_a.noconvert(), "lengths"_a.noconvert(),
          "ray_indices"_a.noconvert());

    m.def("rasterize", &bind_rasterize, "vertices"_a.noconvert(), "faces"_a.noconvert(), "width"_a, "height"_a,
          "Depth (+inf where nothing is) and face index (-1) of each pixel.");
}
