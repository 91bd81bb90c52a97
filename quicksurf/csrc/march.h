// Marching a ray through occupancy grids, one occupied step at a time.
//
// Included inside one namespace per instruction set (see simd.h): the surface search marches and evaluates in one loop.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>

#include "rays.h"

namespace quicksurf {
namespace QS_ISA {

constexpr int64_t MAX_STEPS = 1 << 20;

struct Span {
    float begin, end;
};

// The part of [near, far] inside a box (slab method); empty when begin >= end.
inline Span clip(const float* aabb, const float* origin, const float* inverse, float near, float far) {
    for (int d = 0; d < 3; ++d) {
        const float a = (aabb[d] - origin[d]) * inverse[d], b = (aabb[d + 3] - origin[d]) * inverse[d];
        if (std::isnan(a) || std::isnan(b)) continue;  // the ray lies in the slab's plane
        near = std::max(near, std::min(a, b));
        far = std::min(far, std::max(a, b));
    }
    return near < far ? Span{near, far} : Span{0, 0};
}

struct Cell {
    bool occupied;
    float exit;  // t at which the ray leaves the cell, or the block of empty cells around it
};

inline Cell cell_at(const Grids& grids, const float* o, const float* d, const float* inverse, float t) {
    const float p[3] = {o[0] + t * d[0], o[1] + t * d[1], o[2] + t * d[2]};
    int level = 0;
    const float* box = grids.aabbs;
    for (; level < grids.n_levels - 1; ++level, box += 6)
        if (p[0] > box[0] && p[0] < box[3] && p[1] > box[1] && p[1] < box[4] && p[2] > box[2] && p[2] < box[5]) break;
    const float *size = grids.cell_sizes.data() + 3 * level,
                *inverse_size = grids.inverse_cell_sizes.data() + 3 * level;
    int at[3], begin[3], end[3];
    size_t index = level, block = level;
    for (int k = 0; k < 3; ++k) {
        const int n = grids.resolution[k];
        // Bounded before the cast, which is undefined beyond int's range; a NaN becomes 0.
        at[k] = static_cast<int>(std::min(std::max(0.0f, (p[k] - box[k]) * inverse_size[k]), float(n - 1)));
        index = index * n + at[k];
        block = block * grids.n_blocks[k] + (at[k] >> Grids::BLOCK_SHIFT);
    }
    const bool empty_block = !grids.blocks[block];
    for (int k = 0; k < 3; ++k) {
        begin[k] = empty_block ? at[k] >> Grids::BLOCK_SHIFT << Grids::BLOCK_SHIFT : at[k];
        end[k] = empty_block ? std::min(begin[k] + (1 << Grids::BLOCK_SHIFT), grids.resolution[k]) : at[k] + 1;
    }
    float exit = std::numeric_limits<float>::infinity();
    for (int k = 0; k < 3; ++k) {
        const float face = (box[k] + (d[k] > 0 ? end[k] : begin[k]) * size[k] - o[k]) * inverse[k];
        if (face == face) exit = std::min(exit, face);
    }
    if (level > 0) {  // a coarser cell may reach into the finer box, where that one decides
        const Span finer = clip(box - 6, o, inverse, t, exit);
        if (finer.begin < finer.end) exit = std::min(exit, std::max(finer.begin, t));
    }
    return {!empty_block && grids.binaries[index] != 0, exit};
}

// The steps of one ray that lie in occupied cells: a lattice of steps from `near` on, of which those are kept whose
// middle lies in an occupied cell of the smallest grid that holds it. Empty cells are crossed in one jump that stays on
// the lattice.
class March {
   public:
    March() = default;
    March(const Grids& grids, const RayBatch& rays, size_t r, float step_size)
        : grids_(&grids), o_(rays.origins + 3 * r), d_(rays.directions + 3 * r), step_size_(step_size) {
        for (int k = 0; k < 3; ++k) inverse_[k] = 1 / d_[k];
        box_ = clip(grids.aabbs + 6 * (grids.n_levels - 1), o_, inverse_, rays.near[r], rays.far[r]);
        float sum = 0;
        for (int k = 0; k < 3; ++k) sum += std::fabs(o_[k]) + std::fabs(d_[k]);
        if (!std::isfinite(sum) || !(box_.begin < box_.end) || !std::isfinite(box_.begin) || !std::isfinite(box_.end))
            box_ = {0, 0};
        // The lattice starts at `near`, wherever the box begins.
        t_ = rays.near[r];
        if (!std::isfinite(t_)) t_ = box_.begin;
        t_ += std::max(0.0f, std::ceil((box_.begin - t_) / step_size - 0.5f)) * step_size;
        // Known beforehand: more steps than are allowed, or steps that rounding swallows.
        const bool possible = box_.end - std::max(t_, box_.begin) <= MAX_STEPS * step_size && t_ + step_size > t_ &&
                              box_.end + step_size > box_.end;
        if (t_ < box_.end && !possible) n_steps_ = MAX_STEPS;
    }

    // The next occupied step; false at the end of the ray, or after MAX_STEPS.
    bool next(float& start, float& end) {
        while (t_ < box_.end && ++n_steps_ <= MAX_STEPS) {
            const float mid = t_ + 0.5f * step_size_;
            if (mid >= box_.end) break;
            if (mid < box_.begin) {
                t_ += step_size_;
                continue;
            }
            if (mid >= cell_.exit) cell_ = cell_at(*grids_, o_, d_, inverse_, mid);  // several steps lie in one cell
            if (cell_.occupied) {
                start = t_;
                end = std::min(t_ + step_size_, box_.end);
                t_ += step_size_;
                return true;
            }
            t_ += std::max(1.0f, std::ceil((cell_.exit - mid) / step_size_)) * step_size_;
        }
        return false;
    }

    bool bounded() const { return n_steps_ <= MAX_STEPS; }

   private:
    const Grids* grids_ = nullptr;
    const float *o_ = nullptr, *d_ = nullptr;
    float inverse_[3] = {}, step_size_ = 1, t_ = 0;
    Span box_{0, 0};
    Cell cell_{false, -std::numeric_limits<float>::infinity()};
    int64_t n_steps_ = 0;
};

}  // namespace QS_ISA
}  // namespace quicksurf
