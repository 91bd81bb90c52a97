#include "rays.h"

#include <algorithm>

#include "ray_tasks.h"

namespace quicksurf {

Grids::Grids(const uint8_t* binaries_, const float* aabbs_, int n_levels_, const int resolution_[3])
    : binaries(binaries_), aabbs(aabbs_), n_levels(n_levels_) {
    for (int d = 0; d < 3; ++d) {
        resolution[d] = resolution_[d];
        n_blocks[d] = ((resolution[d] - 1) >> BLOCK_SHIFT) + 1;
    }
    for (int i = 0; i < 3 * n_levels; ++i) {
        const float* box = aabbs + 6 * (i / 3) + i % 3;
        cell_sizes.push_back((box[3] - box[0]) / resolution[i % 3]);
        inverse_cell_sizes.push_back(1 / cell_sizes.back());
    }
    blocks.assign(size_t(n_levels) * n_blocks[0] * n_blocks[1] * n_blocks[2], 0);
    parallel_for(size_t(n_levels) * n_blocks[0], [&](size_t slab) {
        const size_t level = slab / n_blocks[0], first = slab % n_blocks[0] << BLOCK_SHIFT;
        const int end = std::min<int>(resolution[0], first + (1 << BLOCK_SHIFT));
        for (int x = first; x < end; ++x)
            for (int y = 0; y < resolution[1]; ++y) {
                const uint8_t* row = binaries + ((level * resolution[0] + x) * resolution[1] + y) * resolution[2];
                uint8_t* block = blocks.data() + (slab * n_blocks[1] + (y >> BLOCK_SHIFT)) * n_blocks[2];
                for (int z = 0; z < resolution[2]; ++z) block[z >> BLOCK_SHIFT] |= row[z];
            }
    });
}

template <class T>
void accumulate_forward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims, T* out) {
    for_rays(n_rays, SCANNED_RAYS_PER_TASK, [&](size_t r) {
        std::fill(out + r * n_dims, out + (r + 1) * n_dims, T(0));
        for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
            for (size_t d = 0; d < n_dims; ++d) out[r * n_dims + d] += weights[i] * (values ? values[i * n_dims + d] : T(1));
    });
}

template <class T>
void accumulate_backward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                         const T* grad_out, T* grad_weights, T* grad_values) {
    for_rays(n_rays, SCANNED_RAYS_PER_TASK, [&](size_t r) {
        const T* g = grad_out + r * n_dims;
        for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
            T sum = 0;
            for (size_t d = 0; d < n_dims; ++d) {
                sum += g[d] * (values ? values[i * n_dims + d] : T(1));
                if (grad_values) grad_values[i * n_dims + d] = weights[i] * g[d];
            }
            grad_weights[i] = sum;
        }
    });
}

#define QS_INSTANTIATE(T)                                                                       \
    template void accumulate_forward<T>(size_t, const int64_t*, const T*, const T*, size_t, T*); \
    template void accumulate_backward<T>(size_t, const int64_t*, const T*, const T*, size_t, const T*, T*, T*);
QS_INSTANTIATE(float)
QS_INSTANTIATE(double)
#undef QS_INSTANTIATE

}  // namespace quicksurf
