// Operations on packed rays: ray r owns samples [offsets[r], offsets[r + 1]).
//
// Everything here runs over rays in parallel; a ray is a short sequential scan. Row-major.
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

// out[r][d] = sum_i w_i v_i[d]; values may be null (ones, n_dims = 1).
template <class T>
void accumulate_forward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                        T* out);
// grad_w_i = <grad_out[r], v_i>; grad_v_i = w_i grad_out[r] (not written when null).
template <class T>
void accumulate_backward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                         const T* grad_out, T* grad_weights, T* grad_values);

}  // namespace quicksurf
