// Tiles of points, the memory they are worked on in, and how points are cut into chunks for threads.
//
// A tile is TILE points, one row per value: tile[d][i]. Included inside one namespace per instruction set (see simd.h).
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>

#include "encoding.h"
#include "network_spec.h"
#include "simd.h"

namespace quicksurf {
namespace QS_ISA {

constexpr size_t MAX_CHUNKS = 32, MIN_CHUNK = 1024;
// Tiles encoded together: a level's table is read for all of them while it lies in the second-level cache. 16 instead
// of 1 makes the encoding a third faster for tables of 2^16 entries; 4 is as good, 64 no better.
constexpr int BLOCK_TILES = 16, BLOCK = BLOCK_TILES * TILE;

// Points are cut into chunks of whole tiles; the cut depends on n alone.
struct Chunks {
    size_t n, size;
    explicit Chunks(size_t n_points) : n(n_points) {
        size = std::max(MIN_CHUNK, (n + MAX_CHUNKS - 1) / MAX_CHUNKS);
        size = (size + TILE - 1) / TILE * TILE;
    }
    size_t count() const { return (n + size - 1) / size; }
    size_t begin(size_t chunk) const { return chunk * size; }
    size_t end(size_t chunk) const { return std::min(n, (chunk + 1) * size); }
};

template <class T>
struct Scratch {
    std::unique_ptr<T[]> memory;
    T* data;
    explicit Scratch(size_t rows) : memory(new T[rows * TILE + 64 / sizeof(T)]) {
        data = reinterpret_cast<T*>((reinterpret_cast<uintptr_t>(memory.get()) + 63) & ~uintptr_t(63));
    }
    T* rows(size_t n) {
        T* p = data;
        data += n * TILE;
        return p;
    }
};

// tile[d][i] = values of up to TILE points from `first`; the rest of the tile is zero.
template <class T>
void load_tile(Strided<const T> from, size_t first, int count, int n_dims, T* tile) {
    for (int d = 0; d < n_dims; ++d) {
        const T* p = from.data + first * from.point_stride + d * from.dim_stride;
        T* row = tile + d * TILE;
        if (from.point_stride == 1)
            std::memcpy(row, p, count * sizeof(T));
        else
            for (int i = 0; i < count; ++i) row[i] = p[i * from.point_stride];
        std::memset(row + count, 0, (TILE - count) * sizeof(T));
    }
}

// As load_tile, for the points that `points` lists.
template <class T>
void gather_tile(Strided<const T> from, const uint32_t* points, int count, int n_dims, T* tile) {
    if (points[count - 1] - points[0] + 1 == uint32_t(count)) return load_tile(from, points[0], count, n_dims, tile);
    for (int d = 0; d < n_dims; ++d) {
        const T* p = from.data + d * from.dim_stride;
        T* row = tile + d * TILE;
        for (int i = 0; i < count; ++i) row[i] = p[points[i] * from.point_stride];
        std::memset(row + count, 0, (TILE - count) * sizeof(T));
    }
}

// Comparisons decide, so a NaN becomes 0 (ReLU) or a bound (the others) instead of spreading as in the torch twin.
template <class T>
void activate(Activation kind, T* rows, int n_rows) {
    if (kind == Activation::none) return;
    const T k = T(SOFTPLUS_SHARPNESS);
    for (T* p = rows; p < rows + n_rows * TILE; p += LANES<T>) {
        Vec<T> v = load(p);
        if (kind == Activation::relu) v = vmax<T>(v, Vec<T>{});
        if (kind == Activation::sigmoid) v = 1 / (1 + vexp(-v));
        if (kind == Activation::softplus) {
            const Vec<T> magnitude = vmax<T>(v, -v);
            v = vmax<T>(v, Vec<T>{}) + vlog1p(vexp(-k * magnitude)) / k;
        }
        store(p, v);
    }
}

// grad *= f'(input), written in terms of the output y of the activation.
template <class T>
void activate_backward(Activation kind, const T* y, T* grad, int n_rows) {
    if (kind == Activation::none) return;
    const T k = T(SOFTPLUS_SHARPNESS);
    for (int i = 0; i < n_rows * TILE; i += LANES<T>) {
        const Vec<T> v = load(y + i), g = load(grad + i);
        Vec<T> out{};
        if (kind == Activation::relu) out = v > T(0) ? g : Vec<T>{};
        if (kind == Activation::sigmoid) out = g * v * (1 - v);
        if (kind == Activation::softplus) out = g * (1 - vexp(-k * v));
        store(grad + i, out);
    }
}

}  // namespace QS_ISA
}  // namespace quicksurf
