// Encoding and fully fused network in one pass over tiles of points.
//
//     forward   y = W_n f(... f(W_1 [enc(x), 1]))      hidden activations never leave the cache
//
// Threads take chunks of points; a chunk is encoded block by block, level by level, and a tile goes through all layers
// while it is in the first-level cache. backward.h has the gradients.
#pragma once

#include "encoding.h"
#include "gemm.h"
#include "thread_pool.h"
#include "tile.h"

namespace quicksurf {
namespace QS_ISA {

template <class T>
class FusedNetwork {
   public:
    FusedNetwork(const NetworkSpec& spec, const T* params, int n_active_levels)
        : spec_(spec), params_(params), n_active_(n_active_levels) {}

    struct TileScratch {
        Scratch<T> scratch;
        T *hidden[2], *output;
        explicit TileScratch(const NetworkSpec& s)
            : scratch(2 * s.width + s.n_output_padded),
              hidden{scratch.rows(s.width), scratch.rows(s.width)},
              output(scratch.rows(s.n_output_padded)) {}
    };

    // Inputs and encodings of several tiles.
    struct Block {
        const NetworkSpec& spec;
        Scratch<T> scratch;
        T* data;
        Block(const NetworkSpec& s, int n_tiles)
            : spec(s), scratch((s.n_input + s.n_encoded_padded) * n_tiles), data(scratch.rows(0)) {}
        T* input(int t) const { return data + t * (spec.n_input + spec.n_encoded_padded) * TILE; }
        T* encoded(int t) const { return input(t) + spec.n_input * TILE; }
    };

    // output[j][i] = feature-major [n_output][n]; saved[r][i] = grid features [n_saved][n], not written when null.
    void forward(Strided<const T> x, size_t n, T* output, T* saved) const {
        const Chunks chunks(n);
        parallel_for(chunks.count(), [&](size_t chunk) {
            TileScratch scratch(spec_);
            Block block(spec_, BLOCK_TILES);
            for (size_t first = chunks.begin(chunk); first < chunks.end(chunk); first += BLOCK)
                forward_block(x, n, first, std::min<size_t>(BLOCK, chunks.end(chunk) - first), block, scratch, output,
                              saved);
        });
    }

    // The block's inputs through all encodings.
    void encode(const Block& block, int n_tiles) const {
        for (const EncodingPart& part : spec_.parts) {
            if (part.kind == EncodingKind::grid) {
                encode_grid(part, block, n_tiles);
                continue;
            }
            for (int t = 0; t < n_tiles; ++t) encode_pointwise(part, block.input(t), block.encoded(t));
        }
        for (int t = 0; t < n_tiles; ++t) pad(block.encoded(t));
    }

    // The first n_rows outputs of an encoded tile; returns where they are.
    const T* network_forward(const T* encoded, TileScratch& scratch, int n_rows) const {
        const T* y = encoded;
        for (int layer = 0; layer < spec_.n_hidden_layers; ++layer) {
            hidden_layer(layer, y, scratch.hidden[layer & 1]);
            y = scratch.hidden[layer & 1];
        }
        if (!spec_.has_network()) return y;
        output_layer(y, scratch.output, n_rows);
        return scratch.output;
    }

   protected:
    static T* rows_of(const EncodingPart& part, T* encoded) { return encoded + part.row_begin * TILE; }

    template <class P>
    static P* table_of(P* params, const EncodingPart& part, size_t level) {
        return params + part.table_offset + part.levels[level].offset * part.n_features;
    }

    const T* weights(int layer) const { return params_ + spec_.layer_offset(layer); }

    // Identity and spherical harmonics.
    static void encode_pointwise(const EncodingPart& part, const T* input, T* encoded) {
        const T* from = input + part.input_begin * TILE;
        const T* const x[3] = {from, from + TILE, from + 2 * TILE};
        if (part.kind == EncodingKind::identity)
            std::memcpy(rows_of(part, encoded), from, part.n_rows * TILE * sizeof(T));
        else
            spherical_harmonics_forward(part.degree, x, rows_of(part, encoded));
    }

    // The rows behind the encoding are ones: the first layer's biases.
    void pad(T* encoded) const {
        std::fill(encoded + spec_.n_encoded * TILE, encoded + spec_.n_encoded_padded * TILE, T(1));
    }

    void hidden_layer(int layer, const T* in, T* out) const {
        const int k = spec_.layer_inputs(layer);
        if (spec_.hidden_activation == Activation::relu) {
            gemm<T, Epilogue::relu>(spec_.width, TILE, k, weights(layer), k, 1, in, TILE, out, TILE);
        } else {
            gemm<T, Epilogue::store>(spec_.width, TILE, k, weights(layer), k, 1, in, TILE, out, TILE);
            activate(spec_.hidden_activation, out, spec_.width);
        }
    }

    void output_layer(const T* in, T* out, int n_rows) const {
        const int layer = spec_.n_hidden_layers, k = spec_.layer_inputs(layer);
        gemm<T, Epilogue::store>(n_rows, TILE, k, weights(layer), k, 1, in, TILE, out, TILE);
        activate(spec_.output_activation, out, n_rows);
    }

    const NetworkSpec& spec_;
    const T* params_;
    int n_active_;

   private:
    void forward_block(Strided<const T> x, size_t n, size_t first, size_t n_points, const Block& block,
                       TileScratch& scratch, T* output, T* saved) const {
        const int n_tiles = int((n_points + TILE - 1) / TILE);
        const auto count = [&](int t) { return int(std::min<size_t>(TILE, n_points - t * TILE)); };
        for (int t = 0; t < n_tiles; ++t) load_tile(x, first + t * TILE, count(t), spec_.n_input, block.input(t));
        encode(block, n_tiles);
        for (int t = 0; t < n_tiles; ++t) {
            const size_t at = first + t * TILE;
            const T* y = network_forward(block.encoded(t), scratch, spec_.n_output);
            for (int j = 0; j < spec_.n_output; ++j)
                std::memcpy(output + j * n + at, y + j * TILE, count(t) * sizeof(T));
            if (saved) save(block.encoded(t), saved, n, at, count(t));
        }
    }

    void encode_grid(const EncodingPart& part, const Block& block, int n_tiles) const {
        with_features(part.n_features, [&](auto f) {
            constexpr int F = decltype(f)::value;
            for (size_t l = 0; l < part.levels.size(); ++l)
                for (int t = 0; t < n_tiles; ++t) {
                    const T* from = block.input(t) + part.input_begin * TILE;
                    const T* const x[3] = {from, from + TILE, from + 2 * TILE};
                    T* rows = rows_of(part, block.encoded(t)) + l * F * TILE;
                    if (int(l) < n_active_)
                        grid_level_forward<T, F>(part.levels[l], table_of(params_, part, l), x, rows);
                    else
                        std::memset(rows, 0, F * TILE * sizeof(T));
                }
        });
    }

    void save(const T* encoded, T* saved, size_t n, size_t first, int count) const {
        for (const EncodingPart& part : spec_.parts)
            if (part.kind == EncodingKind::grid)
                for (int r = 0; r < part.n_rows; ++r)
                    std::memcpy(saved + (part.saved_begin + r) * n + first, encoded + (part.row_begin + r) * TILE,
                                count * sizeof(T));
    }
};

}  // namespace QS_ISA
}  // namespace quicksurf
