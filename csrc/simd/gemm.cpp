// Matrix product with row pointers: the inner loop of every convolution, of the pose blend shapes and of the
// nearest-code search.  Each output sums its terms in the same order whatever the batch, so a block decodes to the same
// bits alone and among others.
#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

// A tile of R rows x P panels, held in registers.
template <int R, int P>
void tile(const Gemm& g, int row, int panel) {
    constexpr int V = 2 * P;
    Vec sum[R][V];
    float* const y = g.y + row * g.y_stride + panel * kPanel;
    for (int v = 0; v < V; ++v) {
        const Vec bias = load(g.bias + panel * kPanel + v * kLanes);
        for (int r = 0; r < R; ++r)
            sum[r][v] = g.accumulate ? bias + load(y + r * g.y_stride + v * kLanes) : bias;
    }
    const ptrdiff_t panel_size = static_cast<ptrdiff_t>(g.taps) * g.depth * kPanel;
    const float* w = g.weights + panel * panel_size;
    for (int tap = 0; tap < g.taps; ++tap) {
        const float* x[R];
        for (int r = 0; r < R; ++r) x[r] = g.rows[static_cast<ptrdiff_t>(tap) * g.m + row + r];
        for (int c = 0; c < g.depth; ++c, w += kPanel) {
            Vec weight[V];
            for (int v = 0; v < V; ++v) weight[v] = load(w + (v / 2) * panel_size + (v % 2) * kLanes);
            for (int r = 0; r < R; ++r)
                for (int v = 0; v < V; ++v) sum[r][v] += x[r][c] * weight[v];
        }
    }
    const Vec zero = {};
    for (int r = 0; r < R; ++r)
        for (int v = 0; v < V; ++v)
            store(y + r * g.y_stride + v * kLanes, g.relu ? (sum[r][v] < zero ? zero : sum[r][v]) : sum[r][v]);
}

template <int P>
void tile_of(int rows, const Gemm& g, int row, int panel) {
    switch (rows) {
        case 1: return tile<1, P>(g, row, panel);
        case 2: return tile<2, P>(g, row, panel);
        case 3: return tile<3, P>(g, row, panel);
        case 4: return tile<4, P>(g, row, panel);
        default: break;
    }
    if constexpr (P == 1 && kRows > 4) {
        if (rows == 5) return tile<5, P>(g, row, panel);
        if (rows == 6) return tile<6, P>(g, row, panel);
        if constexpr (kRows > 6) {
            if (rows == 7) return tile<7, P>(g, row, panel);
            if (rows == 8) return tile<8, P>(g, row, panel);
        }
    }
}

}  // namespace

// Panels outside, rows inside: a panel of weights is read from memory once and stays in cache for all rows.
void gemm(const Gemm& g) noexcept {
    const int tiles = (g.m + kRows - 1) / kRows;
    // With one or two rows a single panel leaves the adders waiting on each other: take several side by side.
    constexpr int kWide = kLanes >= 16 ? 4 : 2;
    int panel = 0;
    if (g.m <= 2 && g.m > 0)
        for (; panel + kWide <= g.panels; panel += kWide) tile_of<kWide>(g.m, g, 0, panel);
    for (; panel < g.panels; ++panel)
        for (int t = 0, row = 0; t < tiles; ++t) {
            const int rows = (g.m - row + tiles - t - 1) / (tiles - t);
            tile_of<1>(rows, g, row, panel);
            row += rows;
        }
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
