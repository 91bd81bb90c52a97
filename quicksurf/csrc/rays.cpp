#define QS_ISA portable
#include "rays.h"

#include <algorithm>
#include <atomic>

#include "march.h"
#include "ray_tasks.h"

namespace quicksurf {

using portable::March;

bool traverse_count(const Grids& grids, const RayBatch& rays, float step_size, float cone_angle, int64_t* counts) {
    std::atomic<bool> bounded{true};
    for_rays(rays.n, [&](size_t r) {
        March march(grids, rays, r, step_size, cone_angle);
        float start, end;
        for (counts[r] = 0; march.next(start, end);) ++counts[r];
        if (!march.bounded()) bounded = false;
    });
    return bounded;
}

bool traverse_fill(const Grids& grids, const RayBatch& rays, float step_size, float cone_angle, const int64_t* offsets,
                   float* t_starts, float* t_ends, int64_t* ray_indices) {
    std::atomic<bool> agrees{true};
    for_rays(rays.n, [&](size_t r) {
        March march(grids, rays, r, step_size, cone_angle);
        int64_t i = offsets[r];
        while (i < offsets[r + 1] && march.next(t_starts[i], t_ends[i])) ray_indices[i++] = static_cast<int64_t>(r);
        float start, end;
        if (i < offsets[r + 1] || march.next(start, end)) agrees = false;
    });
    return agrees;
}

template <class T>
void weights_forward(size_t n_rays, const int64_t* offsets, const T* alphas, T* weights, T* transmittance) {
    for_rays(n_rays, [&](size_t r) {
        T through = 1;
        for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
            transmittance[i] = through;
            weights[i] = alphas[i] * through;
            through *= 1 - alphas[i];
        }
    });
}

template <class T>
void weights_backward(size_t n_rays, const int64_t* offsets, const T* alphas, const T* transmittance, const T* grad_weights,
                      const T* grad_transmittance, T* grad_alphas) {
    for_rays(n_rays, [&](size_t r) {
        T behind = 0;  // R_{i+1}
        for (int64_t i = offsets[r + 1]; i-- > offsets[r];) {
            grad_alphas[i] = transmittance[i] * (grad_weights[i] - behind);
            behind = grad_weights[i] * alphas[i] + (1 - alphas[i]) * behind;
            if (grad_transmittance) behind += grad_transmittance[i];
        }
    });
}

template <class T>
void accumulate_forward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims, T* out) {
    for_rays(n_rays, [&](size_t r) {
        std::fill(out + r * n_dims, out + (r + 1) * n_dims, T(0));
        for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i)
            for (size_t d = 0; d < n_dims; ++d) out[r * n_dims + d] += weights[i] * (values ? values[i * n_dims + d] : T(1));
    });
}

template <class T>
void accumulate_backward(size_t n_rays, const int64_t* offsets, const T* weights, const T* values, size_t n_dims,
                         const T* grad_out, T* grad_weights, T* grad_values) {
    for_rays(n_rays, [&](size_t r) {
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

#define QS_INSTANTIATE(T)                                                                                       \
    template void weights_forward<T>(size_t, const int64_t*, const T*, T*, T*);                                 \
    template void weights_backward<T>(size_t, const int64_t*, const T*, const T*, const T*, const T*, T*);      \
    template void accumulate_forward<T>(size_t, const int64_t*, const T*, const T*, size_t, T*);                \
    template void accumulate_backward<T>(size_t, const int64_t*, const T*, const T*, size_t, const T*, T*, T*);
QS_INSTANTIATE(float)
QS_INSTANTIATE(double)
#undef QS_INSTANTIATE

}  // namespace quicksurf
