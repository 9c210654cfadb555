// The chain of joints, a hand per lane: joints and finger tips, and the transforms that skin a mesh. A hand without
// neighbours goes through as plain numbers. What is fused is written out, so that it is the same bits alone and among
// others.
#include <type_traits>

#if defined(__AVX512F__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wuninitialized"  // what the header of GCC 12 leaves open on purpose
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif
#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {
namespace {

constexpr int kJoints = kHandJoints, kTips = kHandTips, kKeypoints = kJoints + kTips;

#if defined(__AVX512F__)
#define BEINGH0_WIDE(name) _mm512_##name
typedef __m512 Wide;
#elif defined(__AVX__)
#define BEINGH0_WIDE(name) _mm256_##name
typedef __m256 Wide;
#elif defined(__x86_64__)
#define BEINGH0_WIDE(name) _mm_##name
typedef __m128 Wide;
#endif

// Of every four lanes: a 4x4 matrix, transposed.
BEINGH0_INLINE void transpose(Vec (&a)[4]) {
#if defined(__x86_64__)
    const Wide x = (Wide)a[0], y = (Wide)a[1], z = (Wide)a[2], w = (Wide)a[3];
    const Wide low = BEINGH0_WIDE(unpacklo_ps)(x, y), low2 = BEINGH0_WIDE(unpacklo_ps)(z, w);
    const Wide high = BEINGH0_WIDE(unpackhi_ps)(x, y), high2 = BEINGH0_WIDE(unpackhi_ps)(z, w);
    a[0] = (Vec)BEINGH0_WIDE(shuffle_ps)(low, low2, _MM_SHUFFLE(1, 0, 1, 0));
    a[1] = (Vec)BEINGH0_WIDE(shuffle_ps)(low, low2, _MM_SHUFFLE(3, 2, 3, 2));
    a[2] = (Vec)BEINGH0_WIDE(shuffle_ps)(high, high2, _MM_SHUFFLE(1, 0, 1, 0));
    a[3] = (Vec)BEINGH0_WIDE(shuffle_ps)(high, high2, _MM_SHUFFLE(3, 2, 3, 2));
#elif defined(__aarch64__)
    const float32x4x2_t even = vtrnq_f32((float32x4_t)a[0], (float32x4_t)a[1]);
    const float32x4x2_t odd = vtrnq_f32((float32x4_t)a[2], (float32x4_t)a[3]);
    for (int i = 0; i < 2; ++i) {
        a[i] = (Vec)vcombine_f32(vget_low_f32(even.val[i]), vget_low_f32(odd.val[i]));
        a[2 + i] = (Vec)vcombine_f32(vget_high_f32(even.val[i]), vget_high_f32(odd.val[i]));
    }
#else
    for (int from = 0; from < kLanes; from += 4)
        for (int i = 0; i < 4; ++i)
            for (int k = 0; k < i; ++k) {
                const float kept = a[i][from + k];
                a[i][from + k] = a[k][from + i];
                a[k][from + i] = kept;
            }
#endif
}

// Four numbers of hand `first` and of the fourth after it ..; and back.
BEINGH0_INLINE Vec fours(const float* const* from, int first, ptrdiff_t at) {
#if defined(__AVX512F__)
    __m512 all = _mm512_castps128_ps512(_mm_loadu_ps(from[first] + at));
    all = _mm512_insertf32x4(all, _mm_loadu_ps(from[first + 4] + at), 1);
    all = _mm512_insertf32x4(all, _mm_loadu_ps(from[first + 8] + at), 2);
    return (Vec)_mm512_insertf32x4(all, _mm_loadu_ps(from[first + 12] + at), 3);
#elif defined(__AVX__)
    return (Vec)_mm256_insertf128_ps(_mm256_castps128_ps256(_mm_loadu_ps(from[first] + at)),
                                     _mm_loadu_ps(from[first + 4] + at), 1);
#else
    return *reinterpret_cast<const Vec*>(from[first] + at);
#endif
}

BEINGH0_INLINE void put_fours(Vec value, float* const* to, int first, ptrdiff_t at) {
#if defined(__AVX512F__)
    const __m512 v = (__m512)value;
    _mm_storeu_ps(to[first] + at, _mm512_castps512_ps128(v));
    _mm_storeu_ps(to[first + 4] + at, _mm512_extractf32x4_ps(v, 1));
    _mm_storeu_ps(to[first + 8] + at, _mm512_extractf32x4_ps(v, 2));
    _mm_storeu_ps(to[first + 12] + at, _mm512_extractf32x4_ps(v, 3));
#elif defined(__AVX__)
    const __m256 v = (__m256)value;
    _mm_storeu_ps(to[first] + at, _mm256_castps256_ps128(v));
    _mm_storeu_ps(to[first + 4] + at, _mm256_extractf128_ps(v, 1));
#else
    *reinterpret_cast<Vec*>(to[first] + at) = value;
#endif
}

// N numbers of each of the hands, at least four, a hand per lane; lanes without a hand repeat the last. `same`: they are
// the first one's for all. In `room`, or where they are.
template <typename V, int N, const float* ChainHand::*from>
const V* numbers(const ChainHand* hand, [[maybe_unused]] int count, [[maybe_unused]] V* room, bool same = false) {
    if constexpr (std::is_same_v<V, float>) {
        return hand->*from;
    } else {
        if (same) {
            for (int k = 0; k < N; ++k) room[k] = splat((hand->*from)[k]);
            return room;
        }
        const float* of[kLanes];
        for (int h = 0; h < kLanes; ++h) of[h] = hand[h < count ? h : count - 1].*from;
        for (int k = 0; k < N; k += 4) {
            const int at = k + 4 <= N ? k : N - 4;
            Vec part[4];
            for (int i = 0; i < 4; ++i) part[i] = fours(of, i, at);
            transpose(part);
            for (int i = 0; i < 4; ++i) room[at + i] = part[i];
        }
        return room;
    }
}

// Where numbers of each hand go.
template <typename V>
struct Way {
    float* to[std::is_same_v<V, float> ? 1 : kLanes];

    template <typename Member>
    Way(const ChainHand* hand, int count, Member member) {
        int h = 0;
        for (float*& at : to) at = hand[h < count ? h : count - 1].*member, ++h;
    }

    // Four of them, one after the other.
    BEINGH0_INLINE void give(ptrdiff_t at, V a, V b, V c, V d) const {
        if constexpr (std::is_same_v<V, float>) {
            to[0][at] = a, to[0][at + 1] = b, to[0][at + 2] = c, to[0][at + 3] = d;
        } else {
            Vec part[4] = {a, b, c, d};
            transpose(part);
            for (int i = 0; i < 4; ++i) put_fours(part[i], to, i, at);
        }
    }
};

// a b + c, rounded once where the machine can.
BEINGH0_INLINE float fused(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}

BEINGH0_INLINE Vec fused(Vec a, Vec b, Vec c) {
#if defined(__FMA__)
    return (Vec)BEINGH0_WIDE(fmadd_ps)((Wide)a, (Wide)b, (Wide)c);
#elif defined(__aarch64__)
    return (Vec)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}

// A rotation and a translation, row by row.
template <typename V>
struct Frame {
    V turn[9], place[3];
};

template <typename V>
BEINGH0_INLINE V dot(const V* row, V x, V y, V z) {
    return fused(row[2], z, fused(row[1], y, row[0] * x));
}

template <typename V>
BEINGH0_INLINE void give_frame(const Way<V>& way, int j, const V* turn, const V* place) {
    for (int i = 0; i < 3; ++i) way.give(12 * j + 4 * i, turn[3 * i], turn[3 * i + 1], turn[3 * i + 2], place[i]);
}

template <typename V>
void chain_of(const Chain& chain, const ChainHand* hand, int count) {
    V room[9 * kJoints], joint_room[3 * kJoints], rest_room[3 * kTips];
    const V* const rotation = numbers<V, 9 * kJoints, &ChainHand::rotations>(hand, count, room);
    const V* const joint = numbers<V, 3 * kJoints, &ChainHand::joints>(hand, count, joint_room, chain.same_joints);
    const V* const rest = numbers<V, 3 * kTips, &ChainHand::tip_rest>(hand, count, rest_room);

    Frame<V> world[kJoints];
    V carried[kJoints][3];  // where a joint's frame takes the origin of the rest pose
    V point[kKeypoints][3];
    for (int j = 0; j < kJoints; ++j) {
        Frame<V>& f = world[j];
        const V *const r = rotation + 9 * j, *const from = joint + 3 * j;
        const int parent = chain.parents[j];
        if (parent < 0) {
            for (int i = 0; i < 9; ++i) f.turn[i] = r[i];
            for (int i = 0; i < 3; ++i) f.place[i] = from[i];
        } else {
            const Frame<V>& on = world[parent];
            V bone[3];
            for (int i = 0; i < 3; ++i) bone[i] = from[i] - joint[3 * parent + i];
            for (int i = 0; i < 3; ++i) {
                for (int k = 0; k < 3; ++k) f.turn[3 * i + k] = dot(on.turn + 3 * i, r[k], r[3 + k], r[6 + k]);
                f.place[i] = on.place[i] + dot(on.turn + 3 * i, bone[0], bone[1], bone[2]);
            }
        }
        for (int i = 0; i < 3; ++i) {
            carried[j][i] = f.place[i] - dot(f.turn + 3 * i, from[0], from[1], from[2]);
            point[j][i] = f.place[i];
        }
    }
    for (int t = 0; t < kTips; ++t) {
        const TipWeights& tip = chain.tips[t];
        V turn[9] = {}, place[3] = {};
        for (int e = 0; e < tip.count; ++e) {
            const V weight = tip.weight[e] - V{};
            for (int i = 0; i < 9; ++i) turn[i] = fused(weight, world[tip.joint[e]].turn[i], turn[i]);
            for (int i = 0; i < 3; ++i) place[i] = fused(weight, carried[tip.joint[e]][i], place[i]);
        }
        for (int i = 0; i < 3; ++i)
            point[kJoints + t][i] = place[i] + dot(turn + 3 * i, rest[3 * t], rest[3 * t + 1], rest[3 * t + 2]);
    }

    V offset[3] = {}, placed[3 * kKeypoints];
    for (int i = 0; i < 3; ++i) {
        if constexpr (std::is_same_v<V, float>) {
            if (hand->trans != nullptr) offset[i] = hand->trans[i];
        } else if (hand->trans != nullptr) {
            for (int h = 0; h < kLanes; ++h) offset[i][h] = hand[h < count ? h : count - 1].trans[i];
        }
        if (chain.center) offset[i] -= world[0].place[i];
        for (int h = 0; h < count; ++h) hand[h].offset[i] = reinterpret_cast<const float*>(offset + i)[h];
    }
    for (int k = 0; k < kKeypoints; ++k)
        for (int i = 0; i < 3; ++i) placed[3 * k + i] = point[chain.order[k]][i] + offset[i];
    const Way<V> keypoints(hand, count, &ChainHand::keypoints);
    for (int k = 0; k < 3 * kKeypoints; k += 4) {
        const int at = k + 4 <= 3 * kKeypoints ? k : 3 * kKeypoints - 4;
        keypoints.give(at, placed[at], placed[at + 1], placed[at + 2], placed[at + 3]);
    }
    if (hand->skin != nullptr) {
        const Way<V> skin(hand, count, &ChainHand::skin);
        for (int j = 0; j < kJoints; ++j) give_frame(skin, j, world[j].turn, carried[j]);
    }
    if (hand->world != nullptr) {
        const Way<V> frames(hand, count, &ChainHand::world);
        for (int j = 0; j < kJoints; ++j) give_frame(frames, j, world[j].turn, world[j].place);
    }
}

}  // namespace

void chain(const Chain& chain) noexcept {
    for (int first = 0; first < chain.count; first += kLanes) {
        const int count = chain.count - first < kLanes ? chain.count - first : kLanes;
        if (count == 1)
            chain_of<float>(chain, chain.hands + first, count);
        else
            chain_of<Vec>(chain, chain.hands + first, count);
    }
}

}  // namespace BEINGH0_ISA
}  // namespace beingh0
