// Operations on packed rays: ray r owns samples [offsets[r], offsets[r + 1]).
//
// Everything here runs over rays in parallel; a ray is a short sequential scan. float32, row-major.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace quicksurf {

// Occupancy grids of growing size around one centre, all of one resolution (nerfacc's layout).
struct Grids {
    static constexpr int BLOCK_SHIFT = 3;  // a block has 8 cells along an axis

    const uint8_t* binaries;  // [n_levels][rx][ry][rz], non-zero: occupied
    const float* aabbs;       // [n_levels][6]: min xyz, max xyz; level 0 is the smallest
    int n_levels, resolution[3];
    // What follows from them: empty blocks are crossed in one jump.
    std::vector<float> cell_sizes, inverse_cell_sizes;  // [n_levels][3]
    int n_blocks[3];
    std::vector<uint8_t> blocks;  // [n_levels][bx][by][bz], non-zero: a cell is occupied

    Grids(const uint8_t* binaries, const float* aabbs, int n_levels, const int resolution[3]);
};

struct RayBatch {
    size_t n;
    const float *origins, *directions;  // [n][3]
    const float *near, *far;            // [n]
};

// March with step = max(step_size, t * cone_angle) from `near`; keep the steps whose midpoint lies in an occupied cell of
// the smallest grid that holds it; empty cells are crossed in one jump that stays on the steps' lattice.
// First pass: counts[r]. Returns false if a ray would take more than 2^20 steps.
bool traverse_count(const Grids&, const RayBatch&, float step_size, float cone_angle, int64_t* counts);
// Second pass: t_starts, t_ends, ray_indices [offsets[n]]. Returns false if the offsets are not those of the first pass.
bool traverse_fill(const Grids&, const RayBatch&, float step_size, float cone_angle, const int64_t* offsets,
                   float* t_starts, float* t_ends, int64_t* ray_indices);

// w_i = a_i T_i, T_i = prod_{j<i} (1 - a_j) (Mildenhall et al. 2020, eq. 3).
template <class T>
void weights_forward(size_t n_rays, const int64_t* offsets, const T* alphas, T* weights, T* transmittance);
// grad_a_i = T_i (g_i - R_{i+1}), R_i = g_i a_i + (1 - a_i) R_{i+1}: no division, so it is right at a = 1. With h the
// gradient by T:  R_i = g_i a_i + h_i + (1 - a_i) R_{i+1}. grad_transmittance may be null.
template <class T>
void weights_backward(size_t n_rays, const int64_t* offsets, const T* alphas, const T* transmittance, const T* grad_weights,
                      const T* grad_transmittance, T* grad_alphas);

// out[r][d] = sum_i w_i v_i[d]; values may be null (ones, n_dims = 1).
template <class T>
void accumulate_forward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims, T* out);
// grad_w_i = <grad_out[r], v_i>; grad_v_i = w_i grad_out[r] (not written when null).
template <class T>
void accumulate_backward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                         const T* grad_out, T* grad_weights, T* grad_values);

}  // namespace quicksurf
