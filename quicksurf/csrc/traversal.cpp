#include "traversal.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>

#include "ray_tasks.h"

namespace quicksurf {

namespace {

constexpr int64_t MAX_STEPS = 1 << 20;
constexpr float BEHIND_FACE = 1e-6f;    // nerfacc's: a cell is looked up this far behind the face it is entered by
constexpr float MAX_LENGTH = 1e10f;     // nerfacc's bound of a step that grows with t
constexpr float infinity = std::numeric_limits<float>::infinity();

bool is_finite(const float* v) { return std::isfinite(v[0]) && std::isfinite(v[1]) && std::isfinite(v[2]); }

// Truncation to a cell that no value, NaN included, leads out of the grid.
int cell_of(float x, int n) { return x > 0 ? (x < static_cast<float>(n) ? static_cast<int>(x) : n - 1) : 0; }

// One ray's walk: emit(start, end, joined) for each step, `joined` if the step before ended at `start`.
template <class Emit>
class Walk {
   public:
    Walk(const Traversal& all, size_t r, Emit& emit)
        : all_(all),
          ray_(r),
          o_(all.rays.origins + 3 * r),
          d_(all.rays.directions + 3 * r),
          t_(all.rays.near[r]),
          emit_(emit) {
        for (int k = 0; k < 3; ++k) inverse_[k] = 1 / d_[k];
    }

    // False after MAX_STEPS.
    bool run() {
        if (!all_.mask[ray_] || !is_finite(o_) || !is_finite(d_)) return true;
        const int n = 2 * all_.grids.n_levels;
        const float* ts = all_.t_sorted + n * ray_;
        for (int i = 0; i + 1 < n && bounded_; ++i) {
            const int level = level_after(i);
            const float begin = std::fmax(ts[i], all_.rays.near[ray_]), end = std::fmin(ts[i + 1], all_.rays.far[ray_]);
            if (level >= 0 && begin < end && begin > -infinity) cross(level, begin, end);
        }
        return bounded_;
    }

    float t() const { return t_; }

   private:
    // The grid between crossing i and the next; -1 between grids.
    int level_after(int i) const {
        const int m = all_.grids.n_levels;
        const int64_t* ids = all_.t_indices.data() + 2 * m * ray_;
        const uint8_t* hits = all_.hits + m * ray_;
        if (!hits[ids[i] % m]) return -1;
        if (ids[i] < m) return static_cast<int>(ids[i]);
        return ids[i + 1] >= m && hits[ids[i + 1] - m] ? static_cast<int>(ids[i + 1] - m) : -1;
    }

    void cross(int level, float begin, float end) {
        joined_ &= begin <= behind_;  // boxes may be apart
        behind_ = end;
        const float* box = all_.grids.aabbs + 6 * level;
        const int* n = all_.grids.resolution;
        float size[3], faces[3];
        int index[3];
        const auto face = [&](int k) {
            return d_[k] == 0 ? infinity : (box[k] + (index[k] + (d_[k] > 0)) * size[k] - o_[k]) * inverse_[k];
        };
        for (int k = 0; k < 3; ++k) {
            size[k] = (box[k + 3] - box[k]) / n[k];
            index[k] = cell_of((o_[k] + d_[k] * (begin + BEHIND_FACE) - box[k]) / size[k], n[k]);
            faces[k] = face(k);
        }
        const bool grows = all_.cone_angle > 0;  // else several empty cells are crossed in one jump
        if (grows && !joined_) advance(begin);
        float entry = begin;
        while (bounded_ && !at_limit()) {
            int axis = 0;
            float exit = infinity;
            for (int k = 0; k < 3; ++k)
                if (faces[k] <= exit) exit = faces[k], axis = k;
            exit = std::min(exit, end);
            if (occupied(level, index)) {
                if (!joined_) advance(entry);
                step_until(exit);
            } else {
                if (grows) advance(exit);
                joined_ = false;
            }
            entry = exit;
            index[axis] += d_[axis] > 0 ? 1 : -1;
            if (!(exit < end) || index[axis] < 0 || index[axis] >= n[axis]) break;
            faces[axis] = face(axis);
        }
        if (!joined_) advance(entry);
    }

    bool occupied(int level, const int* index) const {
        const int* n = all_.grids.resolution;
        return all_.grids.binaries[((size_t(level) * n[0] + index[0]) * n[1] + index[1]) * n[2] + index[2]];
    }

    bool at_limit() const { return all_.steps_limit > 0 && n_steps_ >= all_.steps_limit; }
    float length() const { return std::max(all_.step_size, std::min(t_ * all_.cone_angle, MAX_LENGTH)); }

    // Goes on in whole steps until a step's middle lies at `t` or behind.
    void advance(float t) {
        if (!(all_.step_size > 0) || !std::isfinite(t_)) {
            t_ = t;
            return;
        }
        const float dt = length();
        if (t_ + 0.5f * dt >= t) return;
        t_ += std::ceil((t - t_) / dt - 0.5f) * dt;
        if (t_ + 0.5f * dt < t) t_ += dt;  // the product was rounded down
        bounded_ &= std::isfinite(t_);
    }

    // Steps whose middle lies before `t`; or one up to `t`.
    void step_until(float t) {
        while (!at_limit()) {
            float next = t;
            if (all_.step_size > 0) {
                const float dt = length();
                if (t_ + 0.5f * dt >= t) return;
                next = t_ + dt;
            } else if (!(t_ + BEHIND_FACE < t)) {
                return;  // a sliver: the face was missed by rounding
            }
            bounded_ &= ++n_steps_ <= MAX_STEPS;
            if (!bounded_) return;
            emit_(t_, next, joined_);
            joined_ = true;
            t_ = next;
        }
    }

    const Traversal& all_;
    size_t ray_;
    const float *o_, *d_;
    float inverse_[3], t_, behind_ = -infinity;  // t_: end of the last step; behind_: of the last box
    bool joined_ = false, bounded_ = true;
    int64_t n_steps_ = 0;
    Emit& emit_;
};

// Writes the steps of one ray while there is room.
struct Writer {
    const StepEdges& edges;
    const StepMids& mids;
    size_t ray;
    int64_t n_edges = 0, n_mids = 0;
    bool fits = true;

    void operator()(float start, float end, bool joined) {
        fits &= n_mids < mids.room.counts[ray] && n_edges + (joined ? 1 : 2) <= edges.room.counts[ray];
        if (!fits) return;
        if (joined)
            edges.is_left[edges.room.starts[ray] + n_edges - 1] = 1;
        else
            put_edge(start, true);
        put_edge(end, false);
        const int64_t i = mids.room.starts[ray] + n_mids++;
        mids.ts[i] = 0.5f * (start + end);
        mids.ray_indices[i] = static_cast<int64_t>(ray);
        mids.is_valid[i] = 1;
    }

    void put_edge(float t, bool left) {
        const int64_t i = edges.room.starts[ray] + n_edges++;
        edges.ts[i] = t;
        edges.ray_indices[i] = static_cast<int64_t>(ray);
        edges.is_left[i] = left;
        edges.is_right[i] = !left;
    }
};

}  // namespace

void intersect_boxes(size_t n, const float* origins, const float* directions, size_t n_boxes, const float* boxes,
                     float near, float far, float miss, float* t_mins, float* t_maxs, uint8_t* hits) {
    for_rays(n, MARCHED_RAYS_PER_TASK, [&](size_t r) {
        const float *o = origins + 3 * r, *d = directions + 3 * r;
        for (size_t b = 0; b < n_boxes; ++b) {
            const float* box = boxes + 6 * b;
            float t_min = -infinity, t_max = infinity;
            for (int k = 0; k < 3; ++k) {
                const float x = (box[k] - o[k]) / d[k], y = (box[k + 3] - o[k]) / d[k];
                if (std::isnan(x) || std::isnan(y)) continue;  // the ray lies in a face's plane
                t_min = std::max(t_min, std::min(x, y));
                t_max = std::min(t_max, std::max(x, y));
            }
            const bool hit = t_min < t_max && t_max > 0 && is_finite(o) && is_finite(d);
            const size_t i = r * n_boxes + b;
            t_mins[i] = hit ? std::min(std::max(t_min, near), far) : miss;
            t_maxs[i] = hit ? std::min(std::max(t_max, near), far) : miss;
            hits[i] = hit;
        }
    });
}

bool count_steps(const Traversal& all, int64_t* n_edges, int64_t* n_mids) {
    std::atomic<bool> bounded{true};
    for_rays(all.rays.n, MARCHED_RAYS_PER_TASK, [&](size_t r) {
        n_edges[r] = n_mids[r] = 0;
        if (!bounded) return;
        auto count = [&](float, float, bool joined) {
            n_edges[r] += joined ? 1 : 2;
            ++n_mids[r];
        };
        if (!Walk(all, r, count).run()) bounded = false;
    });
    return bounded;
}

bool fill_steps(const Traversal& all, const StepEdges& edges, const StepMids& mids, float* t_ends) {
    std::atomic<bool> fits{true};
    for_rays(all.rays.n, MARCHED_RAYS_PER_TASK, [&](size_t r) {
        if (!fits) return;
        Writer writer{edges, mids, r};
        Walk walk(all, r, writer);
        if (!walk.run() || !writer.fits) fits = false;
        edges.counts[r] = writer.n_edges;
        mids.counts[r] = writer.n_mids;
        t_ends[r] = walk.t();
    });
    return fits;
}

}  // namespace quicksurf
