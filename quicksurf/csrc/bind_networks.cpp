#include <memory>

#include "bindings.h"
#include "kernels.h"

namespace quicksurf {

namespace {

Activation activation(const std::string& name) {
    if (name == "None") return Activation::none;
    if (name == "ReLU") return Activation::relu;
    if (name == "Softplus") return Activation::softplus;
    if (name == "Sigmoid") return Activation::sigmoid;
    throw std::invalid_argument("activation '" + name + "' is unknown: choose None, ReLU, Softplus or Sigmoid");
}

int padded(int n) { return (n + 15) / 16 * 16; }

struct PartSpec {
    std::string kind;
    int input_begin, n_dims, degree, n_features;
    std::vector<std::tuple<double, uint32_t, uint32_t, bool>> levels;  // scale, resolution, size, hashed
};

EncodingPart make_part(const PartSpec& from, NetworkSpec& spec, size_t& n_table) {
    EncodingPart part{};
    part.input_begin = from.input_begin;
    part.n_dims = from.n_dims;
    part.row_begin = spec.n_encoded;
    expect(from.input_begin >= 0 && from.input_begin < spec.n_input && from.n_dims > 0 &&
               from.n_dims <= spec.n_input - from.input_begin,
           "parts: an encoding reads other inputs than the n_input there are");
    if (from.kind == "Identity") {
        part.kind = EncodingKind::identity;
        part.n_rows = from.n_dims;
        return part;
    }
    expect(from.n_dims == 3, "parts: " + from.kind + " encodes 3 dimensions, not " + std::to_string(from.n_dims));
    if (from.kind == "SphericalHarmonics") {
        expect(from.degree >= 1 && from.degree <= 4, "parts: SphericalHarmonics: degree must be 1 to 4");
        part.kind = EncodingKind::spherical_harmonics;
        part.degree = from.degree;
        part.n_rows = from.degree * from.degree;
        return part;
    }
    expect(from.kind == "Grid", "parts: encoding '" + from.kind + "' is unknown");
    const int f = from.n_features;
    expect(f == 1 || f == 2 || f == 4 || f == 8, "parts: Grid: n_features_per_level must be 1, 2, 4 or 8");
    expect(!from.levels.empty() && from.levels.size() <= 32, "parts: Grid: n_levels must be 1 to 32");
    part.kind = EncodingKind::grid;
    part.n_features = f;
    part.n_rows = f * static_cast<int>(from.levels.size());
    part.saved_begin = spec.n_saved;
    spec.n_saved += part.n_rows;
    size_t entries = 0;
    for (const auto& [scale, resolution, size, hashed] : from.levels) {
        expect(scale >= 0 && scale < 1 << 20 && resolution >= 1 && resolution <= 1 << 20,
               "parts: Grid: resolution out of range");
        expect(size >= 1 && size <= 1u << 28, "parts: Grid: table size out of range");
        // Positions reach scale + 0.5: below resolution, also when rounded to float32.
        expect(hashed ? (size & (size - 1)) == 0
                      : resolution <= 1024 && size >= uint64_t(resolution) * resolution * resolution && size >= 8 &&
                            scale <= resolution - 0.75,
               "parts: Grid: a hashed level's size must be a power of two, a dense level must hold its grid");
        part.levels.push_back({scale, resolution, size, hashed, entries});
        entries += size;
    }
    part.table_offset = n_table;
    n_table += entries * f;
    return part;
}

NetworkSpec make_network(int n_input, const std::vector<PartSpec>& parts, int width, int n_hidden_layers, int n_output,
                         const std::string& hidden_activation, const std::string& output_activation) {
    expect(n_input >= 1 && n_input <= 256, "n_input must be 1 to 256");
    expect(!parts.empty(), "parts: an encoding needs at least one");
    NetworkSpec spec{};
    spec.n_input = n_input;
    size_t n_table = 0;
    for (const PartSpec& part : parts) {
        spec.parts.push_back(make_part(part, spec, n_table));
        spec.n_encoded += spec.parts.back().n_rows;
        expect(spec.n_encoded <= 512, "parts: an encoding has at most 512 outputs");
    }
    spec.hidden_activation = activation(hidden_activation);
    spec.output_activation = activation(output_activation);
    spec.n_hidden_layers = n_hidden_layers;
    if (n_hidden_layers > 0) {
        expect(n_hidden_layers <= 8, "n_hidden_layers must be 1 to 8");
        expect(width == 16 || width == 32 || width == 64 || width == 128,
               "width (n_neurons) must be 16, 32, 64 or 128");
        expect(n_output >= 1 && n_output <= 128, "n_output must be 1 to 128");
        spec.width = width;
        spec.n_output = n_output;
        spec.n_output_padded = padded(n_output);
        spec.n_encoded_padded = padded(spec.n_encoded);
        spec.n_network_params = spec.layer_offset(n_hidden_layers + 1);
    } else {
        expect(n_hidden_layers == 0, "n_hidden_layers must not be negative");
        spec.n_output = spec.n_output_padded = spec.n_encoded_padded = spec.n_encoded;
    }
    for (EncodingPart& part : spec.parts) part.table_offset += spec.n_network_params;
    spec.n_params = spec.n_network_params + n_table;
    return spec;
}

template <class T>
Strided<const T> strided(const StridedMatrix<const T>& x) {
    return {x.data(), x.stride(0), x.stride(1)};
}

template <class T>
const NetworkKernels<T>& network_kernels() {
    if constexpr (std::is_same_v<T, float>)
        return kernels().network32;
    else
        return kernels().network64;
}

template <class T>
void network_forward(const NetworkSpec& spec, Vector<const T> params, int n_active_levels, StridedMatrix<const T> x,
                     Matrix<T> output, std::optional<Matrix<T>> saved) {
    const size_t n = x.shape(0);
    expect_size(params.size(), spec.n_params, "params");
    expect_shape(x, n, spec.n_input, "x");
    expect_shape(output, spec.n_output, n, "output");
    if (saved) expect_shape(*saved, spec.n_saved, n, "saved");
    nb::gil_scoped_release release;
    network_kernels<T>().forward(spec, params.data(), n_active_levels, strided<T>(x), n, output.data(),
                                 saved ? saved->data() : nullptr);
}

template <class T>
void network_backward(const NetworkSpec& spec, Vector<const T> params, int n_active_levels, StridedMatrix<const T> x,
                      Matrix<const T> saved, Matrix<const T> grad_output, std::optional<Vector<T>> grad_params,
                      std::optional<Matrix<T>> grad_x) {
    const size_t n = x.shape(0);
    expect_size(params.size(), spec.n_params, "params");
    expect_shape(x, n, spec.n_input, "x");
    expect_shape(saved, spec.n_saved, n, "saved");
    expect_shape(grad_output, spec.n_output, n, "grad_output");
    if (grad_params) expect_size(grad_params->size(), spec.n_params, "grad_params");
    if (grad_x) expect_shape(*grad_x, spec.n_input, n, "grad_x");
    expect(n <= UINT32_MAX, "x: at most 2^32 - 1 points at once");
    nb::gil_scoped_release release;
    const std::unique_ptr<T[]> grad_saved(
        new T[grad_params ? size_t(spec.n_saved) * n : 0]);  // not zeroed: 4 MB a step
    network_kernels<T>().backward(spec, params.data(), n_active_levels, strided<T>(x), n, saved.data(),
                                  grad_output.data(), grad_params ? grad_params->data() : nullptr,
                                  grad_x ? grad_x->data() : nullptr, grad_saved.get());
}

void adam(Vector<float> param, Vector<const float> grad, Vector<float> first, Vector<float> second, float learning_rate,
          float beta1, float beta2, float epsilon, int64_t step, bool skip_zero) {
    expect(step >= 1, "step counts from 1");
    expect_size(grad.size(), param.size(), "grad");
    expect_size(first.size(), param.size(), "first");
    expect_size(second.size(), param.size(), "second");
    const AdamStep s{learning_rate,
                     beta1,
                     beta2,
                     epsilon,
                     float(1 / (1 - std::pow(double(beta1), double(step)))),
                     float(1 / (1 - std::pow(double(beta2), double(step)))),
                     skip_zero};
    nb::gil_scoped_release release;
    kernels().adam(s, param.size(), param.data(), grad.data(), first.data(), second.data());
}

template <class T>
void bind_passes(nb::class_<NetworkSpec>& network) {
    network.def("forward", &network_forward<T>, "params"_a.noconvert(), "n_active_levels"_a, "x"_a.noconvert(),
                "output"_a.noconvert(), "saved"_a.noconvert().none());
    network.def("backward", &network_backward<T>, "params"_a.noconvert(), "n_active_levels"_a, "x"_a.noconvert(),
                "saved"_a.noconvert(), "grad_output"_a.noconvert(), "grad_params"_a.noconvert().none(),
                "grad_x"_a.noconvert().none());
}

}  // namespace

void bind_networks(nb::module_& m) {
    auto network = nb::class_<NetworkSpec>(m, "Network");
    network.def_static(
        "make",
        [](int n_input,
           const std::vector<std::tuple<std::string, int, int, int, int,
                                        std::vector<std::tuple<double, uint32_t, uint32_t, bool>>>>& parts,
           int width, int n_hidden_layers, int n_output, const std::string& hidden, const std::string& output) {
            std::vector<PartSpec> list;
            for (const auto& [kind, begin, dims, degree, features, levels] : parts)
                list.push_back({kind, begin, dims, degree, features, levels});
            return make_network(n_input, list, width, n_hidden_layers, n_output, hidden, output);
        },
        "n_input"_a, "parts"_a, "width"_a, "n_hidden_layers"_a, "n_output"_a, "hidden_activation"_a,
        "output_activation"_a);
    network.def_ro("n_params", &NetworkSpec::n_params);
    network.def_ro("n_network_params", &NetworkSpec::n_network_params);
    network.def_ro("n_saved", &NetworkSpec::n_saved);
    network.def_ro("n_output", &NetworkSpec::n_output);
    bind_passes<float>(network);
    bind_passes<double>(network);

    m.def("adam", &adam, "param"_a.noconvert(), "grad"_a.noconvert(), "first"_a.noconvert(), "second"_a.noconvert(),
          "learning_rate"_a, "beta1"_a, "beta2"_a, "epsilon"_a, "step"_a, "skip_zero"_a);
}

}  // namespace quicksurf
