#include "bindings.h"

#include <algorithm>
#include <cmath>

namespace quicksurf {

std::vector<int64_t> checked_offsets(const Vector<const int64_t>& offsets, size_t n_values, const char* values_name) {
    std::vector<int64_t> copy(offsets.data(), offsets.data() + offsets.size());
    expect(!copy.empty() && copy.front() == 0 && copy.back() == int64_t(n_values),
           std::string("offsets must start at 0 and end at the length of ") + values_name);
    expect(std::is_sorted(copy.begin(), copy.end()), "offsets must not decrease");
    return copy;
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

template <class T>
void bind_accumulate_forward(Vector<const int64_t> offsets, Vector<const T> weights,
                             std::optional<Matrix<const T>> values, Matrix<T> out) {
    const std::vector<int64_t> bounds = checked_offsets(offsets, weights.size(), "weights");
    const size_t n = bounds.size() - 1;
    if (values) expect_shape(*values, weights.size(), out.shape(1), "values");
    expect_shape(out, n, values ? values->shape(1) : 1, "out");
    nb::gil_scoped_release release;
    accumulate_forward<T>(n, bounds.data(), weights.data(), values ? values->data() : nullptr, out.shape(1),
                          out.data());
}

template <class T>
void bind_accumulate_backward(Vector<const int64_t> offsets, Vector<const T> weights,
                              std::optional<Matrix<const T>> values, Matrix<const T> grad_out, Vector<T> grad_weights,
                              std::optional<Matrix<T>> grad_values) {
    const std::vector<int64_t> bounds = checked_offsets(offsets, weights.size(), "weights");
    const size_t n = bounds.size() - 1, n_dims = grad_out.shape(1);
    if (values) expect_shape(*values, weights.size(), n_dims, "values");
    if (grad_values) expect_shape(*grad_values, weights.size(), n_dims, "grad_values");
    expect_shape(grad_out, n, values ? n_dims : 1, "grad_out");
    expect_size(grad_weights.size(), weights.size(), "grad_weights");
    nb::gil_scoped_release release;
    accumulate_backward<T>(n, bounds.data(), weights.data(), values ? values->data() : nullptr, n_dims, grad_out.data(),
                           grad_weights.data(), grad_values ? grad_values->data() : nullptr);
}

template <class T>
void bind_accumulate(nb::module_& m) {
    m.def("accumulate_forward", &bind_accumulate_forward<T>, "offsets"_a.noconvert(), "weights"_a.noconvert(),
          "values"_a.noconvert().none(), "out"_a.noconvert());
    m.def("accumulate_backward", &bind_accumulate_backward<T>, "offsets"_a.noconvert(), "weights"_a.noconvert(),
          "values"_a.noconvert().none(), "grad_out"_a.noconvert(), "grad_weights"_a.noconvert(),
          "grad_values"_a.noconvert().none());
}

}  // namespace

void bind_rays(nb::module_& m) {
    bind_accumulate<float>(m);
    bind_accumulate<double>(m);
}

}  // namespace quicksurf
