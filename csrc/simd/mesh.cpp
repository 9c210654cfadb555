// Posed vertices in one pass: a block's pose blends are summed in registers for several hands, then skinned there. A
// vertex sums its terms in the same order whatever the batch.
#include "kinds.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr int kBetas = 10;
constexpr int kLine = 16;  // floats that are fetched together
constexpr int kHands = kRows == 8 ? 8 : 4;  // of a tile: three sums each, in 32 or 16 registers

struct Points {
    Vec x, y, z;
};

#if defined(__x86_64__) && !defined(__AVX512F__)
BEINGH0_INLINE void store_four(float* out, __m128 x, __m128 y, __m128 z) {
    const __m128 low = _mm_unpacklo_ps(x, y), high = _mm_unpackhi_ps(x, y);  // x0 y0 x1 y1, x2 y2 x3 y3
    const __m128 zx = _mm_shuffle_ps(z, low, _MM_SHUFFLE(2, 2, 0, 0)), yz = _mm_shuffle_ps(low, z, _MM_SHUFFLE(1, 1, 3, 3));
    const __m128 end = _mm_shuffle_ps(z, high, _MM_SHUFFLE(3, 2, 3, 2));  // z2 z3 x3 y3
    _mm_storeu_ps(out, _mm_shuffle_ps(low, zx, _MM_SHUFFLE(2, 0, 1, 0)));
    _mm_storeu_ps(out + 4, _mm_shuffle_ps(yz, high, _MM_SHUFFLE(1, 0, 2, 0)));
    _mm_storeu_ps(out + 8, _mm_shuffle_ps(end, end, _MM_SHUFFLE(1, 3, 2, 0)));
}
#endif

// x0 y0 z0 x1 ..
BEINGH0_INLINE void store_points(float* out, const Points& p) {
#if defined(__AVX512F__)
    // Of each vector first what x and y give, then z between.
    const __m512i xy[3] = {
        _mm512_setr_epi32(0, 16, 0, 1, 17, 0, 2, 18, 0, 3, 19, 0, 4, 20, 0, 5),
        _mm512_setr_epi32(21, 0, 6, 22, 0, 7, 23, 0, 8, 24, 0, 9, 25, 0, 10, 26),
        _mm512_setr_epi32(0, 11, 27, 0, 12, 28, 0, 13, 29, 0, 14, 30, 0, 15, 31, 0)};
    const __m512i with_z[3] = {
        _mm512_setr_epi32(0, 1, 16, 3, 4, 17, 6, 7, 18, 9, 10, 19, 12, 13, 20, 15),
        _mm512_setr_epi32(0, 21, 2, 3, 22, 5, 6, 23, 8, 9, 24, 11, 12, 25, 14, 15),
        _mm512_setr_epi32(26, 1, 2, 27, 4, 5, 28, 7, 8, 29, 10, 11, 30, 13, 14, 31)};
    for (int i = 0; i < 3; ++i) {
        const __m512 both = _mm512_permutex2var_ps((__m512)p.x, xy[i], (__m512)p.y);
        _mm512_storeu_ps(out + 16 * i, _mm512_permutex2var_ps(both, with_z[i], (__m512)p.z));
    }
#elif defined(__AVX__)
    const __m256 x = (__m256)p.x, y = (__m256)p.y, z = (__m256)p.z;
    store_four(out, _mm256_castps256_ps128(x), _mm256_castps256_ps128(y), _mm256_castps256_ps128(z));
    store_four(out + 12, _mm256_extractf128_ps(x, 1), _mm256_extractf128_ps(y, 1), _mm256_extractf128_ps(z, 1));
#elif defined(__x86_64__)
    store_four(out, (__m128)p.x, (__m128)p.y, (__m128)p.z);
#elif defined(__aarch64__)
    vst3q_f32(out, {{(float32x4_t)p.x, (float32x4_t)p.y, (float32x4_t)p.z}});
#else
    for (int lane = 0; lane < kLanes; ++lane) {
        out[3 * lane] = p.x[lane];
        out[3 * lane + 1] = p.y[lane];
        out[3 * lane + 2] = p.z[lane];
    }
#endif
}

// One block of one hand, from the sums of its pose blends on: shape, linear blend skinning, output.
template <typename Kind>
BEINGH0_INLINE void place_one(const Mesh& mesh, const MeshHand& hand, int block, const typename Kind::Sum* sum) {
    const ptrdiff_t here = static_cast<ptrdiff_t>(block) * 3 * kLanes;
    Vec rest[3];
    for (int i = 0; i < 3; ++i) {
        const float* const scale = Kind::kBytes == 1 ? mesh.pose_scale + here + i * kLanes : nullptr;
        rest[i] = load(mesh.rest + here + i * kLanes);
        if (hand.betas != nullptr) {
            Vec shaped = {};
            for (int k = 0; k < kBetas; ++k)
                shaped += load(mesh.shape + here * kBetas + (3 * k + i) * kLanes) * hand.betas[k];
            rest[i] += shaped;
        }
        rest[i] += Kind::finish(sum[i], scale, hand.scale);
    }
    Vec m[12] = {};
    for (int i = 0; i < 3; ++i) m[4 * i + 3] = splat(hand.offset[i]);
    for (int e = mesh.block_start[block]; e < mesh.block_start[block + 1]; ++e) {
        const Vec weight = load(mesh.block_weight + e * kLanes);
        const float* const a = hand.transforms + mesh.block_transform[e];
        for (int i = 0; i < 12; ++i) m[i] += weight * a[i];
    }
    Vec moved[3];
    for (int i = 0; i < 3; ++i)
        moved[i] = (m[4 * i + 3] + m[4 * i] * rest[0]) + (m[4 * i + 1] * rest[1] + m[4 * i + 2] * rest[2]);
    const int first = block * kLanes, count = mesh.vertices - first;
    float* const out = hand.out + 3 * static_cast<ptrdiff_t>(first);
    if (count >= kLanes) return store_points(out, {moved[0], moved[1], moved[2]});
    float last[3 * kLanes];
    store_points(last, {moved[0], moved[1], moved[2]});
    for (int i = 0; i < 3 * count; ++i) out[i] = last[i];
}

// A tile's hands and blocks. One function for every tile: the compiler may fuse the same expression differently in two
// places, and a hand is the same bits alone and among others.
template <typename Kind>
__attribute__((noinline)) void place(const Mesh& mesh, const MeshHand* hand, int hands, int block, int blocks,
                                     const typename Kind::Sum* sum) {
    for (int h = 0; h < hands; ++h)
        for (int b = 0; b < blocks; ++b, sum += 3) place_one<Kind>(mesh, hand[h], block + b, sum);
}

// H hands x B blocks. The lines that it will write are fetched while it sums.
template <typename Kind, int H, int B>
void tile(const Mesh& mesh, const MeshHand* hand, int block) {
    constexpr int V = 3 * B;
    constexpr ptrdiff_t kVector = static_cast<ptrdiff_t>(kLanes) * Kind::kStep * Kind::kBytes;
    const int steps = mesh.depth / Kind::kStep;
    const ptrdiff_t block_size = 3 * kVector * steps;
    const char* w = static_cast<const char*>(mesh.pose) + block * block_size;
    const void* x[H];
    for (int h = 0; h < H; ++h) {
        x[h] = hand[h].features;
        for (int at = 0; at < 3 * B * kLanes + kLine; at += kLine)
            __builtin_prefetch(hand[h].out + static_cast<ptrdiff_t>(block) * 3 * kLanes + at, 1);
    }
    typename Kind::Sum sum[H][V];
    for (int h = 0; h < H; ++h)
        for (int v = 0; v < V; ++v) sum[h][v] = typename Kind::Sum{};
#pragma GCC unroll 5
    for (int c = 0; c < steps; ++c, w += 3 * kVector)
        add_step<Kind>(sum, x, c, [=](int v) { return w + (v / 3) * block_size + (v % 3) * kVector; });
    place<Kind>(mesh, hand, H, block, B, &sum[0][0]);
}

// Hands of a tile; what smaller weights become takes registers too.
template <typename Kind>
constexpr int kMostHands = Kind::kBytes < 4 && kHands == 4 ? 3 : kHands;

template <typename Kind, int H = kMostHands<Kind>>
void tile_of(int hands, const Mesh& mesh, const MeshHand* hand, int block) {
    if (hands == H) return tile<Kind, H, 1>(mesh, hand, block);
    if constexpr (H > 1) tile_of<Kind, H - 1>(hands, mesh, hand, block);
}

// Blocks outside, hands inside: a block's pose blends are fetched once and stay in cache for all hands.
template <typename Kind>
void run(const Mesh& mesh) noexcept {
    constexpr int kWide = 3;  // blocks of one hand, so that the adders need not wait on each other
    const int blocks = (mesh.vertices + kLanes - 1) / kLanes;
    int block = 0;
    if (mesh.count == 1)
        for (; block + kWide <= blocks; block += kWide) tile<Kind, 1, kWide>(mesh, mesh.hands, block);
    for (; block < blocks; ++block) {
        const MeshHand* hand = mesh.hands;
        for (int tiles = (mesh.count + kMostHands<Kind> - 1) / kMostHands<Kind>, left = mesh.count; tiles > 0; --tiles) {
            const int hands = (left + tiles - 1) / tiles;
            tile_of<Kind>(hands, mesh, hand, block);
            hand += hands;
            left -= hands;
        }
    }
}

}  // namespace

void mesh_f32(const Mesh& mesh) noexcept { run<F32>(mesh); }
void mesh_bf16(const Mesh& mesh) noexcept { run<Bf16>(mesh); }
void mesh_int8(const Mesh& mesh) noexcept { run<Int8>(mesh); }

}  // namespace BEINGH0_ISA
}  // namespace beingh0
