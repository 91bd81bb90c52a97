// Compiled once per instruction set with QS_ISA naming it; defines quicksurf::QS_ISA::nearest. See nearest.h.
//
// Panels of rows stay in the first-level cache while all columns pass by, a tile of TILE columns at a time. The
// products of BLOCK rows and a tile go through a buffer, whatever instruction makes them; the update that follows holds
// one column a lane and keeps the two largest values per column, and per row and lane.
#include "nearest.h"

#include <cstring>

#include "simd.h"

namespace quicksurf {
namespace QS_ISA {
namespace {

constexpr int L = LANES<float>;
constexpr size_t PANEL = DESCRIPTOR_PADDING;

using Floats = Vec<float>;
using Ints = Vec<int32_t>;

#if defined(__AMX_INT8__)
#define QS_BYTES 1
constexpr int BLOCK = 32, N_VECTORS = 2;
constexpr uint32_t FLIP = 0;
#elif defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define QS_BYTES 1
// The instruction multiplies unsigned by signed bytes: columns are stored less 128, and 128 * sum_k a_ik is added.
constexpr int BLOCK = 24, MR = QS_VECTOR_BYTES == 64 ? 8 : 6, N_VECTORS = QS_VECTOR_BYTES == 64 ? 3 : 2;
constexpr uint32_t FLIP = 0x80808080u;
#else
#define QS_BYTES 0
constexpr int BLOCK = 24, MR = QS_VECTOR_BYTES == 64 ? 8 : 4, N_VECTORS = QS_VECTOR_BYTES == 64 ? 3 : 2;
constexpr uint32_t FLIP = 0;
#endif

constexpr int PER_WORD = QS_BYTES ? 4 : 2;  // values of a 32-bit word: bytes or 16-bit integers
constexpr int N_WORDS = DESCRIPTOR_SIZE / PER_WORD;
constexpr int TILE = N_VECTORS * L;
static_assert(PANEL % BLOCK == 0 && PANEL % TILE == 0, "DESCRIPTOR_PADDING");

// The order of values within a word is free: rows and columns share it.
uint32_t word(const uint8_t* values) {
    uint32_t result = 0;
    if (QS_BYTES)
        std::memcpy(&result, values, sizeof result);
    else
        result = values[0] | uint32_t(values[1]) << 16;
    return result;
}

// [tile][word][column of the tile]
void pack(const uint8_t* values, size_t n, uint32_t* packed) {
    for (size_t j = 0; j < padded(n); ++j) {
        uint32_t* column = packed + j / TILE * TILE * N_WORDS + j % TILE;
        for (int w = 0; w < N_WORDS; ++w)
            column[w * TILE] = (j < n ? word(values + j * DESCRIPTOR_SIZE + w * PER_WORD) : 0) ^ FLIP;
    }
}

// `x` into the two largest of each lane.
inline void insert(Floats x, Floats& best, Floats& second) {
    second = vmax<float>(second, vmin<float>(best, x));
    best = vmax<float>(best, x);
}

struct alignas(64) Panel {
    uint32_t words[PANEL][N_WORDS];
    int32_t offsets[PANEL];  // added to the products of a row
    Floats best[PANEL], second[PANEL];
    Ints tile[PANEL];  // where a lane's best was found
    int32_t dots[BLOCK][TILE];

    // A tile's two largest of row i, lane by lane.
    void insert(size_t i, Floats tile_best, Floats tile_second, int32_t index) {
        const Floats before = best[i];
        second[i] = vmax<float>(vmax<float>(second[i], tile_second), vmin<float>(before, tile_best));
        best[i] = vmax<float>(before, tile_best);
        tile[i] = tile_best > before ? splat(index) : tile[i];
    }
};

#if defined(__AMX_INT8__)

struct TileConfig {
    uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t n_rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

struct TileUnit {
    TileUnit() {
        const TileConfig config;
        _tile_loadconfig(&config);
    }
    ~TileUnit() { _tile_release(); }
};

// Tiles 0 to 3: sums of 16 rows and 16 columns each; 4, 5: rows; 6, 7: columns; 64 values a step.
[[gnu::noinline]] void products(const uint32_t* rows, const int32_t*, const uint32_t* columns, int32_t* dots) {
    constexpr int HALF = N_WORDS / 2, ROW_BYTES = 4 * N_WORDS, TILE_BYTES = 4 * TILE;
    asm volatile("" ::: "memory");  // the compiler does not know what the tile instructions read
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
#pragma GCC unroll 2
    for (int step = 0; step < 2; ++step, rows += HALF, columns += HALF * TILE) {
        _tile_loadd(6, columns, TILE_BYTES);
        _tile_loadd(4, rows, ROW_BYTES);
        _tile_dpbuud(0, 4, 6);
        _tile_loadd(7, columns + 16, TILE_BYTES);
        _tile_dpbuud(1, 4, 7);
        _tile_loadd(5, rows + 16 * N_WORDS, ROW_BYTES);
        _tile_dpbuud(2, 5, 6);
        _tile_dpbuud(3, 5, 7);
    }
    _tile_stored(0, dots, TILE_BYTES);
    _tile_stored(1, dots + 16, TILE_BYTES);
    _tile_stored(2, dots + 16 * TILE, TILE_BYTES);
    _tile_stored(3, dots + 16 * TILE + 16, TILE_BYTES);
}

#else

struct TileUnit {
    ~TileUnit() {}
};

// sum + the products of the PER_WORD values in each lane of a row's and the columns' words.
inline Ints add_products(Ints sum, Ints row, Ints column) {
#if defined(__AVX512VNNI__)
    return Ints(_mm512_dpbusd_epi32(__m512i(sum), __m512i(row), __m512i(column)));
#elif defined(__AVXVNNI__)
    return Ints(_mm256_dpbusd_avx_epi32(__m256i(sum), __m256i(row), __m256i(column)));
#elif defined(__AVX512BW__)
    return sum + Ints(_mm512_madd_epi16(__m512i(row), __m512i(column)));
#elif defined(__AVX2__)
    return sum + Ints(_mm256_madd_epi16(__m256i(row), __m256i(column)));
#elif defined(__SSE2__)
    return sum + Ints(_mm_madd_epi16(__m128i(row), __m128i(column)));
#else
    return sum + (row & 0xffff) * (column & 0xffff) + (row >> 16) * (column >> 16);
#endif
}

// MR rows and a tile in registers.
inline void register_products(const uint32_t* rows, const int32_t* offsets, const uint32_t* columns, int32_t* dots) {
    Ints sum[MR][N_VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
        for (int c = 0; c < N_VECTORS; ++c) sum[i][c] = splat(offsets[i]);
    for (int w = 0; w < N_WORDS; ++w) {
        Ints column[N_VECTORS];
#pragma GCC unroll 3
        for (int c = 0; c < N_VECTORS; ++c) column[c] = Ints(load(columns + w * TILE + c * L));
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
            const Ints row = splat(int32_t(rows[i * N_WORDS + w]));
#pragma GCC unroll 3
            for (int c = 0; c < N_VECTORS; ++c) sum[i][c] = add_products(sum[i][c], row, column[c]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 3
        for (int c = 0; c < N_VECTORS; ++c) store(dots + i * TILE + c * L, sum[i][c]);
}

[[gnu::noinline]] void products(const uint32_t* rows, const int32_t* offsets, const uint32_t* columns, int32_t* dots) {
    for (int i = 0; i < BLOCK; i += MR) register_products(rows + i * N_WORDS, offsets + i, columns, dots + i * TILE);
}

#endif

// The products of BLOCK rows from `begin` on and one tile, into the rows' and the columns' two largest.
[[gnu::noinline]] void update(Panel& panel, size_t begin, const float* row_norms, int32_t tile,
                              const float* column_norms, float* column_best, float* column_second) {
    Floats norms[N_VECTORS], best[N_VECTORS], second[N_VECTORS];
#pragma GCC unroll 6
    for (int c = 0; c < N_VECTORS; ++c) {
        norms[c] = load(column_norms + c * L);
        best[c] = load(column_best + c * L);
        second[c] = load(column_second + c * L);
    }
    for (int i = 0; i < BLOCK; ++i) {
        Floats dot[N_VECTORS];
#pragma GCC unroll 6
        for (int c = 0; c < N_VECTORS; ++c) {
            dot[c] = __builtin_convertvector(load(panel.dots[i] + c * L), Floats);
            insert(dot[c] * row_norms[begin + i], best[c], second[c]);
        }
        Floats row_best = vmax<float>(dot[0] * norms[0], dot[1] * norms[1]);
        Floats row_second = vmin<float>(dot[0] * norms[0], dot[1] * norms[1]);
#pragma GCC unroll 6
        for (int c = 2; c < N_VECTORS; ++c) insert(dot[c] * norms[c], row_best, row_second);
        panel.insert(begin + i, row_best, row_second, tile);
    }
#pragma GCC unroll 6
    for (int c = 0; c < N_VECTORS; ++c) {
        store(column_best + c * L, best[c]);
        store(column_second + c * L, second[c]);
    }
}

void begin_panel(Panel& panel, const Descriptors& first, size_t begin) {
    for (size_t i = 0; i < PANEL; ++i) {
        const uint8_t* values = first.values + (begin + i) * DESCRIPTOR_SIZE;
        const bool real = begin + i < first.n;
        for (int w = 0; w < N_WORDS; ++w) panel.words[i][w] = real ? word(values + w * PER_WORD) : 0;
        int32_t sum = 0;
        if (FLIP && real)
            for (int k = 0; k < DESCRIPTOR_SIZE; ++k) sum += values[k];
        panel.offsets[i] = 128 * sum;
        panel.best[i] = panel.second[i] = Floats{};
        panel.tile[i] = Ints{};
    }
}

// The two largest over the lanes of row i.
void end_row(const Panel& panel, size_t i, float& best, float& second, int32_t& candidate) {
    best = second = 0;
    candidate = 0;
    for (int lane = 0; lane < L; ++lane) {
        const float value = panel.best[i][lane], next = panel.second[i][lane];
        const bool larger = value > best;
        const float smaller = larger ? best : value;
        second = smaller > second ? smaller : second;
        second = next > second ? next : second;
        candidate = larger ? panel.tile[i][lane] * TILE + lane : candidate;
        best = larger ? value : best;
    }
}

void find(const Descriptors& first, size_t begin, size_t end, const Descriptors& second, float* best,
          float* second_best, int32_t* candidate, float* column_best, float* column_second) {
    const TileUnit unit;
    Panel panel;
    for (size_t row = begin; row < end; row += PANEL) {
        begin_panel(panel, first, row);
        for (size_t j = 0; j < padded(second.n); j += TILE)
            for (size_t i = 0; i < PANEL; i += BLOCK) {
                products(panel.words[i], panel.offsets + i, second.packed + j * N_WORDS, panel.dots[0]);
                update(panel, i, first.inverse_norms + row, int32_t(j / TILE), second.inverse_norms + j,
                       column_best + j, column_second + j);
            }
        for (size_t i = row; i < row + PANEL && i < end; ++i)
            end_row(panel, i - row, best[i - begin], second_best[i - begin], candidate[i - begin]);
    }
}

}  // namespace

extern const NearestKernel nearest;
const NearestKernel nearest = {N_WORDS, N_VECTORS, L, pack, find};

}  // namespace QS_ISA
}  // namespace quicksurf
