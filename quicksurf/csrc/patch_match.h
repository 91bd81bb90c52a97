// The kernel of stereo.h; included once per instruction set. One pixel a lane, every second pixel of a row.
#pragma once

#include <algorithm>
#include <cmath>

#include "simd.h"
#include "stereo.h"
#include "thread_pool.h"

namespace quicksurf {
namespace QS_ISA {
namespace stereo {

using Floats = Vec<float>;
typedef int32_t Ints __attribute__((vector_size(QS_VECTOR_BYTES)));
typedef uint32_t Words __attribute__((vector_size(QS_VECTOR_BYTES)));
constexpr int L = LANES<float>;
constexpr int W = STEREO_WINDOW, N = W * W, HALF = W / 2, N_TRIALS = 3;

// Where a pixel looks for planes: in each direction the cheapest of these, turned.
constexpr int AHEAD[][2] = {{1, 0}, {3, 0}, {2, 1}, {2, -1}, {7, 0}};
constexpr int TURNS[][2] = {{1, 0}, {0, 1}, {-1, 0}, {0, -1}};

inline Floats to_floats(Ints v) { return __builtin_convertvector(v, Floats); }
inline Ints to_ints(Floats v) { return __builtin_convertvector(v, Ints); }
inline Ints splat_ints(int32_t v) { return Ints{} + v; }

template <class To, class T>
inline To gather(const T* from, Ints index) {
    static_assert(sizeof(T) == 4, "32-bit values");
#if defined(__AVX512F__)
    return To(_mm512_i32gather_epi32(__m512i(index), from, 4));
#elif defined(__AVX2__)
    return To(_mm256_i32gather_epi32(reinterpret_cast<const int*>(from), __m256i(index), 4));
#else
    T values[L];
    for (int i = 0; i < L; ++i) values[i] = from[index[i]];
    To result;
    std::memcpy(&result, values, sizeof result);
    return result;
#endif
}

// Two neighbours of 16 bits, the first at `index`.
inline Words gather_pairs(const uint16_t* from, Ints index) {
#if defined(__AVX512F__)
    return Words(_mm512_i32gather_epi32(__m512i(index), from, 2));
#elif defined(__AVX2__)
    return Words(_mm256_i32gather_epi32(reinterpret_cast<const int*>(from), __m256i(index), 2));
#else
    Words result;
    for (int i = 0; i < L; ++i) result[i] = from[index[i]] | uint32_t(from[index[i] + 1]) << 16;
    return result;
#endif
}

// Chris Wellons' lowbias32.
inline Words hash(Words x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ (x >> 16);
}

struct Random {
    Words state;
    // In [-1, 1).
    Floats next() {
        state = hash(state + 0x9e3779b9u);
        return to_floats(Ints(state)) * (1.0f / 2147483648.0f);
    }
};

struct Plane {
    Floats w, a, b;
};

// Each pixel beside the one below it: the word at a pixel holds the four that a bilinear sample mixes, at two bytes a
// pixel.
struct Pairs {
    std::vector<uint16_t> values;
    int height, width, stride;

    explicit Pairs(const StereoSource& source)
        : values(size_t(source.height) * (source.width + 1) + 1),
          height(source.height),
          width(source.width),
          stride(width + 1) {
        for (int y = 0; y < height; ++y) {
            const uint8_t *row = source.grey + size_t(y) * width, *below = y + 1 < height ? row + width : row;
            for (int x = 0; x <= width; ++x) {
                const int column = std::min(x, width - 1);
                values[size_t(y) * stride + x] = uint16_t(row[column] | below[column] << 8);
            }
        }
    }

    // At pixels (u, v), with the centres of pixels at whole numbers.
    Floats sample(Floats u, Floats v) const {
        u = vmin<float>(vmax<float>(u, Floats{}), splat(float(width - 1)));
        v = vmin<float>(vmax<float>(v, Floats{}), splat(float(height - 1)));
        const Ints column = to_ints(u), row = to_ints(v);
        const Floats across = u - to_floats(column), along = v - to_floats(row);
        const Words four = gather_pairs(values.data(), row * stride + column);
        const Floats p00 = to_floats(Ints(four & 255u)), p01 = to_floats(Ints(four >> 8 & 255u));
        const Floats p10 = to_floats(Ints(four >> 16 & 255u)), p11 = to_floats(Ints(four >> 24));
        const Floats top = p00 + across * (p10 - p00), bottom = p01 + across * (p11 - p01);
        return top + along * (bottom - top);
    }
};

// What pixels of the reference look like around: weights that sum to 1, and grey values less their weighted mean.
struct Window {
    Floats weights[N], values[N], inverse_deviation;
    Ints textured;

    Window(const StereoMap& map, const StereoSpec& spec, Ints x, int y) {
        const Floats centre = grey(map, x, y);
        Floats total{}, mean{}, square{};
        for (int k = 0; k < N; ++k) {
            values[k] = grey(map, x + STEREO_STEP * (k % W - HALF), y + STEREO_STEP * (k / W - HALF));
            const Floats apart = values[k] - centre;
            weights[k] = vexp(vmin<float>(apart, -apart) * (1 / spec.similarity));
            total += weights[k];
            mean += weights[k] * values[k];
        }
        mean = mean / total;
        for (int k = 0; k < N; ++k) {
            weights[k] = weights[k] / total;
            values[k] -= mean;
            square += weights[k] * values[k] * values[k];
        }
        const float least = spec.least_contrast * spec.least_contrast;
        textured = square >= splat(least);
        square = vmax<float>(square, splat(1e-6f));
        for (int i = 0; i < L; ++i) inverse_deviation[i] = 1 / std::sqrt(square[i]);
    }

    static Floats grey(const StereoMap& map, Ints x, int y) {
        const uint8_t* row = map.grey + size_t(std::min(std::max(y, 0), map.height - 1)) * map.width;
        Floats result;
        for (int i = 0; i < L; ++i) result[i] = row[std::min(std::max(x[i], 0), map.width - 1)];
        return result;
    }
};

inline Floats inverse_root(Floats x) {
#if defined(__AVX512F__)
    const Floats r = Floats(_mm512_rsqrt14_ps(__m512(x)));
    return r * (1.5f - 0.5f * x * r * r);
#else
    Floats r;
    for (int i = 0; i < L; ++i) r[i] = 1 / std::sqrt(x[i]);
    return r;
#endif
}

struct Matcher {
    const StereoMap& map;
    const StereoSpec& spec;
    const std::vector<StereoSource>& sources;
    std::vector<Pairs> images;

    Matcher(const StereoMap& map, const StereoSpec& spec, const std::vector<StereoSource>& sources)
        : map(map), spec(spec), sources(sources) {
        for (const StereoSource& source : sources) images.emplace_back(source);
    }

    Floats cost_of_source(size_t k, const Window& window, Floats u, Floats v, const Plane& plane) const {
        const auto& m = sources[k].transform;
        const Pairs& image = images[k];
        Floats h[3], across[3], along[3];
        for (int r = 0; r < 3; ++r) {
            h[r] = m[r][0] * u + (m[r][1] * v + (m[r][2] + m[r][3] * plane.w));
            across[r] = m[r][0] + m[r][3] * plane.a;
            along[r] = m[r][1] + m[r][3] * plane.b;
        }
        const Ints ahead = h[2] > splat(1e-6f);
        const Floats inverse = 1.0f / (ahead ? h[2] : splat(1.0f));
        const Floats x = h[0] * inverse, y = h[1] * inverse;
        const Floats step = STEREO_STEP * inverse;
        const Floats xi = step * (across[0] - x * across[2]), yi = step * (across[1] - y * across[2]);
        const Floats xj = step * (along[0] - x * along[2]), yj = step * (along[1] - y * along[2]);
        const Ints seen = ahead & (x > Floats{}) & (x < splat(float(image.width))) & (y > Floats{}) &
                          (y < splat(float(image.height)));
        Floats sum{}, square{}, product{};
        for (int k = 0; k < N; ++k) {
            const float i = float(k % W - HALF), j = float(k / W - HALF);
            const Floats value = image.sample(x - 0.5f + i * xi + j * xj, y - 0.5f + i * yi + j * yj);
            const Floats weighed = window.weights[k] * value;
            sum += weighed;
            square += weighed * value;
            product += weighed * window.values[k];
        }
        const Floats variance = square - sum * sum;
        const Ints textured = variance >= splat(spec.least_contrast * spec.least_contrast);
        const Floats ncc = product * window.inverse_deviation * inverse_root(vmax<float>(variance, splat(1e-6f)));
        return (seen & textured) ? 1.0f - ncc : splat(STEREO_UNSEEN);
    }

    Floats cost(const Window& window, Floats u, Floats v, const Plane& plane) const {
        Floats least[STEREO_MOST_SOURCES];
        for (int k = 0; k < spec.n_best; ++k) least[k] = splat(STEREO_UNSEEN);
        for (size_t k = 0; k < sources.size(); ++k) {
            Floats value = cost_of_source(k, window, u, v, plane);
            for (int rank = 0; rank < spec.n_best; ++rank) {
                const Floats larger = vmax<float>(value, least[rank]);
                least[rank] = vmin<float>(value, least[rank]);
                value = larger;
            }
        }
        Floats sum{};
        for (int k = 0; k < spec.n_best; ++k) sum += least[k];
        const Floats usable = window.textured ? sum * (1.0f / spec.n_best) : splat(STEREO_UNSEEN);
        return (plane.w > splat(0.0f)) ? usable : splat(STEREO_UNSEEN);
    }

    Plane plane_at(Ints pixel) const {
        const size_t n = size_t(map.height) * map.width;
        return {gather<Floats>(map.planes, pixel), gather<Floats>(map.planes + n, pixel),
                gather<Floats>(map.planes + 2 * n, pixel)};
    }

    // The cheapest plane ahead in one direction, continued to (x, y).
    Plane plane_ahead(int turn, Ints x, int y) const {
        const auto [cosine, sine] = TURNS[turn];
        Ints pixel = splat_ints(y) * map.width + x, best_x = x, best_y = splat_ints(y);
        Floats best = splat(4.0f);
        for (const auto [i, j] : AHEAD) {
            const Ints column = x + (cosine * i - sine * j), row = splat_ints(y + sine * i + cosine * j);
            const Ints inside = (column >= 0) & (column < map.width) & (row >= 0) & (row < map.height);
            const Ints there = inside ? row * map.width + column : pixel;
            const Floats cost = inside ? gather<Floats>(map.costs, there) : splat(4.0f);
            const Ints better = cost < best;
            best = better ? cost : best;
            best_x = better ? column : best_x;
            best_y = better ? row : best_y;
        }
        Plane plane = plane_at(best_y * map.width + best_x);
        plane.w += plane.a * to_floats(x - best_x) + plane.b * to_floats(splat_ints(y) - best_y);
        return plane;
    }

    Plane change(Plane plane, Random& random, int trial, float reach, float tilt) const {
        if (trial != 1) {
            const Floats size = reach * (spec.high - spec.low) * vexp(1.04f * random.next() - 1.04f);
            plane.w = vmin<float>(vmax<float>(plane.w + size * random.next(), splat(spec.low)), splat(spec.high));
        }
        if (trial != 2) {
            const Floats size = tilt / spec.focal * plane.w;
            plane.a += size * random.next();
            plane.b += size * random.next();
        }
        return plane;
    }

    // The pixels of row y from column `begin` on, every second one. sweep -1: costs of the first guesses alone.
    void visit(int begin, int y, int sweep) const {
        Ints x;
        for (int i = 0; i < L; ++i) x[i] = std::min(begin + 2 * i, map.width - 1);
        const int count = std::min(L, (map.width - begin + 1) / 2);
        const Floats u = to_floats(x) + 0.5f, v = splat(y + 0.5f);
        const Window window(map, spec, x, y);
        const Ints pixel = splat_ints(y) * map.width + x;
        Plane best = plane_at(pixel);
        Floats least;
        const auto consider = [&](const Plane& plane) {
            const Floats value = cost(window, u, v, plane);
            const Ints better = value < least;
            least = better ? value : least;
            best = {better ? plane.w : best.w, better ? plane.a : best.a, better ? plane.b : best.b};
        };
        if (sweep < 0) {
            least = cost(window, u, v, best);
        } else {
            least = gather<Floats>(map.costs, pixel);
            for (int turn = 0; turn < 4; ++turn) consider(plane_ahead(turn, x, y));
            Random random{hash(Words(pixel) + 0x85ebca6bu * uint32_t(sweep + 1)) ^ spec.seed};
            const float shrunk = std::pow(spec.shrink, float(sweep));
            for (int trial = 0; trial < N_TRIALS; ++trial)
                consider(change(best, random, trial, spec.reach * shrunk, spec.tilt * std::sqrt(shrunk)));
        }
        const size_t n = size_t(map.height) * map.width, at = size_t(y) * map.width + begin;
        for (int i = 0; i < count; ++i) {
            map.planes[at + 2 * i] = best.w[i];
            map.planes[n + at + 2 * i] = best.a[i];
            map.planes[2 * n + at + 2 * i] = best.b[i];
            map.costs[at + 2 * i] = least[i];
        }
    }
};

inline void patch_match(const StereoMap& map, const StereoSpec& spec, const std::vector<StereoSource>& sources) {
    const Matcher matcher(map, spec, sources);
    for (int sweep = -1; sweep < spec.n_sweeps; ++sweep)
        for (int color = 0; color < 2; ++color)
            parallel_for(size_t(map.height), [&](size_t y) {
                for (int begin = (int(y) + color) % 2; begin < map.width; begin += 2 * L)
                    matcher.visit(begin, int(y), sweep);
            });
}

}  // namespace stereo
}  // namespace QS_ISA
}  // namespace quicksurf
