#define QS_ISA portable
#include "rays.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "march.h"
#include "thread_pool.h"

namespace quicksurf {

using portable::March;
using portable::Span;

namespace {

constexpr size_t RAYS_PER_TASK = 256;

template <class Fn>
void for_rays(size_t n_rays, Fn&& fn) {
    parallel_for((n_rays + RAYS_PER_TASK - 1) / RAYS_PER_TASK, [&](size_t task) {
        const size_t end = std::min(n_rays, (task + 1) * RAYS_PER_TASK);
        for (size_t r = task * RAYS_PER_TASK; r < end; ++r) fn(r);
    });
}

// The stretches of one ray within [low, high]: walk them, measure them, find a quantile.
struct Stretches {
    const float *starts, *ends;
    int64_t n;
    float low, high;

    Span part(int64_t i) const { return {std::max(starts[i], low), std::min(ends[i], high)}; }
    float measure() const {
        float sum = 0;
        for (int64_t i = 0; i < n; ++i) sum += std::max(0.0f, part(i).end - part(i).begin);
        return sum;
    }
    // Calls fn(k, t) for the sorted quantiles q_k of the measure.
    template <class Quantile, class Fn>
    void place(int count, Quantile&& quantile, Fn&& fn) const {
        float before = 0;
        int64_t i = 0;
        for (int k = 0; k < count; ++k) {
            const float q = quantile(k);
            float length = std::max(0.0f, part(i).end - part(i).begin);
            while (i + 1 < n && (before + length < q || length == 0)) {
                before += length;
                ++i;
                length = std::max(0.0f, part(i).end - part(i).begin);
            }
            const Span s = part(i);
            fn(k, std::clamp(s.begin + (q - before), std::min(s.begin, s.end), std::max(s.begin, s.end)));
        }
    }
};

struct RayParts {
    Stretches front, interval;
    int n_front, n_interval;
    float front_measure, interval_measure;

    RayParts(const IntervalSpec& spec, int64_t begin, int64_t end, const float* starts, const float* ends, bool hit,
             float t_surface) {
        constexpr float infinity = std::numeric_limits<float>::infinity();
        const float low = hit ? t_surface - spec.half_width : -infinity;
        const float high = hit ? t_surface + spec.half_width : infinity;
        front = {starts + begin, ends + begin, end - begin, -infinity, low};
        interval = {starts + begin, ends + begin, end - begin, low, high};
        front_measure = hit ? front.measure() : 0;
        interval_measure = interval.measure();
        n_front = front_measure > 0 ? spec.n_front : 0;
        n_interval = interval_measure > 0 ? spec.n_interval + (hit ? 0 : spec.n_front) : 0;
    }
};

}  // namespace

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

void interval_count(const IntervalSpec& spec, size_t n_rays, const int64_t* offsets, const float* t_starts, const float* t_ends,
                    const uint8_t* hits, const float* t_surface, int64_t* counts) {
    for_rays(n_rays, [&](size_t r) {
        const RayParts parts(spec, offsets[r], offsets[r + 1], t_starts, t_ends, hits[r], t_surface[r]);
        counts[r] = parts.n_front + parts.n_interval;
    });
}

void interval_fill(const IntervalSpec& spec, size_t n_rays, const int64_t* offsets, const float* t_starts, const float* t_ends,
                   const uint8_t* hits, const float* t_surface, const float* jitter, const int64_t* sample_offsets, float* t,
                   float* lengths, int64_t* ray_indices) {
    for_rays(n_rays, [&](size_t r) {
        const RayParts parts(spec, offsets[r], offsets[r + 1], t_starts, t_ends, hits[r], t_surface[r]);
        const float* u = jitter + r * (spec.n_front + spec.n_interval);
        int64_t at = sample_offsets[r];
        const auto place = [&](const Stretches& stretches, int count, float measure) {
            const float stratum = measure / std::max(count, 1);
            stretches.place(count, [&](int k) { return (k + u[k]) * stratum; }, [&](int, float sample) {
                t[at] = sample;
                lengths[at] = stratum;
                ray_indices[at++] = static_cast<int64_t>(r);
            });
            u += count;
        };
        if (parts.n_front) place(parts.front, parts.n_front, parts.front_measure);
        if (parts.n_interval) place(parts.interval, parts.n_interval, parts.interval_measure);
    });
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
