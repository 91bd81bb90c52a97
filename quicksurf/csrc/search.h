// Surface search and sampling: march, evaluate, bracket, refine and lay samples, in one loop that leaves a ray at its
// crossing.
//
// SEARCH_LANES rays are under way at a time on every thread. Each turn evaluates one point of each in one pass of the
// fused network; a lane whose ray is finished takes the next ray that no thread has taken. A ray's result does not
// depend on its neighbours, so the bits do not depend on the number of threads.
//
//   march    the middles of the occupied steps, until the logit is above `level`: a region that stays below is
//            semi-transparent, and a search that ended there would hide what lies behind. After a logit l <= 0, steps
//            nearer than |l| / max_slope are passed over (IDR's sphere tracing)
//   bracket  where the logit last rose above 0, between the middles of two steps; if a gap lies between them (an empty
//            cell, or the ray enters the box inside), the surface is the later step's start
//   refine   n_secant evaluations of regula falsi with the Illinois rule: a bracket is never lost, and an end that
//            stays twice running has its logit halved, so that it moves too
//   sample   the march goes on to the end of the interval, then the occupied stretches it met are sampled (interval.h)
//
// The number of a ray's samples is known only then: they go to slots of fixed size and are packed at the end.
#pragma once

#include <atomic>
#include <stdexcept>

#include "interval.h"
#include "kernels.h"
#include "march.h"
#include "network.h"

namespace quicksurf {
namespace QS_ISA {

// Two tiles of points a turn: between 64 and 256 no difference was measured.
constexpr int SEARCH_LANES = 128;

// One ray under way.
struct SearchLane {
    size_t ray = 0;
    March march;
    Stretches stretches;
    float start = 0, end = 0;           // the step being evaluated
    float last_mid = 0, last_logit = 0;
    bool joined = false;                // no gap since last_mid, where l <= 0
    bool inside = false;                // no gap since `entry`, where the logit rose above 0
    float entry = 0, entry_start = 0, entry_logit = 0;  // middle and start of that step
    int secants_left = -1;              // -1: marching
    float low = 0, high = 0, logit_low = 0, logit_high = 0;
    float slope = 1;                    // of the logit along the ray, over the bracket; 1 without a bracket
    int side = 0;                       // which end moved last: +1 the inside one
    bool done = false;

    float false_position() const {
        const float fraction = -logit_low / std::max(logit_high - logit_low, 1e-12f);
        return low + std::min(std::max(fraction, 0.0f), 1.0f) * (high - low);
    }
    float t() const { return secants_left < 0 ? 0.5f * (start + end) : false_position(); }

    void narrow(float t, float logit) {
        const bool inside = logit > 0;
        if (inside) {
            high = t;
            logit_high = logit;
            if (side > 0) logit_low *= 0.5f;
        } else {
            low = t;
            logit_low = logit;
            if (side < 0) logit_high *= 0.5f;
        }
        side = inside ? 1 : -1;
    }
};

class SearchTask {
   public:
    SearchTask(const FusedNetwork<float>& network, const NetworkSpec& spec, const SurfaceSearch& search,
               const SampleSlots& slots, std::atomic<size_t>& next_ray)
        : network_(network),
          search_(search),
          slots_(slots),
          next_ray_(next_ray),
          block_(spec, SEARCH_LANES / TILE),
          scratch_(spec),
          lanes_(SEARCH_LANES) {}

    int64_t run() {
        int64_t n_evaluations = 0;
        int n_lanes = 0;
        while (n_lanes < SEARCH_LANES && refill(lanes_[n_lanes])) ++n_lanes;
        while (n_lanes > 0) {
            n_evaluations += n_lanes;
            evaluate(n_lanes);
            for (int i = 0; i < n_lanes; ++i) lanes_[i].done = advance(lanes_[i], depth_[i], logit_[i]);
            for (int i = 0; i < n_lanes;)
                if (!lanes_[i].done || refill(lanes_[i]))
                    ++i;
                else
                    std::swap(lanes_[i], lanes_[--n_lanes]);
        }
        return n_evaluations;
    }

   private:
    // Gives the lane the next ray that has an occupied step; rays without one are misses without samples. False at the
    // end.
    bool refill(SearchLane& lane) {
        for (size_t ray; (ray = next_ray_++) < search_.rays.n;) {
            lane.ray = ray;
            lane.joined = lane.inside = false;
            lane.secants_left = -1;
            lane.side = 0;
            lane.slope = 1;
            lane.stretches.clear();
            lane.march = March(search_.grids, search_.rays, ray, search_.step_size);
            if (step(lane)) return true;
            finish(lane, false, 0, 0);
        }
        return false;
    }

    // Logits at the lanes' points; the rest of the last tile evaluates the origin.
    void evaluate(int n_lanes) {
        const int n_tiles = (n_lanes + TILE - 1) / TILE;
        for (int i = 0; i < n_tiles * TILE; ++i) place(i, i < n_lanes);
        network_.encode(block_, n_tiles);
        for (int t = 0; t < n_tiles; ++t) {
            const float* output = network_.network_forward(block_.encoded(t), scratch_, 1);
            for (int i = 0; i < TILE; ++i) logit_[t * TILE + i] -= search_.scale * output[i];
        }
    }

    // Writes the lane's point into its tile, and l(x) without the network's part.
    void place(int lane, bool active) {
        float* input = block_.input(lane / TILE) + lane % TILE;
        const size_t ray = lanes_[lane].ray;
        const float t = depth_[lane] = active ? lanes_[lane].t() : 0;
        float square = 0;
        for (int d = 0; d < 3; ++d) {
            const float x = active ? search_.rays.origins[3 * ray + d] + t * search_.rays.directions[3 * ray + d] : 0;
            input[d * TILE] = x;
            input[(d + 3) * TILE] = 0.5f * x + 0.5f;
            square += x * x;
        }
        logit_[lane] = search_.radius - std::sqrt(square);
    }

    // Takes the next occupied step.
    static bool step(SearchLane& lane) {
        if (!lane.march.next(lane.start, lane.end)) {
            if (!lane.march.bounded())
                throw std::invalid_argument(
                    "a ray takes more than a million steps, or so long a way that steps vanish in rounding: choose a "
                    "larger step_size");
            return false;
        }
        const bool touches = lane.stretches.add(lane.start, lane.end);
        lane.joined &= touches;
        lane.inside &= touches;
        return true;
    }

    // Takes the logit at t into account; true if that finished the ray.
    bool advance(SearchLane& lane, float t, float logit) {
        if (lane.secants_left >= 0) {
            lane.narrow(t, logit);
            return --lane.secants_left == 0 && hit(lane, lane.false_position());
        }
        if (!(logit > 0)) {
            lane.last_mid = t;
            lane.last_logit = logit;
            lane.joined = true;
            lane.inside = false;
        } else if (!lane.inside) {
            lane.entry = t;
            lane.entry_start = lane.start;
            lane.entry_logit = logit;
            lane.inside = true;
        }
        if (logit > search_.interval.level) return enter(lane);
        const float clear = t - logit / search_.max_slope;
        while (step(lane))
            if (!(lane.t() < clear)) return false;  // also after a logit that is no number
        finish(lane, false, 0, 0);
        return true;
    }

    // Begins to refine where the lane came inside; true if nothing is to be refined.
    bool enter(SearchLane& lane) {
        if (!lane.joined) return hit(lane, lane.entry_start);
        lane.low = lane.last_mid;
        lane.logit_low = lane.last_logit;
        lane.high = lane.entry;
        lane.logit_high = lane.entry_logit;
        lane.slope = (lane.entry_logit - lane.last_logit) / (lane.entry - lane.last_mid);
        lane.secants_left = search_.n_secant;
        return false;
    }

    bool hit(SearchLane& lane, float t) {
        const float half_width = interval_half_width(search_.interval, lane.slope);
        while (lane.end < t + half_width && step(lane)) continue;
        finish(lane, true, t, half_width);
        return true;
    }

    void finish(const SearchLane& lane, bool hit, float t, float half_width) {
        const size_t r = lane.ray, slot = r * search_.interval.n_samples();
        slots_.hits[r] = hit;
        slots_.t_surface[r] = t;
        slots_.counts[r] = place_samples(lane.stretches, search_.interval, hit, t, half_width, lane.slope,
                                         search_.jitter + slot, slots_.t + slot, slots_.deltas + slot);
    }

    const FusedNetwork<float>& network_;
    const SurfaceSearch& search_;
    const SampleSlots& slots_;
    std::atomic<size_t>& next_ray_;
    typename FusedNetwork<float>::Block block_;
    typename FusedNetwork<float>::TileScratch scratch_;
    std::vector<SearchLane> lanes_;
    float depth_[SEARCH_LANES], logit_[SEARCH_LANES];
};

inline int64_t sample_surface(const NetworkSpec& spec, const float* params, int n_active_levels,
                              const SurfaceSearch& search, const SampleSlots& slots) {
    const FusedNetwork<float> network(spec, params, n_active_levels);
    std::atomic<size_t> next_ray{0};
    std::atomic<int64_t> n_evaluations{0};
    const size_t n_tasks = std::min<size_t>(num_threads(), (search.rays.n + TILE - 1) / TILE);
    parallel_for(n_tasks, [&](size_t) { n_evaluations += SearchTask(network, spec, search, slots, next_ray).run(); });
    return n_evaluations;
}

}  // namespace QS_ISA
}  // namespace quicksurf
