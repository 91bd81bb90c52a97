// Sums and products along the chunks of a packed array, forward and backward.
//
// Chunk c owns values [starts[c], starts[c] + counts[c]) of every array; chunks lie in any order, inside the arrays,
// and share no value. Chunks run in parallel, one chunk is a sequential scan, so results are the same for any number of
// threads. Outputs are overwritten inside chunks and untouched outside. float32 is accumulated in float64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quicksurf {

struct Chunks {
    size_t n;
    std::vector<int64_t> starts, counts;  // [n]; not the caller's memory, which may be an output's as well
};

// y_i = sum_{j<=i} x_j (inclusive) or sum_{j<i} x_j; `from_back` sums j >= i or j > i, which is the gradient by x of
// the forward sum. `normalize` divides by max(sum of the chunk, 1e-10).
template <class T>
void sum_scan(const Chunks&, bool inclusive, bool normalize, bool from_back, const T* inputs, T* outputs);

// y_i = prod_{j<=i} x_j (inclusive) or prod_{j<i} x_j.
template <class T>
void prod_scan(const Chunks&, bool inclusive, const T* inputs, T* outputs);

// Gradient by x of prod_scan from its inputs, its outputs y and g = grad_outputs, without a division, so it is right
// where x is zero. With E_i = prod_{j<i} x_j:
//   exclusive: grad_x_i = E_i R_{i+1}, R_i = g_i + x_i R_{i+1}, and E_i = y_i;
//   inclusive: grad_x_i = E_i S_i, S_i = g_i + x_{i+1} S_{i+1}, and E_i = y_{i-1}.
template <class T>
void prod_scan_backward(const Chunks&, bool inclusive, const T* inputs, const T* outputs, const T* grad_outputs,
                        T* grad_inputs);

}  // namespace quicksurf
