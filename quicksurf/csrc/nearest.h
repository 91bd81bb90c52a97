// For each descriptor of one image the most similar of another and how similar the second is, in both directions at
// once: the kernel below match.h, compiled once per instruction set (nearest.cpp).
//
// With d_ij = sum_k a_ik b_jk, an exact integer below 2^23, and r the inverse norms in float32:
//
//     row i:     best and second largest of  y_ij = float(d_ij) * r_j  over all j   (as the cosine, but for r_i)
//     column j:  best and second largest of  z_ij = float(d_ij) * r_i  over the rows given
//
// Each product is rounded once, so every instruction set gives the same bits. Equal values count twice: best = second.
#pragma once

#include <cstddef>
#include <cstdint>

namespace quicksurf {

constexpr int DESCRIPTOR_SIZE = 128;
// Descriptors are padded to a multiple of this: every kernel's blocks of rows and columns divide it.
constexpr size_t DESCRIPTOR_PADDING = 96;

inline size_t padded(size_t n) { return (n + DESCRIPTOR_PADDING - 1) / DESCRIPTOR_PADDING * DESCRIPTOR_PADDING; }

struct Descriptors {
    size_t n;
    const uint8_t* values;       // [n][DESCRIPTOR_SIZE]
    const float* inverse_norms;  // [padded(n)], 0 for descriptors of zeros and beyond n
    const uint32_t* packed;      // [padded(n)][n_words], see pack
};

struct NearestKernel {
    size_t n_words;                      // of a packed descriptor
    size_t n_candidates, candidate_step;  // which columns a row's candidate stands for
    // `values` [n][DESCRIPTOR_SIZE] in the order in which the products read columns; overwrites packed
    // [padded(n)][n_words].
    void (*pack)(const uint8_t* values, size_t n, uint32_t* packed);
    // Rows begin .. end-1 of `first`, begin a multiple of DESCRIPTOR_PADDING, against all columns of `second`.
    // best, second [end - begin] are overwritten; row i's best is at a column candidate[i] + c * candidate_step,
    // c < n_candidates. column_best, column_second [padded(second.n)] are added to: zero before the first rows.
    // One thread; 0 stands for no similar descriptor.
    void (*find)(const Descriptors& first, size_t begin, size_t end, const Descriptors& second, float* best,
                 float* second_best, int32_t* candidate, float* column_best, float* column_second);
};

// Of the chosen instruction set; see kernels.h.
const NearestKernel& nearest_kernel();

}  // namespace quicksurf
