#include "bindings.h"

#include <cmath>

namespace quicksurf {

size_t check_offsets(const Vector<const int64_t>& offsets, size_t n_values, const char* name) {
    const size_t n = offsets.size();
    expect(n >= 1 && offsets.data()[0] == 0 && offsets.data()[n - 1] == int64_t(n_values),
           std::string("offsets must start at 0 and end at the length of ") + name);
    bool sorted = true;
    for (size_t i = 1; i < n; ++i) sorted &= offsets.data()[i - 1] <= offsets.data()[i];
    expect(sorted, "offsets must not decrease");
    return n - 1;
}

Grids make_grids(const Binaries& binaries, const Matrix<const float>& aabbs) {
    expect_shape(aabbs, binaries.shape(0), 6, "aabbs");
    int resolution[3];
    for (int d = 0; d < 3; ++d) {
        expect(binaries.shape(d + 1) >= 1 && binaries.shape(d + 1) <= 4096, "binaries: resolution must be 1 to 4096");
        resolution[d] = int(binaries.shape(d + 1));
    }
    expect(binaries.shape(0) >= 1 && binaries.shape(0) <= 64, "binaries: 1 to 64 levels");
    for (size_t i = 0; i < binaries.shape(0) * 6; ++i)
        expect(std::isfinite(aabbs.data()[i]) && (i % 6 < 3 || aabbs.data()[i] > aabbs.data()[i - 3]),
               "aabbs: finite, and min below max");
    return {reinterpret_cast<const uint8_t*>(binaries.data()), aabbs.data(), int(binaries.shape(0)), resolution};
}

RayBatch make_rays(const Points& origins, const Points& directions, const Vector<const float>& near,
                   const Vector<const float>& far) {
    const size_t n = origins.shape(0);
    expect_shape(directions, n, 3, "directions");
    expect_size(near.size(), n, "near_planes");
    expect_size(far.size(), n, "far_planes");
    return {n, origins.data(), directions.data(), near.data(), far.data()};
}

namespace {

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

template <class T>
void bind_composition(nb::module_& m) {
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

void bind_rays(nb::module_& m) {
    m.def("traverse_count", &bind_traverse, "origins"_a.noconvert(), "directions"_a.noconvert(), "binaries"_a.noconvert(),
          "aabbs"_a.noconvert(), "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "cone_angle"_a,
          "counts"_a.noconvert());
    m.def("traverse_fill", &bind_traverse_fill, "origins"_a.noconvert(), "directions"_a.noconvert(), "binaries"_a.noconvert(),
          "aabbs"_a.noconvert(), "near_planes"_a.noconvert(), "far_planes"_a.noconvert(), "step_size"_a, "cone_angle"_a,
          "offsets"_a.noconvert(), "t_starts"_a.noconvert(), "t_ends"_a.noconvert(), "ray_indices"_a.noconvert());
    bind_composition<float>(m);
    bind_composition<double>(m);
}

}  // namespace quicksurf
