// Matrix product with row pointers: the inner loop of every convolution, of the pose blend shapes and of the
// nearest-code search.  Each output sums its terms in the same order whatever the batch, so a block decodes to the same
// bits alone and among others.
#include "kinds.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr ptrdiff_t kLine = 64;      // bytes of a cache line
constexpr ptrdiff_t kAhead = 16384;  // bytes: what comes from memory in the time that memory takes to answer, and more
constexpr int kStreams = 2;          // places that are read side by side: from one alone memory gives less

// Tile `index` of the `count` that go over a tap's weights of one panel.
struct Turn {
    int index, count;
};

// R rows x P panels of one tap, held in registers.
template <typename Kind, int R, int P>
void tile(const Gemm& g, const GemmRow* row, int panel, int tap, Turn turn) {
    constexpr int V = 2 * P;
    constexpr ptrdiff_t kVector = static_cast<ptrdiff_t>(kLanes) * Kind::kStep * Kind::kBytes;
    const ptrdiff_t tap_size = static_cast<ptrdiff_t>(g.depth) * kPanel * Kind::kBytes;
    const ptrdiff_t panel_size = g.taps * tap_size;
    const char* w = static_cast<const char*>(g.weights) + panel * panel_size + tap * tap_size;
    const void* x[R];
    for (int r = 0; r < R; ++r) x[r] = row[r].x;
    typename Kind::Sum sum[R][V] = {};
    const int steps = g.depth / Kind::kStep;
    // A panel is read once, at the speed of memory: the tiles over it share in asking for what comes behind it, so that
    // memory works all the time and not only while the first of them reads what the others find in the cache.
    const ptrdiff_t part = tap_size / kStreams;
    const char* next = w + (tap_size > kAhead ? tap_size : kAhead) + turn.index * (part / turn.count);
    const int every = turn.count * static_cast<int>(kStreams * kLine / (2 * kVector));  // steps
    int ask = 0;
    for (int c = 0; c < steps; ++c, w += 2 * kVector) {
        if (P == 1 && c == ask) {
            for (int s = 0; s < kStreams; ++s) __builtin_prefetch(next + s * part, 0, 2);
            next += kLine;
            ask += every;
        }
        decltype(Kind::weight(w)) weight[V];
        for (int v = 0; v < V; ++v) weight[v] = Kind::weight(w + (v / 2) * panel_size + (v % 2) * kVector);
        for (int r = 0; r < R; ++r) {
            const auto input = Kind::input(x[r], c);
            for (int v = 0; v < V; ++v) sum[r][v] = Kind::add(sum[r][v], weight[v], input);
        }
    }
    const ptrdiff_t column = static_cast<ptrdiff_t>(panel) * kPanel;
    const float* scale = nullptr;
    if (Kind::kBytes == 1) scale = g.weight_scale + tap * static_cast<ptrdiff_t>(g.panels) * kPanel;
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v) {
            const ptrdiff_t at = column + v * kLanes;
            Vec value = Kind::finish(sum[r][v], scale + (Kind::kBytes == 1 ? at : 0), row[r].scale);
            if (tap == 0) value += load(g.bias + at);
            const bool add = tap != 0 || g.accumulate;
            store(row[r].y + at, add ? load(row[r].y + at) + value : value);
            if (row[r].y2 != nullptr) store(row[r].y2 + at, add ? load(row[r].y2 + at) + value : value);
        }
}

template <typename Kind, int P>
void tile_of(int rows, const Gemm& g, const GemmRow* row, int panel, int tap, Turn turn) {
    switch (rows) {
        case 1: return tile<Kind, 1, P>(g, row, panel, tap, turn);
        case 2: return tile<Kind, 2, P>(g, row, panel, tap, turn);
        default: break;
    }
    if constexpr (P == 1) {
        if (rows == 3) return tile<Kind, 3, P>(g, row, panel, tap, turn);
        if (rows == 4) return tile<Kind, 4, P>(g, row, panel, tap, turn);
        if constexpr (kRows > 4) {
            if (rows == 5) return tile<Kind, 5, P>(g, row, panel, tap, turn);
            if (rows == 6) return tile<Kind, 6, P>(g, row, panel, tap, turn);
        }
        if constexpr (kRows > 6) {
            if (rows == 7) return tile<Kind, 7, P>(g, row, panel, tap, turn);
            if (rows == 8) return tile<Kind, 8, P>(g, row, panel, tap, turn);
        }
    }
}

BEINGH0_INLINE void clamp_row(float* y, int columns) {
    const Vec zero = {};
    for (int at = 0; at < columns; at += kLanes) {
        const Vec value = load(y + at);
        store(y + at, value < zero ? zero : value);
    }
}

void clamp(const Gemm& g, int panel, int panels) {
    const ptrdiff_t column = static_cast<ptrdiff_t>(panel) * kPanel;
    for (int r = 0; r < g.tap_start[1]; ++r) {
        clamp_row(g.rows[r].y + column, panels * kPanel);
        if (g.rows[r].y2 != nullptr) clamp_row(g.rows[r].y2 + column, panels * kPanel);
    }
}

// Panels outside, rows inside: a panel of weights is read from memory once and stays in cache for all rows.
template <typename Kind>
void gemm(const Gemm& g) noexcept {
    // With one or two rows a single panel leaves the adders waiting on each other: take several side by side.
    constexpr int kWide = kLanes >= 16 ? 4 : 2;
    int panel = 0;
    if (g.taps == 1 && g.tap_start[1] <= 2 && g.tap_start[1] > 0)
        for (; panel + kWide <= g.panels; panel += kWide) {
            tile_of<Kind, kWide>(g.tap_start[1], g, g.rows, panel, 0, {0, 1});
            if (g.relu) clamp(g, panel, kWide);
        }
    for (; panel < g.panels; ++panel) {
        for (int tap = 0; tap < g.taps; ++tap) {
            const int first = g.tap_start[tap], count = g.tap_start[tap + 1] - first;
            const int tiles = (count + Kind::kTile - 1) / Kind::kTile;
            for (int t = 0, row = 0; t < tiles; ++t) {
                const int rows = (count - row + tiles - t - 1) / (tiles - t);
                tile_of<Kind, 1>(rows, g, g.rows + first + row, panel, tap, {t, tiles});
                row += rows;
            }
        }
        if (g.relu) clamp(g, panel, 1);
    }
}

}  // namespace

void gemm_f32(const Gemm& g) noexcept { gemm<F32>(g); }
void gemm_bf16(const Gemm& g) noexcept { gemm<Bf16>(g); }
void gemm_int8(const Gemm& g) noexcept { gemm<Int8>(g); }

}  // namespace BEINGH0_ISA
}  // namespace beingh0
