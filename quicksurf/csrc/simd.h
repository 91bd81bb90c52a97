// Vectors of the instruction set this file is compiled for. Included inside one namespace per instruction set, so
// that no inline function compiled with wide instructions can be picked by the linker for a narrow machine.
//
// Notation: a Vec<T> holds LANES<T> values of T, one point a lane.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#if defined(__AVX512F__) || defined(__SSE2__)
#include <immintrin.h>
#endif

#if defined(__AVX512F__)
#define QS_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define QS_VECTOR_BYTES 32
#else
#define QS_VECTOR_BYTES 16
#endif

namespace quicksurf {
namespace QS_ISA {

template <class T>
struct VecOf {
    typedef T type __attribute__((vector_size(QS_VECTOR_BYTES)));
    typedef T unaligned __attribute__((vector_size(QS_VECTOR_BYTES), aligned(sizeof(T)), may_alias));
    static constexpr int lanes = QS_VECTOR_BYTES / sizeof(T);
    typedef uint32_t index __attribute__((vector_size(lanes * sizeof(uint32_t))));
};
template <class T>
using Vec = typename VecOf<T>::type;
template <class T>
using IndexVec = typename VecOf<T>::index;  // one 32-bit index per lane
template <class T>
constexpr int LANES = VecOf<T>::lanes;

template <class T>
inline Vec<T> load(const T* p) {
    return *reinterpret_cast<const typename VecOf<T>::unaligned*>(p);
}
template <class T>
inline void store(T* p, Vec<T> v) {
    *reinterpret_cast<typename VecOf<T>::unaligned*>(p) = v;
}
template <class T>
inline Vec<T> splat(T x) {
    return Vec<T>{} + x;
}
// a > b ? a : b, lane by lane; a NaN in `a` gives b.
template <class T>
inline Vec<T> vmax(Vec<T> a, Vec<T> b) {
    return a > b ? a : b;
}
template <class T>
inline Vec<T> vmin(Vec<T> a, Vec<T> b) {
    return a < b ? a : b;
}

// e^x. float: Cody-Waite reduction and a degree-6 polynomial, relative error below 2e-7; arguments are clamped to
// the range whose result is a normal number. double: the standard library, for gradient checks only.
inline Vec<float> vexp(Vec<float> x) {
    using V = Vec<float>;
    x = vmin<float>(vmax<float>(x, splat(-87.0f)), splat(88.0f));
    const V shifted = x * 1.44269504f + 12582912.0f;  // adding 1.5 * 2^23 rounds to the nearest integer
    const V n = shifted - 12582912.0f;
    const V r = x - n * 0.693145752f - n * 1.42860677e-6f;
    V p = splat(1.0f / 720);
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    typedef int32_t I __attribute__((vector_size(QS_VECTOR_BYTES)));
    const I power = (__builtin_convertvector(n, I) + 127) << 23;
    return p * (V)power;
}
inline Vec<double> vexp(Vec<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = std::exp(x[i]);
    return x;
}

// log(1 + e) for e in [0, 1]. float: 2 atanh(r) by its series in r = e / (2 + e) <= 1/3, relative error below 2e-7.
inline Vec<float> vlog1p(Vec<float> e) {
    const Vec<float> r = e / (2 + e), q = r * r;
    Vec<float> p = splat(2.0f / 13);
    p = p * q + 2.0f / 11;
    p = p * q + 2.0f / 9;
    p = p * q + 2.0f / 7;
    p = p * q + 2.0f / 5;
    p = p * q + 2.0f / 3;
    p = p * q + 2.0f;
    return p * r;
}
inline Vec<double> vlog1p(Vec<double> e) {
    for (int i = 0; i < LANES<double>; ++i) e[i] = std::log1p(e[i]);
    return e;
}

// The perfect shuffle of a and b: low half (a0 b0 a1 b1 ...) and high half.
template <class T>
inline void zip(Vec<T> a, Vec<T> b, Vec<T>& low, Vec<T>& high) {
    if constexpr (LANES<T> == 16) {
        low = __builtin_shufflevector(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
        high = __builtin_shufflevector(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    } else if constexpr (LANES<T> == 8) {
        low = __builtin_shufflevector(a, b, 0, 8, 1, 9, 2, 10, 3, 11);
        high = __builtin_shufflevector(a, b, 4, 12, 5, 13, 6, 14, 7, 15);
    } else if constexpr (LANES<T> == 4) {
        low = __builtin_shufflevector(a, b, 0, 4, 1, 5);
        high = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    } else {
        low = __builtin_shufflevector(a, b, 0, 2);
        high = __builtin_shufflevector(a, b, 1, 3);
    }
}

// to[c * to_stride + r] = from[r * from_stride + c] for one LANES x LANES block: log2(LANES) perfect shuffles.
template <class T>
inline void transpose_block(const T* from, ptrdiff_t from_stride, T* to, ptrdiff_t to_stride) {
    constexpr int L = LANES<T>;
    Vec<T> rows[L], next[L];
    for (int i = 0; i < L; ++i) rows[i] = load(from + i * from_stride);
    for (int round = 1; round < L; round *= 2) {
        for (int i = 0; i < L / 2; ++i) zip<T>(rows[i], rows[i + L / 2], next[2 * i], next[2 * i + 1]);
        for (int i = 0; i < L; ++i) rows[i] = next[i];
    }
    for (int i = 0; i < L; ++i) store(to + i * to_stride, rows[i]);
}

}  // namespace QS_ISA
}  // namespace quicksurf
