// Surface search and sampling: march, evaluate, bracket, refine and lay samples, in one loop that leaves a ray at its crossing.
//
// TILE rays are under way at a time, one a lane. Each turn evaluates one point of every lane in one pass of the fused
// network; a lane whose ray is finished takes the next ray of its task. A ray's result does not depend on its
// neighbours in the tile, so the bits do not depend on the number of threads.
//
//   march    the middles of the occupied steps, until the logit is above 0
//   bracket  between that step's middle and the one before; if the step before is not adjacent (its cell is empty, or
//            the ray enters the box in matter), the surface is the step's start
//   refine   n_secant evaluations of regula falsi with the Illinois rule: a bracket is never lost, and an end that
//            stays twice running has its logit halved, so that it moves too
//   sample   the march goes on to the end of the interval, then the occupied stretches it met are sampled (interval.h)
//
// The number of a ray's samples is known only then: they go to slots of fixed size and are packed at the end.
#pragma once

#include "interval.h"
#include "kernels.h"
#include "march.h"
#include "network.h"

namespace quicksurf {
namespace QS_ISA {

constexpr size_t SEARCH_RAYS_PER_TASK = 512;

// One ray under way.
struct SearchLane {
    bool active = false;
    size_t ray = 0;
    March march;
    Stretches stretches;
    float start = 0, end = 0;           // the step being evaluated
    float last_mid = 0, last_end = 0, last_logit = 0;
    bool has_last = false;
    int secants_left = -1;              // -1: marching
    float low = 0, high = 0, logit_low = 0, logit_high = 0;
    int side = 0;                       // which end moved last: +1 the inside one

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
               const SampleSlots& slots)
        : network_(network), search_(search), slots_(slots), tile_(spec, 1), scratch_(spec), lanes_(TILE) {}

    int64_t run(size_t first, size_t end) {
        next_ray_ = first;
        end_ray_ = end;
        int64_t n_evaluations = 0;
        for (SearchLane& lane : lanes_) refill(lane);
        for (;;) {
            int n_active = 0;
            for (int i = 0; i < TILE; ++i) n_active += place(lanes_[i], i);
            if (n_active == 0) return n_evaluations;
            n_evaluations += n_active;
            network_.encode(tile_, 1);
            const float* output = network_.network_forward(tile_.encoded(0), scratch_, 1);
            for (int i = 0; i < TILE; ++i)
                if (lanes_[i].active) advance(lanes_[i], depth_[i], radial_[i] - search_.scale * output[i]);
        }
    }

   private:
    // The lane's next ray that has an occupied step; rays without one are misses without samples.
    void refill(SearchLane& lane) {
        lane.active = lane.has_last = false;
        lane.secants_left = -1;
        lane.side = 0;
        lane.stretches.clear();
        for (; next_ray_ < end_ray_; ++next_ray_) {
            lane.ray = next_ray_;
            lane.march = March(search_.grids, search_.rays, lane.ray, search_.step_size, 0);
            if (step(lane)) {
                lane.active = true;
                ++next_ray_;
                return;
            }
            finish(lane, false, 0);
        }
    }

    // Takes the next occupied step.
    static bool step(SearchLane& lane) {
        if (!lane.march.next(lane.start, lane.end)) return false;
        lane.stretches.add(lane.start, lane.end);
        return true;
    }

    // Writes the lane's point into the tile; idle lanes evaluate the origin.
    int place(const SearchLane& lane, int i) {
        const float t = depth_[i] = lane.active ? lane.t() : 0;
        float square = 0;
        for (int d = 0; d < 3; ++d) {
            const float x = lane.active ? search_.rays.origins[3 * lane.ray + d] + t * search_.rays.directions[3 * lane.ray + d] : 0;
            tile_.input(0)[d * TILE + i] = x;
            tile_.input(0)[(d + 3) * TILE + i] = 0.5f * x + 0.5f;
            square += x * x;
        }
        radial_[i] = search_.radius - std::sqrt(square);
        return lane.active;
    }

    void advance(SearchLane& lane, float t, float logit) {
        if (lane.secants_left >= 0) {
            lane.narrow(t, logit);
            if (--lane.secants_left == 0) hit(lane, lane.false_position());
        } else if (!(logit > 0)) {
            lane.last_mid = t;
            lane.last_end = lane.end;
            lane.last_logit = logit;
            lane.has_last = true;
            if (!step(lane)) {
                finish(lane, false, 0);
                refill(lane);
            }
        } else if (!lane.has_last || lane.start - lane.last_end >= 0.5f * (lane.end - lane.start)) {
            hit(lane, lane.start);
        } else {
            lane.low = lane.last_mid;
            lane.logit_low = lane.last_logit;
            lane.high = t;
            lane.logit_high = logit;
            lane.secants_left = search_.n_secant;
        }
    }

    void hit(SearchLane& lane, float t) {
        while (lane.end < t + search_.interval.half_width && step(lane)) continue;
        finish(lane, true, t);
        refill(lane);
    }

    void finish(const SearchLane& lane, bool hit, float t) {
        const size_t r = lane.ray, slot = r * search_.interval.n_samples();
        slots_.hits[r] = hit;
        slots_.t_surface[r] = t;
        slots_.counts[r] = place_samples(lane.stretches, search_.interval, hit, t, search_.jitter + slot, slots_.t + slot,
                                         slots_.lengths + slot);
    }

    const FusedNetwork<float>& network_;
    const SurfaceSearch& search_;
    const SampleSlots& slots_;
    typename FusedNetwork<float>::Block tile_;
    typename FusedNetwork<float>::TileScratch scratch_;
    std::vector<SearchLane> lanes_;
    float depth_[TILE], radial_[TILE];
    size_t next_ray_ = 0, end_ray_ = 0;
};

inline int64_t sample_surface(const NetworkSpec& spec, const float* params, int n_active_levels,
                              const SurfaceSearch& search, const SampleSlots& slots) {
    const FusedNetwork<float> network(spec, params, n_active_levels);
    const size_t n = search.rays.n, n_tasks = (n + SEARCH_RAYS_PER_TASK - 1) / SEARCH_RAYS_PER_TASK;
    std::vector<int64_t> evaluations(n_tasks);
    parallel_for(n_tasks, [&](size_t task) {
        const size_t first = task * SEARCH_RAYS_PER_TASK;
        evaluations[task] =
            SearchTask(network, spec, search, slots).run(first, std::min(n, first + SEARCH_RAYS_PER_TASK));
    });
    int64_t sum = 0;
    for (const int64_t count : evaluations) sum += count;
    return sum;
}

}  // namespace QS_ISA
}  // namespace quicksurf
