// UNISURF's samples on the occupied stretches S of a ray (Oechsle et al. 2021, section 3.3).
//
//   with a surface at t_s: n_front stratified over S before t_s - D, n_interval over S within t_s -+ D, where
//       D = max(half_width, reach / max(dl/dt, MIN_SLOPE)),    dl/dt the logit's slope along the ray where it crosses:
//       the logit reaches -+ `reach` at the ends, on rays that graze the surface, too;
//   without: n_front + n_interval over S. A part of measure zero gives no samples.
//
// Included inside one namespace per instruction set (see simd.h).
#pragma once

#include <algorithm>
#include <limits>
#include <vector>

#include "kernels.h"
#include "march.h"

namespace quicksurf {
namespace QS_ISA {

constexpr float MIN_SLOPE = 0.2f;

inline float interval_half_width(const IntervalSpec& spec, float slope) {
    return std::max(spec.half_width, spec.reach / std::max(slope, MIN_SLOPE));
}

// The stretches of a ray in order; steps that touch are one stretch.
class Stretches {
   public:
    void clear() { spans_.clear(); }
    // Returns whether the step touches the one before.
    bool add(float start, float end) {
        const bool touches = !spans_.empty() && start <= spans_.back().end;
        if (touches)
            spans_.back().end = end;
        else
            spans_.push_back({start, end});
        return touches;
    }

    // Length of what lies within [low, high].
    float measure(float low, float high) const {
        float sum = 0;
        for (const Span& s : spans_) sum += length(s, low, high);
        return sum;
    }

    // Calls fn(t) for quantile (k + u[k]) / count of the measure, u[k] in [0, 1): one sample in each of `count` strata.
    template <class Fn>
    void place(float low, float high, int count, float measure, const float* u, Fn&& fn) const {
        float before = 0;
        size_t i = 0;
        for (int k = 0; k < count; ++k) {
            const float q = std::min((k + u[k]) * (measure / count), measure);
            float here = length(spans_[i], low, high);
            while (i + 1 < spans_.size() && (before + here < q || here == 0)) {
                before += here;
                here = length(spans_[++i], low, high);
            }
            const float begin = std::max(spans_[i].begin, low);
            fn(begin + std::clamp(q - before, 0.0f, here));
        }
    }

   private:
    static float length(const Span& s, float low, float high) {
        return std::max(0.0f, std::min(s.end, high) - std::max(s.begin, low));
    }

    std::vector<Span> spans_;
};

// Writes the ray's samples to t and, to deltas, their strata's lengths times the slope at the crossing, between
// MIN_SLOPE and 1 (1 without one). Returns their number.
inline int place_samples(const Stretches& stretches, const IntervalSpec& spec, bool hit, float t_surface,
                         float half_width, float slope, const float* jitter, float* t, float* deltas) {
    constexpr float infinity = std::numeric_limits<float>::infinity();
    int n = 0;
    const auto part = [&](float low, float high, int count) {
        const float measure = stretches.measure(low, high);
        if (!(measure > 0) || count == 0) return;
        const float delta = measure / count * (hit ? std::clamp(slope, MIN_SLOPE, 1.0f) : 1.0f);
        stretches.place(low, high, count, measure, jitter + n, [&](float sample) {
            t[n] = sample;
            deltas[n++] = delta;
        });
    };
    if (!hit) {
        part(-infinity, infinity, spec.n_samples());
        return n;
    }
    part(-infinity, t_surface - half_width, spec.n_front);
    part(t_surface - half_width, t_surface + half_width, spec.n_interval);
    return n;
}

}  // namespace QS_ISA
}  // namespace quicksurf
