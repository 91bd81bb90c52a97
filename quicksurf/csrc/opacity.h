// Weights of samples from logits: UNISURF's opacity and its compositing in one scan (methods/unisurf.py says why).
//
//     s_i = softplus(k l_i - shift)           = -log(1 - o_i), the optical depth of occupancy o_i
//     g_i = max(0, s_i - p_i) + c d_i s_i     p_i = s_{i-1} (0 at a ray's first sample) reads 1 - o as transmittance;
//                                             p_i = 0 is the paper's; c is spec.absorption, d_i the sample's delta
//     a_i = min(1 - e^(-g_i), MAX_ALPHA),    w_i = a_i prod_{j<i} (1 - a_j),    O_r = sum w_i
//
// Shapes: logits, deltas, depths, alphas, weights [m]; opacities [n_rays]; ray r owns samples offsets[r] .. offsets[r +
// 1]. Outputs are overwritten. Rays run in parallel; included inside one namespace per instruction set (see simd.h).
#pragma once

#include <algorithm>
#include <cstring>

#include "kernels.h"
#include "simd.h"
#include "thread_pool.h"

namespace quicksurf {
namespace QS_ISA {

constexpr double MAX_ALPHA = 1 - 1e-6;  // a product through an exact zero has no gradient for what lies behind
constexpr size_t OPACITY_RAYS_PER_TASK = 256;

// out[i] = fn(in[i]) for n values, a vector at a time; in and out may be the same.
template <class T, class Fn>
void map(const T* in, T* out, size_t n, Fn&& fn) {
    constexpr size_t L = LANES<T>;
    size_t i = 0;
    for (; i + L <= n; i += L) store(out + i, fn(load(in + i)));
    if (i == n) return;
    T tail[L] = {};
    std::memcpy(tail, in + i, (n - i) * sizeof(T));
    store(tail, fn(load(tail)));
    std::memcpy(out + i, tail, (n - i) * sizeof(T));
}

// Calls fn(first ray, end ray, first sample, number of samples) for blocks of rays, in parallel.
template <class Fn>
void for_ray_blocks(size_t n_rays, const int64_t* offsets, Fn&& fn) {
    parallel_for((n_rays + OPACITY_RAYS_PER_TASK - 1) / OPACITY_RAYS_PER_TASK, [&](size_t task) {
        const size_t first = task * OPACITY_RAYS_PER_TASK, end = std::min(n_rays, first + OPACITY_RAYS_PER_TASK);
        fn(first, end, offsets[first], size_t(offsets[end] - offsets[first]));
    });
}

template <class T>
void logit_weights_forward(const OpacitySpec& spec, size_t n_rays, const int64_t* offsets, const T* logits,
                           const T* deltas, T* depths, T* alphas, T* weights, T* opacities) {
    const T k = T(spec.sharpness), shift = T(spec.shift), absorption = T(spec.absorption);
    for_ray_blocks(n_rays, offsets, [&](size_t first, size_t end, int64_t begin, size_t n) {
        map(logits + begin, depths + begin, n, [k, shift](Vec<T> l) {
            const Vec<T> z = k * l - shift;
            return z == z ? vmax<T>(z, Vec<T>{}) + vlog1p(vexp(-vmax<T>(z, -z)))
                          : z;  // NaN stays, so that a loss shows it
        });
        for (size_t r = first; r < end; ++r) {
            T before = 0;
            for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
                const T gained = depths[i] - before;
                alphas[i] = (gained < 0 ? T(0) : gained) + absorption * deltas[i] * depths[i];
                if (spec.transmittance) before = depths[i];
            }
        }
        map(alphas + begin, alphas + begin, n,
            [](Vec<T> g) { return g == g ? vmin<T>(1 - vexp(-g), splat(T(MAX_ALPHA))) : g; });
        for (size_t r = first; r < end; ++r) {
            T through = 1, sum = 0;
            for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
                sum += weights[i] = alphas[i] * through;
                through *= 1 - alphas[i];
            }
            opacities[r] = sum;
        }
    });
}

// With g_i the gradient by w_i plus that by O_r, and R_i = g_i a_i + (1 - a_i) R_{i+1} from the last sample on:
//     grad_a_i = T_i (g_i - R_{i+1}),  grad_g_i = (1 - a_i) grad_a_i below the cap,  grad_l_i = k (1 - e^(-s_i))
//     grad_s_i.
// The deltas are given, not learned: they get no gradient.
template <class T>
void logit_weights_backward(const OpacitySpec& spec, size_t n_rays, const int64_t* offsets, const T* deltas,
                            const T* depths, const T* alphas, const T* grad_weights, const T* grad_opacities,
                            T* grad_logits) {
    const T k = T(spec.sharpness), absorption = T(spec.absorption);
    for_ray_blocks(n_rays, offsets, [&](size_t first, size_t end, int64_t begin, size_t n) {
        for (size_t r = first; r < end; ++r) {
            T through = 1;
            for (int64_t i = offsets[r]; i < offsets[r + 1]; ++i) {
                grad_logits[i] = through;
                through *= 1 - alphas[i];
            }
            T behind = 0, grad_before = 0;  // what the next sample asks of this depth
            for (int64_t i = offsets[r + 1]; i-- > offsets[r];) {
                const T a = alphas[i], g = grad_weights[i] + grad_opacities[r];
                const T before = spec.transmittance && i > offsets[r] ? depths[i - 1] : T(0);
                const T grad_depth = a < T(MAX_ALPHA) ? grad_logits[i] * (g - behind) * (1 - a) : T(0);
                const T grad_gained = depths[i] > before ? grad_depth : T(0);
                behind = g * a + (1 - a) * behind;
                grad_logits[i] = grad_gained + absorption * deltas[i] * grad_depth - grad_before;
                grad_before = spec.transmittance ? grad_gained : T(0);
            }
        }
        for (size_t at = 0; at < n; at += LANES<T>) {
            const size_t count = std::min<size_t>(LANES<T>, n - at);
            T slope[LANES<T>];
            map(depths + begin + at, slope, count, [k](Vec<T> s) { return k * (1 - vexp(-s)); });
            for (size_t i = 0; i < count; ++i) grad_logits[begin + at + i] *= slope[i];
        }
    });
}

}  // namespace QS_ISA
}  // namespace quicksurf
