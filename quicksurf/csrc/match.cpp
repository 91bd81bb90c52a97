#include "match.h"

#include <algorithm>
#include <cmath>

#include "nearest.h"
#include "thread_pool.h"

namespace quicksurf {
namespace {

constexpr size_t TASK_ROWS = 20 * DESCRIPTOR_PADDING;  // some milliseconds beside 8192 columns

int32_t dot(const uint8_t* a, const uint8_t* b) {
    int32_t sum = 0;
    for (int k = 0; k < DESCRIPTOR_SIZE; ++k) sum += int32_t(a[k]) * b[k];
    return sum;
}

struct Image {
    DescriptorArray array{};
    std::vector<float> inverse_norms;
    std::vector<uint32_t> packed;

    void prepare(const NearestKernel& kernel) {
        inverse_norms.assign(padded(array.n), 0.0f);
        for (size_t i = 0; i < array.n; ++i) {
            const int32_t square = dot(row(i), row(i));
            if (square) inverse_norms[i] = 1.0f / std::sqrt(float(square));
        }
        packed.resize(padded(array.n) * kernel.n_words);
        kernel.pack(array.values, array.n, packed.data());
    }
    const uint8_t* row(size_t i) const { return array.values + i * DESCRIPTOR_SIZE; }
    Descriptors view() const { return {array.n, array.values, inverse_norms.data(), packed.data()}; }
};

// The two most similar of each descriptor, before multiplication by its own inverse norm.
struct TopTwo {
    std::vector<float> best, second;
    explicit TopTwo(size_t n) : best(n), second(n) {}

    void merge(const TopTwo& other) {
        for (size_t i = 0; i < best.size(); ++i) {
            second[i] = std::max(std::max(second[i], other.second[i]), std::min(best[i], other.best[i]));
            best[i] = std::max(best[i], other.best[i]);
        }
    }
    bool passes(size_t i, double inverse_norm, const MatchLimits& limits) const {
        if (!(best[i] > 0)) return false;
        const double nearest = std::acos(std::min(best[i] * inverse_norm, 1.0));
        if (nearest > limits.max_distance) return false;
        return nearest < limits.max_ratio * std::acos(std::min(second[i] * inverse_norm, 1.0));
    }
};

// Rows begin .. end-1 of one pair.
struct Part {
    size_t pair, begin, end;
    TopTwo rows{0}, columns{0};
    std::vector<int32_t> candidates;

    void run(const NearestKernel& kernel, const Image& first, const Image& second) {
        rows = TopTwo(end - begin);
        columns = TopTwo(padded(second.array.n));
        candidates.resize(end - begin);
        kernel.find(first.view(), begin, end, second.view(), rows.best.data(), rows.second.data(), candidates.data(),
                    columns.best.data(), columns.second.data());
    }
};

// Matches of the rows of one part; `columns` over all parts of the pair.
void select(const NearestKernel& kernel, const Part& part, const TopTwo& columns, const Image& first,
            const Image& second, const MatchLimits& limits, std::vector<int32_t>& matches) {
    for (size_t i = part.begin; i < part.end; ++i) {
        const float norm = first.inverse_norms[i], best = part.rows.best[i - part.begin];
        if (!part.rows.passes(i - part.begin, norm, limits)) continue;
        for (size_t c = 0; c < kernel.n_candidates; ++c) {
            const size_t j = part.candidates[i - part.begin] + c * kernel.candidate_step;
            if (j >= second.array.n) break;
            const float product = float(dot(first.row(i), second.row(j)));
            if (product * second.inverse_norms[j] != best) continue;
            if (product * norm == columns.best[j] && columns.passes(j, second.inverse_norms[j], limits))
                matches.insert(matches.end(), {int32_t(i), int32_t(j)});
            break;
        }
    }
}

}  // namespace

std::vector<std::vector<int32_t>> match_descriptors(const std::vector<DescriptorArray>& arrays,
                                                    const std::vector<std::pair<size_t, size_t>>& pairs,
                                                    const MatchLimits& limits) {
    const NearestKernel& kernel = nearest_kernel();
    std::vector<Image> images(arrays.size());
    std::vector<size_t> used, first_parts{0};
    std::vector<Part> parts;
    for (size_t pair = 0; pair < pairs.size(); ++pair) {
        used.insert(used.end(), {pairs[pair].first, pairs[pair].second});
        const size_t n = arrays[pairs[pair].first].n;
        for (size_t begin = 0; begin < n; begin += TASK_ROWS)
            parts.push_back({pair, begin, std::min(n, begin + TASK_ROWS)});
        first_parts.push_back(parts.size());
    }
    std::sort(used.begin(), used.end());
    used.erase(std::unique(used.begin(), used.end()), used.end());
    parallel_for(used.size(), [&](size_t u) {
        images[used[u]].array = arrays[used[u]];
        images[used[u]].prepare(kernel);
    });
    parallel_for(parts.size(), [&](size_t p) {
        parts[p].run(kernel, images[pairs[parts[p].pair].first], images[pairs[parts[p].pair].second]);
    });
    std::vector<std::vector<int32_t>> matches(pairs.size());
    parallel_for(pairs.size(), [&](size_t pair) {
        const Image &first = images[pairs[pair].first], &second = images[pairs[pair].second];
        TopTwo columns(padded(second.array.n));
        for (size_t p = first_parts[pair]; p < first_parts[pair + 1]; ++p) columns.merge(parts[p].columns);
        for (size_t p = first_parts[pair]; p < first_parts[pair + 1]; ++p)
            select(kernel, parts[p], columns, first, second, limits, matches[pair]);
    });
    return matches;
}

}  // namespace quicksurf
