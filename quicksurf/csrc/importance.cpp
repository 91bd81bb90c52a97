#include "importance.h"

#include <algorithm>

#include "ray_tasks.h"

namespace quicksurf {

namespace {

struct Neighbours {
    int64_t left, right;  // relative to the first key
};

Neighbours neighbours(const float* keys, int64_t n, float value) {
    const int64_t last = std::max<int64_t>(n - 1, 0), after = std::upper_bound(keys, keys + last, value) - keys;
    return {std::max<int64_t>(after - 1, 0), std::min(after, last)};
}

// t at which the interpolated cdf is u; the middle of an interval that holds no weight.
float invert(const float* ts, const float* cdfs, int64_t n, float u) {
    const auto [left, right] = neighbours(cdfs, n, u);
    const float weight = cdfs[right] - cdfs[left];
    if (!(weight >= 1e-10f)) return 0.5f * (ts[left] + ts[right]);
    return ts[left] + (u - cdfs[left]) * ((ts[right] - ts[left]) / weight);
}

void place_edges(const float* ts, int64_t n, float first, float last, float* edges) {
    if (n == 1) {
        edges[0] = first;
        edges[1] = last;
        return;
    }
    edges[0] = std::max(ts[0] - 0.5f * (ts[1] - ts[0]), first);
    for (int64_t i = 1; i < n; ++i) edges[i] = 0.5f * (ts[i - 1] + ts[i]);
    edges[n] = std::min(ts[n - 1] + 0.5f * (ts[n - 1] - ts[n - 2]), last);
}

}  // namespace

void importance_sampling(const Chunks& keys, const float* key_ts, const float* cdfs, const float* biases,
                         const Chunks& samples, float* ts, const Chunks& edges, float* edge_ts) {
    for_rays(keys.n, SCANNED_RAYS_PER_TASK, [&](size_t r) {
        const int64_t n_keys = keys.counts[r], n = samples.counts[r];
        const float *t = key_ts + keys.starts[r], *cdf = cdfs + keys.starts[r];
        float *out = ts + samples.starts[r], *out_edges = edge_ts + edges.starts[r];
        if (n_keys == 0) {
            std::fill(out, out + n, 0.0f);
            std::fill(out_edges, out_edges + edges.counts[r], 0.0f);
        } else if (n > 0) {
            const float stratum = (cdf[n_keys - 1] - cdf[0]) / static_cast<float>(n);
            for (int64_t i = 0; i < n; ++i)
                out[i] = invert(t, cdf, n_keys, cdf[0] + (static_cast<float>(i) + biases[r]) * stratum);
            place_edges(out, n, t[0], t[n_keys - 1], out_edges);
        } else {
            std::fill(out_edges, out_edges + edges.counts[r], t[0]);
        }
    });
}

void searchsorted(const Chunks& keys, const float* key_ts, const Chunks& queries, const float* query_ts, bool relative,
                  int64_t* left, int64_t* right) {
    for_rays(keys.n, SCANNED_RAYS_PER_TASK, [&](size_t r) {
        const int64_t base = relative ? 0 : keys.starts[r];
        for (int64_t i = queries.starts[r]; i < queries.starts[r] + queries.counts[r]; ++i) {
            const Neighbours found = neighbours(key_ts + keys.starts[r], keys.counts[r], query_ts[i]);
            left[i] = base + found.left;
            right[i] = base + found.right;
        }
    });
}

}  // namespace quicksurf
