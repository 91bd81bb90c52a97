// What every binding file needs: constrained arrays in, kernels called without the GIL. Outputs are allocated by the
// caller. Wrong dtypes, ranks, devices and layouts are TypeErrors by the signatures; wrong sizes are ValueErrors.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "rays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quicksurf {

// An array whose elements are where its type may be: kernels are compiled for that. numpy and torch also make others,
// from a buffer at an odd offset or from storage that was freed.
template <class... Args>
struct Array : nb::ndarray<Args...> {
    Array() = default;
    explicit Array(const nb::ndarray<Args...>& array) : nb::ndarray<Args...>(array) {}
    bool addressable() const {
        const auto* data = this->data();
        return this->size() == 0 || (data && reinterpret_cast<uintptr_t>(data) % alignof(decltype(*data)) == 0);
    }
};

template <class T>
using Vector = Array<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = Array<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using StridedMatrix = Array<T, nb::ndim<2>, nb::device::cpu>;
using Points = Array<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Binaries = Array<const bool, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

inline void expect(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

inline void expect_size(size_t found, size_t expected, const char* name) {
    expect(found == expected,
           std::string(name) + " has " + std::to_string(found) + " values, expected " + std::to_string(expected));
}

template <class A>
void expect_shape(const A& array, size_t rows, size_t columns, const char* name) {
    expect(array.shape(0) == rows && array.shape(1) == columns,
           std::string(name) + " has shape (" + std::to_string(array.shape(0)) + ", " + std::to_string(array.shape(1)) +
               "), expected (" + std::to_string(rows) + ", " + std::to_string(columns) + ")");
}

// A copy of `offsets`, one more than there are rays; ValueError unless they rise from 0 to n_values, the length of
// `values_name`. A copy: what kernels index with must not change under way, even if the array is an output as well.
std::vector<int64_t> checked_offsets(const Vector<const int64_t>& offsets, size_t n_values, const char* values_name);
Grids make_grids(const Binaries& binaries, const Matrix<const float>& aabbs);
RayBatch make_rays(const Points& origins, const Points& directions, const Vector<const float>& near,
                   const Vector<const float>& far);

void bind_networks(nb::module_&);   // Network with forward and backward; adam
void bind_rays(nb::module_&);       // accumulate
void bind_unisurf(nb::module_&);    // sample_surface, logit_weights
void bind_rasterize(nb::module_&);
void bind_match(nb::module_&);      // match_descriptors
void bind_stereo(nb::module_&);     // match_patches, verify_depths
void bind_nerfacc(nb::module_&);    // scans of packed arrays, importance sampling, boxes, walks

}  // namespace quicksurf

namespace nanobind::detail {

template <class... Args>
struct type_caster<quicksurf::Array<Args...>> {
    using Inner = make_caster<ndarray<Args...>>;
    NB_TYPE_CASTER(quicksurf::Array<Args...>, Inner::Name)

    template <class Flags>
    bool from_python(handle source, Flags flags, cleanup_list* cleanup) noexcept {
        Inner inner;
        if (!inner.from_python(source, flags, cleanup)) return false;
        value = Value(inner.value);
        return !value.is_valid() || value.addressable();
    }
};

}  // namespace nanobind::detail
