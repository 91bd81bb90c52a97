// What a network with input encoding is made of: plain data, filled in by the binding, read by the kernels.
//
// Layout of the parameters is tiny-cuda-nn's: the weight matrices row-major [n_out][n_in], first to last, no biases
// (the input is padded with ones to a multiple of 16, the output with unused rows), then the encoding's tables, level
// by level, features interleaved.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quicksurf {

enum class Activation : int { none, relu, softplus, sigmoid };

constexpr double SOFTPLUS_SHARPNESS = 10;  // tiny-cuda-nn's K_ACT: log(1 + e^(10 x)) / 10

enum class EncodingKind : int { identity, spherical_harmonics, grid };

struct GridLevel {
    double scale;         // cells along an axis - 1, real-valued: position = x * scale + 0.5
    uint32_t resolution;  // grid points along an axis
    uint32_t size;        // entries in the level's table
    uint32_t hashed;      // 0: entry = ix + resolution * (iy + resolution * iz); 1: spatial hash
    size_t offset;        // of the first entry, in entries from the start of this grid's table
};

// One part of a (possibly composite) encoding: reads `n_dims` inputs from `input_begin`, fills rows from `row_begin`.
struct EncodingPart {
    EncodingKind kind;
    int input_begin, n_dims;
    int row_begin, n_rows;
    int degree = 0;           // spherical harmonics
    int n_features = 0;       // grid: features per entry
    int saved_begin = 0;      // grid: first of its rows in the saved encoding
    size_t table_offset = 0;  // grid: from the start of all parameters, in values
    std::vector<GridLevel> levels;
};

struct NetworkSpec {
    int n_input;              // values per point
    int n_saved = 0;          // rows of grid features kept from forward to backward
    std::vector<EncodingPart> parts;
    int n_encoded, n_encoded_padded;
    int width, n_hidden_layers;  // n_hidden_layers == 0: encoding only, the output is the encoding
    int n_output, n_output_padded;
    Activation hidden_activation, output_activation;
    size_t n_params, n_network_params;

    bool has_network() const { return n_hidden_layers > 0; }
    // Layer i = 0 .. n_hidden_layers: shape and offset of its matrix.
    int layer_inputs(int i) const { return i == 0 ? n_encoded_padded : width; }
    int layer_outputs(int i) const { return i == n_hidden_layers ? n_output_padded : width; }
    size_t layer_offset(int i) const {
        size_t offset = 0;
        for (int j = 0; j < i; ++j) offset += static_cast<size_t>(layer_inputs(j)) * layer_outputs(j);
        return offset;
    }
};

// A matrix of points with free strides: value d of point i is data[i * point_stride + d * dim_stride].
template <class T>
struct Strided {
    T* data;
    ptrdiff_t point_stride, dim_stride;
};

}  // namespace quicksurf
