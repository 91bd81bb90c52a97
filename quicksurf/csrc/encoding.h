// Encodings of one tile of points (TILE points along a row, one row per value).
//
//   identity             row d = input d
//   spherical harmonics  real basis up to degree 4 of the direction 2 x - 1 (as tiny-cuda-nn: inputs in [0, 1])
//   grid                 per level: trilinear interpolation of table entries at x * scale + 0.5 (Mueller et al. 2022,
//                        eq. 1-4); inputs are clamped to [0,1], NaN counts as 0
//
// Rows of inactive levels (coarse to fine) are zero. Pointers: tile inputs x[n_dims][TILE]; rows[n_rows][TILE].
#pragma once

#include "network_spec.h"
#include "simd.h"

namespace quicksurf {
namespace QS_ISA {

constexpr int TILE = 64;  // points; a tile of 64 activations is 16 KB and stays in the first-level cache

constexpr uint32_t PRIME_Y = 2654435761u, PRIME_Z = 805459861u;

// The eight corners around LANES points of one level: entry index and weight per corner, and what gradients need.
template <class T>
struct Corners {
    IndexVec<T> index[8];
    Vec<T> frac[3];

    Vec<T> weight(int corner) const {
        Vec<T> w = splat(T(1));
        for (int d = 0; d < 3; ++d) w *= corner >> d & 1 ? frac[d] : 1 - frac[d];
        return w;
    }
    // Derivative of the weight by the position along `axis`, in cells.
    Vec<T> weight_slope(int corner, int axis) const {
        Vec<T> w = splat(corner >> axis & 1 ? T(1) : T(-1));
        for (int d = 0; d < 3; ++d)
            if (d != axis) w *= corner >> d & 1 ? frac[d] : 1 - frac[d];
        return w;
    }
};

template <class T>
inline Corners<T> corners_of(const GridLevel& level, const T* const x[3], int i) {
    Corners<T> c;
    IndexVec<T> cell[3];
    for (int d = 0; d < 3; ++d) {
        const Vec<T> clamped = vmin<T>(vmax<T>(load(x[d] + i), Vec<T>{}), splat(T(1)));
        const Vec<T> position = clamped * T(level.scale) + T(0.5);
        cell[d] = __builtin_convertvector(position, IndexVec<T>);
        c.frac[d] = position - __builtin_convertvector(cell[d], Vec<T>);
    }
    if (level.hashed) {
        const IndexVec<T> y = cell[1] * PRIME_Y, z = cell[2] * PRIME_Z;
        for (int corner = 0; corner < 8; ++corner)
            c.index[corner] =
                ((cell[0] + (corner & 1)) ^ (corner & 2 ? y + PRIME_Y : y) ^ (corner & 4 ? z + PRIME_Z : z)) &
                (level.size - 1);
    } else {
        const uint32_t r = level.resolution;
        const IndexVec<T> base = cell[0] + r * (cell[1] + r * cell[2]);
        for (int corner = 0; corner < 8; ++corner) {
            const IndexVec<T> index = base + ((corner & 1) + r * ((corner >> 1 & 1) + r * (corner >> 2)));
            c.index[corner] = index >= level.size ? index - level.size : index;  // the last cell wraps, as in tcnn
        }
    }
    return c;
}

// value[f] = table[index * F + f] for each lane.
template <class T, int F>
inline void gather(const T* table, IndexVec<T> index, Vec<T>* value) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4 && F == 2) {
        const __m512i i = (__m512i)index;
        const __m512 a = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_castsi512_si256(i), table, 8));
        const __m512 b = _mm512_castpd_ps(_mm512_i32gather_pd(_mm512_extracti64x4_epi64(i, 1), table, 8));
        value[0] =
            __builtin_shufflevector((Vec<T>)a, (Vec<T>)b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        value[1] =
            __builtin_shufflevector((Vec<T>)a, (Vec<T>)b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
        return;
    }
#endif
    alignas(QS_VECTOR_BYTES) T lanes[F][LANES<T>];
    for (int lane = 0; lane < LANES<T>; ++lane)
        for (int f = 0; f < F; ++f) lanes[f][lane] = table[size_t(index[lane]) * F + f];
    for (int f = 0; f < F; ++f) value[f] = load(lanes[f]);
}

// rows[f][i] for one level, overwritten.
template <class T, int F>
void grid_level_forward(const GridLevel& level, const T* table, const T* const x[3], T* rows) {
    for (int i = 0; i < TILE; i += LANES<T>) {
        const Corners<T> c = corners_of(level, x, i);
        Vec<T> sum[F] = {}, value[F];
        for (int corner = 0; corner < 8; ++corner) {
            gather<T, F>(table, c.index[corner], value);
            const Vec<T> w = c.weight(corner);
            for (int f = 0; f < F; ++f) sum[f] += w * value[f];
        }
        for (int f = 0; f < F; ++f) store(rows + f * TILE + i, sum[f]);
    }
}

// grad_table[index * F + f] += weight * grad_rows[f] for the first `count` points of the tile. One thread owns the
// level.
template <class T, int F>
void grid_level_backward(const GridLevel& level, T* grad_table, const T* const x[3], const T* const grad_rows[F],
                         int count) {
    for (int i = 0; i < count; i += LANES<T>) {
        const Corners<T> c = corners_of(level, x, i);
        T weight[8][LANES<T>];
        for (int corner = 0; corner < 8; ++corner) store(weight[corner], c.weight(corner));
        const int lanes = count - i < LANES<T> ? count - i : LANES<T>;
        for (int lane = 0; lane < lanes; ++lane) {
            T g[F], any = 0;
            for (int f = 0; f < F; ++f) any += std::fabs(g[f] = grad_rows[f][i + lane]);
            if (any == 0) continue;  // samples without weight are common once the surface is sharp
            for (int corner = 0; corner < 8; ++corner) {
                T* entry = grad_table + size_t(c.index[corner][lane]) * F;
                for (int f = 0; f < F; ++f) entry[f] += weight[corner][lane] * g[f];
            }
        }
    }
}

// grad_x[d][i] += sum over features of grad_rows[f][i] * d rows[f] / d x[d].
template <class T, int F>
void grid_level_backward_input(const GridLevel& level, const T* table, const T* const x[3], const T* grad_rows,
                               T* const grad_x[3]) {
    for (int i = 0; i < TILE; i += LANES<T>) {
        const Corners<T> c = corners_of(level, x, i);
        Vec<T> sum[3] = {}, value[F];
        for (int corner = 0; corner < 8; ++corner) {
            gather<T, F>(table, c.index[corner], value);
            Vec<T> product{};
            for (int f = 0; f < F; ++f) product += value[f] * load(grad_rows + f * TILE + i);
            for (int d = 0; d < 3; ++d) sum[d] += product * c.weight_slope(corner, d);
        }
        for (int d = 0; d < 3; ++d) {
            const Vec<T> v = load(x[d] + i);
            const Vec<T> inside = (v >= T(0)) & (v <= T(1)) ? splat(T(level.scale)) : Vec<T>{};
            store(grad_x[d] + i, load(grad_x[d] + i) + sum[d] * inside);
        }
    }
}

// Calls fn(std::integral_constant-like F) for the feature counts that tables may have.
template <class Fn>
inline void with_features(int n_features, Fn&& fn) {
    switch (n_features) {
        case 1: fn(std::integral_constant<int, 1>()); break;
        case 2: fn(std::integral_constant<int, 2>()); break;
        case 4: fn(std::integral_constant<int, 4>()); break;
        default: fn(std::integral_constant<int, 8>()); break;
    }
}

// A value and its derivative by one input: forward-mode differentiation of the polynomials below.
template <class V>
struct Dual {
    V value, slope;
    friend Dual operator+(Dual a, Dual b) { return {a.value + b.value, a.slope + b.slope}; }
    friend Dual operator-(Dual a, Dual b) { return {a.value - b.value, a.slope - b.slope}; }
    friend Dual operator*(Dual a, Dual b) { return {a.value * b.value, a.slope * b.value + a.value * b.slope}; }
};

// Real spherical harmonics without the Condon-Shortley phase change of axes, bands 0 .. degree-1, degree <= 4:
// out[l * l + l + m]. N is a vector or a Dual of one; k(c) makes a constant of it.
template <class N, class K>
inline void spherical_harmonics(int degree, N x, N y, N z, K k, N* out) {
    out[0] = k(0.28209479177387814);
    if (degree < 2) return;
    out[1] = k(-0.48860251190291987) * y;
    out[2] = k(0.48860251190291987) * z;
    out[3] = k(-0.48860251190291987) * x;
    if (degree < 3) return;
    const N xx = x * x, yy = y * y, zz = z * z;
    out[4] = k(1.0925484305920792) * (x * y);
    out[5] = k(-1.0925484305920792) * (y * z);
    out[6] = k(0.94617469575755997) * zz - k(0.31539156525251999);
    out[7] = k(-1.0925484305920792) * (x * z);
    out[8] = k(0.54627421529603959) * (xx - yy);
    if (degree < 4) return;
    out[9] = k(0.59004358992664352) * (y * (yy - k(3) * xx));
    out[10] = k(2.8906114426405538) * (x * y * z);
    out[11] = k(0.45704579946446572) * (y * (k(1) - k(5) * zz));
    out[12] = k(0.3731763325901154) * (z * (k(5) * zz - k(3)));
    out[13] = k(0.45704579946446572) * (x * (k(1) - k(5) * zz));
    out[14] = k(1.4453057213202769) * (z * (xx - yy));
    out[15] = k(0.59004358992664352) * (x * (k(3) * yy - xx));
}

template <class T>
void spherical_harmonics_forward(int degree, const T* const x[3], T* rows) {
    for (int i = 0; i < TILE; i += LANES<T>) {
        Vec<T> direction[3], out[16];
        for (int d = 0; d < 3; ++d) direction[d] = load(x[d] + i) * T(2) - T(1);
        spherical_harmonics(
            degree, direction[0], direction[1], direction[2], [](double c) { return splat(T(c)); }, out);
        for (int r = 0; r < degree * degree; ++r) store(rows + r * TILE + i, out[r]);
    }
}

// grad_x[d][i] += sum over rows of grad_rows * d row / d x[d].
template <class T>
void spherical_harmonics_backward(int degree, const T* const x[3], const T* grad_rows, T* const grad_x[3]) {
    using N = Dual<Vec<T>>;
    for (int i = 0; i < TILE; i += LANES<T>)
        for (int axis = 0; axis < 3; ++axis) {
            N direction[3], out[16];
            for (int d = 0; d < 3; ++d) direction[d] = {load(x[d] + i) * T(2) - T(1), splat(T(d == axis ? 2 : 0))};
            spherical_harmonics(
                degree, direction[0], direction[1], direction[2], [](double c) { return N{splat(T(c)), Vec<T>{}}; },
                out);
            Vec<T> sum = load(grad_x[axis] + i);
            for (int r = 0; r < degree * degree; ++r) sum += out[r].slope * load(grad_rows + r * TILE + i);
            store(grad_x[axis] + i, sum);
        }
}

}  // namespace QS_ISA
}  // namespace quicksurf
