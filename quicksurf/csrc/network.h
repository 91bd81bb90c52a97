// Encoding and fully fused network in one pass over tiles of points.
//
//     forward   y = W_n f(... f(W_1 [enc(x), 1]))      hidden activations never leave the cache
//     backward  recomputes them from the saved grid features, which is cheaper than to store and read them
//
// Threads take chunks of points. Weight gradients are summed per chunk and the chunks added in order; the gradient of
// a grid level is scattered by the one thread that owns the level, after all tiles: no atomics, and the same bits for
// any number of threads. A call's workspace is bounded by MAX_CHUNKS copies of the weights and TILE rows a thread.
#pragma once

#include <algorithm>
#include <memory>
#include <type_traits>
#include <vector>

#include "encoding.h"
#include "gemm.h"
#include "thread_pool.h"

namespace quicksurf {
namespace QS_ISA {

constexpr size_t MAX_CHUNKS = 32, MIN_CHUNK = 1024;

// Points are cut into chunks of whole tiles; the cut depends on n alone.
struct Chunks {
    size_t n, size;
    explicit Chunks(size_t n_points) : n(n_points) {
        size = std::max(MIN_CHUNK, (n + MAX_CHUNKS - 1) / MAX_CHUNKS);
        size = (size + TILE - 1) / TILE * TILE;
    }
    size_t count() const { return (n + size - 1) / size; }
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

template <class T>
class FusedNetwork {
   public:
    FusedNetwork(const NetworkSpec& spec, const T* params, int n_active_levels)
        : spec_(spec), params_(params), n_active_(n_active_levels) {}

    // output[j][i] = feature-major [n_output][n]; saved[r][i] = grid features [n_saved][n], not written when null.
    void forward(Strided<const T> x, size_t n, T* output, T* saved) const {
        const Chunks chunks(n);
        parallel_for(chunks.count(), [&](size_t chunk) {
            TileScratch tile(spec_);
            for_tiles(chunks, chunk, [&](size_t first, int count) {
                load_tile(x, first, count, spec_.n_input, tile.input);
                const T* y = forward_tile(tile, spec_.n_output);
                if (saved) store_saved(tile.encoded, saved, n, first, count);
                for (int j = 0; j < spec_.n_output; ++j)
                    std::memcpy(output + j * n + first, y + j * TILE, count * sizeof(T));
            });
        });
    }

    // grad_output: [n_output][n] feature-major. grad_params (overwritten) and grad_x ([n_input][n], overwritten) may be
    // null; saved as forward left it; grad_saved is workspace of the same shape, needed with grad_params.
    void backward(Strided<const T> x, size_t n, const T* saved, const T* grad_output, T* grad_params, T* grad_x,
                  T* grad_saved) const {
        const Chunks chunks(n);
        const size_t n_weights = spec_.n_network_params;
        std::vector<T> partial(grad_params ? chunks.count() * n_weights : 0, T(0));
        parallel_for(chunks.count(), [&](size_t chunk) {
            T* grad_weights = grad_params ? partial.data() + chunk * n_weights : nullptr;
            BackwardTile tile(spec_);
            for_tiles(chunks, chunk, [&](size_t first, int count) {
                load_tile(x, first, count, spec_.n_input, tile.input);
                encode(tile.input, tile.encoded, saved, n, first, count);
                for (int j = 0; j < spec_.n_output; ++j) {
                    T* row = tile.grad_output + j * TILE;
                    std::memcpy(row, grad_output + j * n + first, count * sizeof(T));
                    std::memset(row + count, 0, (TILE - count) * sizeof(T));
                }
                T* grad_encoded = network_backward(tile, grad_weights);
                if (grad_params) store_saved(grad_encoded, grad_saved, n, first, count);
                if (grad_x) input_backward(tile, grad_encoded, grad_x, n, first, count);
            });
        });
        if (!grad_params) return;
        parallel_for(1 + n_weights / 1024, [&](size_t block) {
            const size_t end = std::min(n_weights, (block + 1) * 1024);
            for (size_t i = block * 1024; i < end; ++i) {
                T sum = 0;
                for (size_t chunk = 0; chunk < chunks.count(); ++chunk) sum += partial[chunk * n_weights + i];
                grad_params[i] = sum;
            }
        });
        scatter_levels(x, n, grad_saved, grad_params);
    }

    struct TileScratch {
        Scratch<T> scratch;
        T *input, *encoded, *hidden[2], *output;
        explicit TileScratch(const NetworkSpec& s)
            : scratch(s.n_input + s.n_encoded_padded + 2 * s.width + s.n_output_padded),
              input(scratch.rows(s.n_input)),
              encoded(scratch.rows(s.n_encoded_padded)),
              hidden{scratch.rows(s.width), scratch.rows(s.width)},
              output(scratch.rows(s.n_output_padded)) {}
    };

    // The first n_rows outputs of the tile in `tile.input`; returns where they are.
    const T* forward_tile(TileScratch& tile, int n_rows) const {
        encode(tile.input, tile.encoded, nullptr, 0, 0);
        const T* y = tile.encoded;
        for (int layer = 0; layer < spec_.n_hidden_layers; ++layer) {
            hidden_layer(layer, y, tile.hidden[layer & 1]);
            y = tile.hidden[layer & 1];
        }
        if (!spec_.has_network()) return y;
        output_layer(y, tile.output, n_rows);
        return tile.output;
    }

   private:
    struct BackwardTile {
        Scratch<T> scratch;
        T *input, *encoded, *grad_output, *output, *transposed, *grads[2], *grad_input;
        std::vector<T*> hidden;
        explicit BackwardTile(const NetworkSpec& s)
            : scratch(2 * s.n_input + 2 * s.n_output_padded + s.n_encoded_padded +
                      std::max(s.width, s.n_encoded_padded) * 3 + s.width * s.n_hidden_layers) {
            const int widest = std::max(s.width, s.n_encoded_padded);
            input = scratch.rows(s.n_input);
            grad_input = scratch.rows(s.n_input);
            encoded = scratch.rows(s.n_encoded_padded);
            grad_output = scratch.rows(s.n_output_padded);
            output = scratch.rows(s.n_output_padded);
            transposed = scratch.rows(widest);
            grads[0] = scratch.rows(widest);
            grads[1] = scratch.rows(widest);
            for (int i = 0; i < s.n_hidden_layers; ++i) hidden.push_back(scratch.rows(s.width));
        }
    };

    template <class Fn>
    void for_tiles(const Chunks& chunks, size_t chunk, Fn&& fn) const {
        const size_t end = std::min(chunks.n, (chunk + 1) * chunks.size);
        for (size_t first = chunk * chunks.size; first < end; first += TILE)
            fn(first, static_cast<int>(std::min<size_t>(TILE, end - first)));
    }

    const T* weights(int layer) const { return params_ + spec_.layer_offset(layer); }

    // encoded[n_encoded_padded][TILE]; grid rows are read from `saved` when it is given instead of being recomputed.
    void encode(const T* input, T* encoded, const T* saved, size_t n, size_t first, int count = TILE) const {
        for (const EncodingPart& part : spec_.parts) {
            T* rows = encoded + part.row_begin * TILE;
            const T* from = input + part.input_begin * TILE;
            const T* const x[3] = {from, from + TILE, from + 2 * TILE};
            if (part.kind == EncodingKind::identity)
                std::memcpy(rows, from, part.n_rows * TILE * sizeof(T));
            else if (part.kind == EncodingKind::spherical_harmonics)
                spherical_harmonics_forward(part.degree, x, rows);
            else if (saved)
                load_tile<T>({saved + part.saved_begin * n, 1, ptrdiff_t(n)}, first, count, part.n_rows, rows);
            else
                grid_forward(part, x, rows);
        }
        for (T* p = encoded + spec_.n_encoded * TILE; p < encoded + spec_.n_encoded_padded * TILE; ++p) *p = 1;
    }

    void grid_forward(const EncodingPart& part, const T* const x[3], T* rows) const {
        with_features(part.n_features, [&](auto f) {
            constexpr int F = decltype(f)::value;
            for (size_t l = 0; l < part.levels.size(); ++l, rows += F * TILE)
                if (int(l) < n_active_)
                    grid_level_forward<T, F>(part.levels[l], table_of(params_, part, l), x, rows);
                else
                    std::memset(rows, 0, F * TILE * sizeof(T));
        });
    }

    template <class P>
    static P* table_of(P* params, const EncodingPart& part, size_t level) {
        return params + part.table_offset + part.levels[level].offset * part.n_features;
    }

    void store_saved(const T* encoded, T* saved, size_t n, size_t first, int count) const {
        for (const EncodingPart& part : spec_.parts)
            if (part.kind == EncodingKind::grid)
                for (int r = 0; r < part.n_rows; ++r)
                    std::memcpy(saved + (part.saved_begin + r) * n + first, encoded + (part.row_begin + r) * TILE,
                                count * sizeof(T));
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

    // Returns the gradient by the encoding's rows; adds to grad_weights unless it is null.
    T* network_backward(BackwardTile& tile, T* grad_weights) const {
        if (!spec_.has_network()) return tile.grad_output;
        const int n_hidden = spec_.n_hidden_layers;
        for (int layer = 0; layer < n_hidden; ++layer)
            hidden_layer(layer, layer == 0 ? tile.encoded : tile.hidden[layer - 1], tile.hidden[layer]);
        if (spec_.output_activation != Activation::none) {
            output_layer(tile.hidden[n_hidden - 1], tile.output, spec_.n_output);
            activate_backward(spec_.output_activation, tile.output, tile.grad_output, spec_.n_output);
        }
        T* grad = tile.grad_output;
        for (int layer = n_hidden; layer >= 0; --layer) {
            const T* in = layer == 0 ? tile.encoded : tile.hidden[layer - 1];
            const int k = spec_.layer_inputs(layer), m = layer == n_hidden ? spec_.n_output : spec_.width;
            if (grad_weights) {
                for (int r = 0; r < k; r += LANES<T>)
                    for (int i = 0; i < TILE; i += LANES<T>)
                        transpose_block(in + r * TILE + i, TILE, tile.transposed + i * k + r, k);
                gemm<T, Epilogue::accumulate>(m, k, TILE, grad, TILE, 1, tile.transposed, k,
                                              grad_weights + spec_.layer_offset(layer), k);
            }
            T* grad_in = tile.grads[layer & 1];
            gemm<T, Epilogue::store>(k, TILE, m, weights(layer), 1, k, grad, TILE, grad_in, TILE);
            if (layer > 0) activate_backward(spec_.hidden_activation, in, grad_in, k);
            grad = grad_in;
        }
        return grad;
    }

    void input_backward(BackwardTile& tile, const T* grad_encoded, T* grad_x, size_t n, size_t first, int count) const {
        std::memset(tile.grad_input, 0, spec_.n_input * TILE * sizeof(T));
        for (const EncodingPart& part : spec_.parts) {
            const T* grad_rows = grad_encoded + part.row_begin * TILE;
            const T* from = tile.input + part.input_begin * TILE;
            T* to = tile.grad_input + part.input_begin * TILE;
            const T* const x[3] = {from, from + TILE, from + 2 * TILE};
            T* const g[3] = {to, to + TILE, to + 2 * TILE};
            if (part.kind == EncodingKind::identity)
                for (int i = 0; i < part.n_rows * TILE; ++i) to[i] += grad_rows[i];
            else if (part.kind == EncodingKind::spherical_harmonics)
                spherical_harmonics_backward(part.degree, x, grad_rows, g);
            else
                with_features(part.n_features, [&](auto f) {
                    constexpr int F = decltype(f)::value;
                    for (int l = 0; l < std::min<int>(n_active_, part.levels.size()); ++l)
                        grid_level_backward_input<T, F>(part.levels[l], table_of(params_, part, l), x,
                                                        grad_rows + l * F * TILE, g);
                });
        }
        for (int d = 0; d < spec_.n_input; ++d)
            std::memcpy(grad_x + d * n + first, tile.grad_input + d * TILE, count * sizeof(T));
    }

    // The tables' part of grad_params, overwritten: one task a level, finest (slowest) first.
    void scatter_levels(Strided<const T> x, size_t n, const T* grad_saved, T* grad_params) const {
        for (const EncodingPart& part : spec_.parts) {
            if (part.kind != EncodingKind::grid) continue;
            parallel_for(part.levels.size(), [&](size_t task) {
                const size_t l = part.levels.size() - 1 - task;
                T* grad_table = table_of(grad_params, part, l);
                std::memset(grad_table, 0, size_t(part.levels[l].size) * part.n_features * sizeof(T));
                if (int(l) >= n_active_) return;
                with_features(part.n_features, [&](auto f) {
                    scatter_level<T, decltype(f)::value>(part, l, x, n, grad_saved, grad_table);
                });
            });
        }
    }

    template <class U, int F>
    static void scatter_level(const EncodingPart& part, size_t l, Strided<const U> x, size_t n, const U* grad_saved,
                              U* grad_table) {
        alignas(64) U tile[3 * TILE];
        const U* const rows[3] = {tile, tile + TILE, tile + 2 * TILE};
        const Strided<const U> position{x.data + part.input_begin * x.dim_stride, x.point_stride, x.dim_stride};
        for (size_t first = 0; first < n; first += TILE) {
            const int count = static_cast<int>(std::min<size_t>(TILE, n - first));
            load_tile(position, first, count, 3, tile);
            const U* grad_rows[F];
            for (int f = 0; f < F; ++f) grad_rows[f] = grad_saved + (part.saved_begin + l * F + f) * n + first;
            grid_level_backward<U, F>(part.levels[l], grad_table, rows, grad_rows, count);
        }
    }

    const NetworkSpec& spec_;
    const T* params_;
    int n_active_;
};

}  // namespace QS_ISA
}  // namespace quicksurf
