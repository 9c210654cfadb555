// Matrix product with row pointers: the inner loop of every convolution, of the pose blend shapes and of the
// nearest-code search.  Each output sums its terms in the same order whatever the batch, so a block decodes to the same
// bits alone and among others.
#include "kinds.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr ptrdiff_t kLine = 64;     // bytes of a cache line
constexpr ptrdiff_t kAhead = 8192;  // bytes: what comes from memory in the time that memory takes to answer, and more
constexpr int kWide = 4;            // panels beside each other where there are one or two rows
constexpr int kThree = 3;           // panels beside each other where 16 registers hold them and their sums of four rows

// Weights that are asked for before they are needed: of each panel side by side, so many bytes apart.
struct Ahead {
    const char* weights;
    ptrdiff_t apart;
};

// Panels that are summed side by side, one vector each: `first` and every `spread` after it. Far apart, because memory
// gives more where it is read at several places.
struct Panels {
    int first, spread;
    const Ahead* behind;  // their last tap, where the panels beside `first` do not follow; or null
};

// Tile `index` of the `count` that go over a tap's weights of the same panels.
struct Turn {
    int index, count;
};

// R rows x P panels of one tap, held in registers.
template <typename Kind, int R, int P>
void tile(const Gemm& g, const GemmRow* row, Panels panels, int tap, Turn turn) {
    constexpr ptrdiff_t kVector = static_cast<ptrdiff_t>(kLanes) * Kind::kStep * Kind::kBytes;
    const ptrdiff_t tap_size = static_cast<ptrdiff_t>(g.depth) * kPanel * Kind::kBytes;
    const ptrdiff_t panel_size = g.taps * tap_size, apart = panels.spread * panel_size;
    const char* w = static_cast<const char*>(g.weights) + panels.first * panel_size + tap * tap_size;
    const void* x[R];
    for (int r = 0; r < R; ++r) x[r] = row[r].x;
    typename Kind::Sum sum[R][P];
#pragma GCC unroll 16
    for (int i = 0; i < R * P; ++i) sum[i / P][i % P] = typename Kind::Sum{};
    const int steps = g.depth / Kind::kStep;
    // Weights are read once, at the speed of memory: the tiles over them share in asking for what comes behind them, so
    // that memory works all the time and not only while the first of them reads what the others find in the cache.
    const bool leave = panels.behind != nullptr && tap + 1 == g.taps;
    const Ahead ahead = leave ? *panels.behind : Ahead{w + (tap_size > kAhead ? tap_size : kAhead), apart};
    const char* next = ahead.weights + turn.index * (tap_size / turn.count);
    const int every = turn.count * static_cast<int>(kLine / kVector);  // steps
    int ask = 0;
    for (int c = 0; c < steps; ++c, w += kVector) {
        if (P > 1 && c == ask) {
            for (int v = 0; v < P; ++v) __builtin_prefetch(next + v * ahead.apart, 0, 2);
            next += kLine;
            ask += every;
        }
        add_step<Kind>(sum, x, c, [=](int v) { return w + v * apart; });
    }
    const float* scale = nullptr;
    if (Kind::kBytes == 1) scale = g.weight_scale + tap * static_cast<ptrdiff_t>(g.panels) * kPanel;
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
        for (int v = 0; v < P; ++v) {
            const ptrdiff_t at = (panels.first + static_cast<ptrdiff_t>(v) * panels.spread) * kPanel;
            Vec value = Kind::finish(sum[r][v], scale + (Kind::kBytes == 1 ? at : 0), row[r].scale);
            if (tap == 0) value += load(g.bias + at);
            const bool add = tap != 0 || g.accumulate;
            store(row[r].y + at, add ? load(row[r].y + at) + value : value);
            if (row[r].y2 != nullptr) store(row[r].y2 + at, add ? load(row[r].y2 + at) + value : value);
        }
}

// Rows of a tile, all of whose sums are held in registers.
template <typename Kind, int P>
constexpr int kMostRows = P == kWide ? 2 : P == kThree ? 4 : Kind::kTile;

template <typename Kind, int P, int R = kMostRows<Kind, P>>
void tile_of(int rows, const Gemm& g, const GemmRow* row, Panels panels, int tap, Turn turn) {
    if (rows == R) return tile<Kind, R, P>(g, row, panels, tap, turn);
    if constexpr (R > 1) tile_of<Kind, P, R - 1>(rows, g, row, panels, tap, turn);
}

void clamp(const Gemm& g, int panel) {
    const Vec zero = {};
    const ptrdiff_t at = static_cast<ptrdiff_t>(panel) * kPanel;
    for (int r = 0; r < g.tap_start[1]; ++r) {
        float* const to[2] = {g.rows[r].y, g.rows[r].y2};
        for (int i = 0; i < 2 && to[i] != nullptr; ++i) {
            const Vec value = load(to[i] + at);
            store(to[i] + at, value < zero ? zero : value);
        }
    }
}

// Panels that are side by side in most sweeps.
template <typename Kind>
constexpr int kBeside = kLanes == 8 && Kind::kBytes == 4 ? kThree : 2;

// As many of the panels from `first` to `end` as can be taken P by P; the first that is left. Panels outside, rows
// inside: a panel of weights is read from memory once and stays in cache for all rows.
template <typename Kind, int P>
int sweep(const Gemm& g, int first, int end) {
    const int spread = (end - first) / P, rest = first + P * spread;
    const ptrdiff_t tap_size = static_cast<ptrdiff_t>(g.depth) * kPanel * Kind::kBytes, panel_size = g.taps * tap_size;
    const Ahead behind = rest < g.panels
        ? Ahead{static_cast<const char*>(g.weights) + rest * panel_size, (g.panels - rest) / 2 * panel_size}
        : Ahead{static_cast<const char*>(g.next), g.panels / kBeside<Kind> * g.next_taps * tap_size};
    for (int panel = first; panel < first + spread; ++panel) {
        const bool leave = panel + 1 == first + spread && behind.weights != nullptr;
        const Panels panels{panel, spread, leave ? &behind : nullptr};
        for (int tap = 0; tap < g.taps; ++tap) {
            const int count = g.tap_start[tap + 1] - g.tap_start[tap];
            const GemmRow* row = g.rows + g.tap_start[tap];
            const int tiles = (count + kMostRows<Kind, P> - 1) / kMostRows<Kind, P>;
            for (int t = 0, left = count; t < tiles; ++t) {
                const int rows = (left + tiles - t - 1) / (tiles - t);
                tile_of<Kind, P>(rows, g, row, panels, tap, {t, tiles});
                row += rows;
                left -= rows;
            }
        }
        if (g.relu)
            for (int p = 0; p < P; ++p) clamp(g, panel + p * spread);
    }
    return first + P * spread;
}

template <typename Kind>
void gemm(const Gemm& g) noexcept {
    // Adders wait on each other where there are less than eight sums, and a little where there are eight.
    const int end = g.panels;
    int panel = g.tap_start[1] <= 2 ? sweep<Kind, kWide>(g, 0, end) : 0;
    if constexpr (kBeside<Kind> == kThree) {
        const int left = end - panel;  // none is to be alone at the end
        panel = sweep<Kind, kThree>(g, panel, left % kThree == 1 && left > 1 ? end - 4 : end);
    }
    panel = sweep<Kind, 2>(g, panel, end);
    sweep<Kind, 1>(g, panel, end);
}

}  // namespace

void gemm_f32(const Gemm& g) noexcept { gemm<F32>(g); }
void gemm_bf16(const Gemm& g) noexcept { gemm<Bf16>(g); }
void gemm_int8(const Gemm& g) noexcept { gemm<Int8>(g); }
void gemm_int8_bytes(const Gemm& g) noexcept { gemm<Int8Bytes>(g); }

}  // namespace BEINGH0_ISA
}  // namespace beingh0
