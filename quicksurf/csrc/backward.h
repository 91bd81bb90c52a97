// Gradients of the fused network: by its parameters and by its inputs.
//
// Points whose output gradient is zero are left out: behind an opaque surface that is most of them. The others are
// packed into tiles; hidden activations are recomputed from the saved grid features, which is cheaper than to store and
// read them.
//
// Weight gradients are summed per chunk and the chunks added in order; the gradient of a grid level is scattered by the
// one thread that owns the level, after all tiles: no atomics, and the same bits for any number of threads. A call's
// workspace is bounded by MAX_CHUNKS copies of the weights and tiles of the widest layer for every thread.
#pragma once

#include <vector>

#include "network.h"

namespace quicksurf {
namespace QS_ISA {

// The points with a gradient; chunk c lists its own, in order, from points[chunks.begin(c)] on.
struct ActivePoints {
    Chunks chunks;
    std::vector<uint32_t> points;
    std::vector<int> counts;
    explicit ActivePoints(size_t n) : chunks(n), points(n), counts(chunks.count()) {}
};

template <class T>
class FusedBackward : FusedNetwork<T> {
   public:
    using FusedNetwork<T>::FusedNetwork;

    // grad_output: [n_output][n] feature-major. grad_params (overwritten) and grad_x ([n_input][n], overwritten) may be
    // null; saved as forward left it; grad_saved is workspace of the same shape, needed with grad_params.
    void backward(Strided<const T> x, size_t n, const T* saved, const T* grad_output, T* grad_params, T* grad_x,
                  T* grad_saved) const {
        ActivePoints active(n);
        const Chunks& chunks = active.chunks;
        const size_t n_weights = spec_.n_network_params;
        std::vector<T> partial(grad_params ? chunks.count() * n_weights : 0, T(0));
        if (grad_x) std::memset(grad_x, 0, n * spec_.n_input * sizeof(T));
        parallel_for(chunks.count(), [&](size_t chunk) {
            T* grad_weights = grad_params ? partial.data() + chunk * n_weights : nullptr;
            const size_t begin = chunks.begin(chunk);
            const uint32_t* points = active.points.data() + begin;
            active.counts[chunk] = find_active(grad_output, n, begin, chunks.end(chunk), active.points.data() + begin);
            BackwardTile tile(spec_);
            for (int first = 0; first < active.counts[chunk]; first += TILE) {
                const int count = std::min(TILE, active.counts[chunk] - first);
                load(tile, x, n, saved, grad_output, points + first, count);
                const T* grad_encoded = network_backward(tile, grad_weights);
                if (grad_params) save_gradient(grad_encoded, grad_saved, n, begin + first, count);
                if (grad_x) input_backward(tile, grad_encoded, grad_x, n, points + first, count);
            }
        });
        if (!grad_params) return;
        add_chunks(partial, chunks.count(), grad_params);
        scatter_levels(x, active, grad_saved, grad_params);
    }

   private:
    using FusedNetwork<T>::spec_;
    using FusedNetwork<T>::params_;
    using FusedNetwork<T>::n_active_;
    using FusedNetwork<T>::rows_of;
    using FusedNetwork<T>::table_of;
    using FusedNetwork<T>::weights;

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

    // Lists the points of [begin, end) with any gradient that is not 0; NaN counts as one.
    int find_active(const T* grad_output, size_t n, size_t begin, size_t end, uint32_t* points) const {
        int n_points = 0;
        for (size_t first = begin; first < end; first += TILE) {
            T sum[TILE] = {};
            const int count = int(std::min<size_t>(TILE, end - first));
            for (int j = 0; j < spec_.n_output; ++j)
                for (int i = 0; i < count; ++i) sum[i] += std::fabs(grad_output[j * n + first + i]);
            for (int i = 0; i < count; ++i)
                if (!(sum[i] == 0)) points[n_points++] = uint32_t(first + i);
        }
        return n_points;
    }

    // Inputs, encodings and output gradients of the listed points.
    void load(BackwardTile& tile, Strided<const T> x, size_t n, const T* saved, const T* grad_output,
              const uint32_t* points, int count) const {
        gather_tile(x, points, count, spec_.n_input, tile.input);
        gather_tile<T>({grad_output, 1, ptrdiff_t(n)}, points, count, spec_.n_output, tile.grad_output);
        for (const EncodingPart& part : spec_.parts)
            if (part.kind == EncodingKind::grid)
                gather_tile<T>({saved + part.saved_begin * n, 1, ptrdiff_t(n)}, points, count, part.n_rows,
                               rows_of(part, tile.encoded));
            else
                this->encode_pointwise(part, tile.input, tile.encoded);
        this->pad(tile.encoded);
    }

    // Returns the gradient by the encoding's rows; adds to grad_weights unless it is null.
    const T* network_backward(BackwardTile& tile, T* grad_weights) const {
        if (!spec_.has_network()) return tile.grad_output;
        const int n_hidden = spec_.n_hidden_layers;
        for (int layer = 0; layer < n_hidden; ++layer)
            this->hidden_layer(layer, layer == 0 ? tile.encoded : tile.hidden[layer - 1], tile.hidden[layer]);
        if (spec_.output_activation != Activation::none) {
            this->output_layer(tile.hidden[n_hidden - 1], tile.output, spec_.n_output);
            activate_backward(spec_.output_activation, tile.output, tile.grad_output, spec_.n_output);
        }
        T* grad = tile.grad_output;
        for (int layer = n_hidden; layer >= 0; --layer) {
            const T* in = layer == 0 ? tile.encoded : tile.hidden[layer - 1];
            const int k = spec_.layer_inputs(layer), m = layer == n_hidden ? spec_.n_output : spec_.width;
            if (grad_weights)
                weights_backward(m, k, grad, in, tile.transposed, grad_weights + spec_.layer_offset(layer));
            T* grad_in = tile.grads[layer & 1];
            gemm<T, Epilogue::store>(k, TILE, m, weights(layer), 1, k, grad, TILE, grad_in, TILE);
            if (layer > 0) activate_backward(spec_.hidden_activation, in, grad_in, k);
            grad = grad_in;
        }
        return grad;
    }

    // grad_weights[m][k] += grad[m][TILE] in[k][TILE]^T.
    static void weights_backward(int m, int k, const T* grad, const T* in, T* transposed, T* grad_weights) {
        for (int r = 0; r < k; r += LANES<T>)
            for (int i = 0; i < TILE; i += LANES<T>)
                transpose_block(in + r * TILE + i, TILE, transposed + i * k + r, k);
        gemm<T, Epilogue::accumulate>(m, k, TILE, grad, TILE, 1, transposed, k, grad_weights, k);
    }

    void input_backward(BackwardTile& tile, const T* grad_encoded, T* grad_x, size_t n, const uint32_t* points,
                        int count) const {
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
            for (int i = 0; i < count; ++i) grad_x[d * n + points[i]] = tile.grad_input[d * TILE + i];
    }

    // Grid rows of the gradient by the encoding, packed like the list of points.
    void save_gradient(const T* grad_encoded, T* grad_saved, size_t n, size_t at, int count) const {
        for (const EncodingPart& part : spec_.parts)
            if (part.kind == EncodingKind::grid)
                for (int r = 0; r < part.n_rows; ++r)
                    std::memcpy(grad_saved + (part.saved_begin + r) * n + at,
                                grad_encoded + (part.row_begin + r) * TILE, count * sizeof(T));
    }

    static constexpr size_t SUM_BLOCK = 1024;

    void add_chunks(const std::vector<T>& partial, size_t n_chunks, T* grad_weights) const {
        const size_t n_weights = spec_.n_network_params;
        parallel_for((n_weights + SUM_BLOCK - 1) / SUM_BLOCK, [&](size_t block) {
            const size_t end = std::min(n_weights, (block + 1) * SUM_BLOCK);
            for (size_t i = block * SUM_BLOCK; i < end; ++i) {
                T sum = 0;
                for (size_t chunk = 0; chunk < n_chunks; ++chunk) sum += partial[chunk * n_weights + i];
                grad_weights[i] = sum;
            }
        });
    }

    // The tables' part of grad_params, overwritten: one task a level, finest (slowest) first.
    void scatter_levels(Strided<const T> x, const ActivePoints& active, const T* grad_saved, T* grad_params) const {
        for (const EncodingPart& part : spec_.parts) {
            if (part.kind != EncodingKind::grid) continue;
            parallel_for(part.levels.size(), [&](size_t task) {
                const size_t l = part.levels.size() - 1 - task;
                T* grad_table = table_of(grad_params, part, l);
                std::memset(grad_table, 0, size_t(part.levels[l].size) * part.n_features * sizeof(T));
                if (int(l) >= n_active_) return;
                with_features(part.n_features, [&](auto f) {
                    scatter_level<decltype(f)::value>(part, l, x, active, grad_saved, grad_table);
                });
            });
        }
    }

    template <int F>
    static void scatter_level(const EncodingPart& part, size_t l, Strided<const T> x, const ActivePoints& active,
                              const T* grad_saved, T* grad_table) {
        const size_t n = active.points.size();
        alignas(64) T tile[3 * TILE];
        const T* const rows[3] = {tile, tile + TILE, tile + 2 * TILE};
        const Strided<const T> position{x.data + part.input_begin * x.dim_stride, x.point_stride, x.dim_stride};
        for (size_t chunk = 0; chunk < active.chunks.count(); ++chunk) {
            const size_t begin = active.chunks.begin(chunk);
            for (int first = 0; first < active.counts[chunk]; first += TILE) {
                const int count = std::min(TILE, active.counts[chunk] - first);
                gather_tile(position, active.points.data() + begin + first, count, 3, tile);
                const T* grad_rows[F];
                for (int f = 0; f < F; ++f)
                    grad_rows[f] = grad_saved + (part.saved_begin + l * F + f) * n + begin + first;
                grid_level_backward<T, F>(part.levels[l], grad_table, rows, grad_rows, count);
            }
        }
    }
};

}  // namespace QS_ISA
}  // namespace quicksurf
