#include "rays.h"

#include <algorithm>
#include <type_traits>

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

namespace {

// fn(std::integral_constant<int, D>) with D = n_dims where it is the 1 or 3 of depths and colours, so that sums stay in
// registers; D = 0 otherwise.
template <class Fn>
void with_dims(size_t n_dims, Fn&& fn) {
    if (n_dims == 1) return fn(std::integral_constant<int, 1>());
    if (n_dims == 3) return fn(std::integral_constant<int, 3>());
    fn(std::integral_constant<int, 0>());
}

}  // namespace

template <class T>
void accumulate_forward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                        T* out) {
    with_dims(n_dims, [&](auto dims) {
        constexpr size_t D = decltype(dims)::value;
        for_rays(n_rays, SCANNED_RAYS_PER_TASK, [&](size_t r) {
            const size_t n = D ? D : n_dims;
            T own[D ? D : 1] = {}, *sum = D ? own : out + r * n_dims;
            if (!D) std::fill(sum, sum + n, T(0));
            for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
                for (size_t d = 0; d < n; ++d) sum[d] += values ? weights[i] * values[i * n + d] : weights[i];
            if (D) std::copy(sum, sum + n, out + r * n);
        });
    });
}

template <class T>
void accumulate_backward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                         const T* grad_out, T* grad_weights, T* grad_values) {
    with_dims(n_dims, [&](auto dims) {
        constexpr size_t D = decltype(dims)::value;
        for_rays(n_rays, SCANNED_RAYS_PER_TASK, [&](size_t r) {
            const size_t n = D ? D : n_dims;
            const T* g = grad_out + r * n;
            for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
                T sum = 0;
                for (size_t d = 0; d < n; ++d) {
                    sum += values ? g[d] * values[i * n + d] : g[d];
                    if (grad_values) grad_values[i * n + d] = weights[i] * g[d];
                }
                grad_weights[i] = sum;
            }
        });
    });
}

#define QS_INSTANTIATE(T)                                                                        \
    template void accumulate_forward<T>(size_t, const int64_t*, const T*, const T*, size_t, T*); \
    template void accumulate_backward<T>(size_t, const int64_t*, const T*, const T*, size_t, const T*, T*, T*);
QS_INSTANTIATE(float)
QS_INSTANTIATE(double)
#undef QS_INSTANTIATE

}  // namespace quicksurf
