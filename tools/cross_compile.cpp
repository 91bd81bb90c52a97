// Runs each kernel once on fixed inputs and prints "name sum norm", so that two processors can be compared.
// Neither Python nor torch: built and run by tools/cross_compile.sh for this machine and for another one.
#include <cmath>
#include <cstdio>
#include <vector>

#include "kernels.h"
#include "match.h"
#include "packed_scans.h"
#include "rasterize.h"
#include "thread_pool.h"

using namespace quicksurf;

namespace {

constexpr size_t N = 1000;  // points, rays

// Values in [0, 1), the same on every machine.
template <class T>
std::vector<T> values(size_t n, uint64_t seed) {
    std::vector<T> v(n);
    for (T& x : v) x = T((seed = seed * 6364136223846793005u + 1442695040888963407u) >> 40) / T(1 << 24);
    return v;
}

template <class A>
void print(const char* name, const A& array) {
    double sum = 0, square = 0;
    for (const auto x : array) sum += double(x), square += double(x) * double(x);
    std::printf("%s %.9g %.9g\n", name, sum, std::sqrt(square));
}

// 6 inputs: identity of 3, a dense and a hashed level of the other 3; 32 softplus, 32, 4 outputs.
NetworkSpec network() {
    NetworkSpec spec{};
    spec.n_input = 6;
    spec.n_saved = 4;
    EncodingPart identity{EncodingKind::identity, 0, 3, 0, 3};
    EncodingPart grid{EncodingKind::grid, 3, 3, 3, 4};
    grid.n_features = 2;
    grid.levels = {{7.0, 8, 512, 0, 0}, {30.5, 32, 4096, 1, 512}};
    spec.parts = {identity, grid};
    spec.n_encoded = 7;
    spec.n_encoded_padded = spec.n_output_padded = 16;
    spec.width = 32;
    spec.n_hidden_layers = 2;
    spec.n_output = 4;
    spec.hidden_activation = Activation::softplus;
    spec.output_activation = Activation::none;
    spec.n_network_params = spec.layer_offset(3);
    spec.parts[1].table_offset = spec.n_network_params;
    spec.n_params = spec.n_network_params + 2 * (512 + 4096);
    return spec;
}

template <class T>
void run_network(const NetworkKernels<T>& run, const NetworkSpec& spec) {
    const std::vector<T> x = values<T>(6 * N, 1), grad = values<T>(spec.n_output * N, 3);
    std::vector<T> params = values<T>(spec.n_params, 2);
    for (T& p : params) p -= T(0.5);
    std::vector<T> y(spec.n_output * N), saved(spec.n_saved * N), scattered(saved.size()), grad_params(spec.n_params), grad_x(6 * N);
    run.forward(spec, params.data(), 2, {x.data(), 6, 1}, N, y.data(), saved.data());
    run.backward(spec, params.data(), 2, {x.data(), 6, 1}, N, saved.data(), grad.data(), grad_params.data(), grad_x.data(),
                 scattered.data());
    print("forward", y);
    print("grad_params", grad_params);
    print("grad_x", grad_x);
}

void run_search(const NetworkSpec& spec) {
    std::vector<float> origins = values<float>(3 * N, 4), directions = values<float>(3 * N, 5), params = values<float>(spec.n_params, 2);
    for (float& x : origins) x = 4 * x - 2;
    for (float& x : directions) x = 2 * x - 1;
    std::vector<uint8_t> occupied(2 * 8 * 8 * 8), hits(N);
    for (size_t i = 0; i < occupied.size(); ++i) occupied[i] = i % 3 == 0;
    const std::vector<float> boxes{-1, -1, -1, 1, 1, 1, -2, -2, -2, 2, 2, 2}, near(N, 0.0f), far(N, 10.0f);
    const int resolution[3] = {8, 8, 8};
    const std::vector<float> jitter = values<float>(8 * N, 11);
    std::vector<float> t_surface(N), t(8 * N), thicknesses(8 * N);
    std::vector<int64_t> counts(N);
    kernels().sample_surface(spec, params.data(), 2,
                             {Grids(occupied.data(), boxes.data(), 2, resolution),
                              {N, origins.data(), directions.data(), near.data(), far.data()},
                              0.05f, 0.9f, 0.0f, 2.0f, 3, {0.1f, 0.05f, 5, 3, 0.0f}, jitter.data()},
                             {hits.data(), t_surface.data(), counts.data(), t.data(), thicknesses.data()});
    print("hits", hits);
    print("t_surface", t_surface);
    print("samples", t);
}

void run_scan() {
    const std::vector<float> x = values<float>(N, 12);
    std::vector<float> y(N);
    sum_scan<float>({2, {0, 400}, {400, 600}}, true, false, false, x.data(), y.data());
    print("sum_scan", y);
}

void run_adam() {
    std::vector<float> param = values<float>(N, 6), first = values<float>(N, 7), second = values<float>(N, 8);
    kernels().adam({1e-2f, 0.9f, 0.99f, 1e-8f, 2.0f, 3.0f, true}, N, param.data(), values<float>(N, 9).data(), first.data(),
                   second.data());
    print("adam", param);
}

void run_rasterizer() {
    std::vector<float> vertices = values<float>(3 * N, 10), depth(64 * 64);
    for (size_t i = 0; i < vertices.size(); ++i) vertices[i] = i % 3 == 2 ? 1 + vertices[i] : 64 * vertices[i];
    std::vector<int32_t> faces(3 * N), seen(64 * 64);
    for (size_t i = 0; i < faces.size(); ++i) faces[i] = int32_t(i * 7 % N);
    rasterize(vertices.data(), faces.data(), N, 64, 64, depth.data(), seen.data());
    print("rasterize", seen);
}

// The second image holds every other descriptor of the first with a little noise, in reverse.
void run_matcher() {
    const std::vector<float> x = values<float>(N * 128, 13), noise = values<float>(N * 64, 14);
    std::vector<uint8_t> first(N * 128), second(N * 64);
    for (size_t i = 0; i < first.size(); ++i) first[i] = uint8_t(240 * x[i] * x[i]);
    for (size_t i = 0; i < second.size(); ++i)
        second[i] = uint8_t(first[(N - 2 - i / 128 * 2) * 128 + i % 128] + 15 * noise[i]);
    print("match", match_descriptors({{first.data(), N}, {second.data(), N / 2}}, {{0, 1}}, {0.8, 0.7})[0]);
}

}  // namespace

int main() {
    const NetworkSpec spec = network();
    set_num_threads(2);
    run_network(kernels().network32, spec);
    run_network(kernels().network64, spec);
    run_search(spec);
    run_scan();
    run_adam();
    run_rasterizer();
    run_matcher();
}
