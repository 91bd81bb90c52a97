// What every binding file needs: constrained arrays in, kernels called without the GIL. Outputs are allocated by the caller.
// Wrong dtypes, ranks, devices and layouts are TypeErrors by the signatures; wrong sizes are ValueErrors.
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

#include "rays.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace quicksurf {

template <class T>
using Vector = nb::ndarray<T, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
template <class T>
using Matrix = nb::ndarray<T, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
template <class T>
using StridedMatrix = nb::ndarray<T, nb::ndim<2>, nb::device::cpu>;
using Points = nb::ndarray<const float, nb::shape<-1, 3>, nb::c_contig, nb::device::cpu>;
using Binaries = nb::ndarray<const bool, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

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

// Number of rays of `offsets`; ValueError unless they rise from 0 to n_values, the length of `name`.
size_t check_offsets(const Vector<const int64_t>& offsets, size_t n_values, const char* name);
Grids make_grids(const Binaries& binaries, const Matrix<const float>& aabbs);
RayBatch make_rays(const Points& origins, const Points& directions, const Vector<const float>& near,
                   const Vector<const float>& far);

void bind_networks(nb::module_&);   // Network with forward and backward; adam
void bind_rays(nb::module_&);       // accumulate
void bind_unisurf(nb::module_&);    // sample_surface, logit_weights
void bind_rasterize(nb::module_&);
void bind_nerfacc(nb::module_&);    // scans of packed arrays, importance sampling, boxes, walks

}  // namespace quicksurf
