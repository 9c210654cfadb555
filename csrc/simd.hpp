// The inner loops that are compiled once per instruction set, behind one table of function pointers.
//
// csrc/simd/*.cpp are compiled several times with different flags, each into its own namespace. They call nothing that
// could be emitted as a shared inline function (no C++ library headers): the linker would keep one copy of it, maybe
// the AVX-512 one, and a machine without AVX-512 would run into it.
#pragma once

#include <stddef.h>
#include <stdint.h>

namespace beingh0 {

enum class Activation : int { relu, silu, gelu };

// How weights are kept. Sums are float32 whatever it is (int8: int32 within a tap, which is exact, float32 between taps).
enum class Storage : int { f32, bf16, int8 };
constexpr int kStorages = 3;

// How a product takes its rows: int8 beside rows of 16-bit numbers, or of 7 bits where none is negative.
enum class Product : int { f32, bf16, int8, int8_bytes };
constexpr int kProducts = 4;

// One row of X: its product with a tap's weights is added to y, and to y2 unless that is null (an upsampled frame is
// multiplied once for both frames it becomes).
struct GemmRow {
    const void* x;  // `depth` floats; int8: int16; int8_bytes: 0 to 127; bf16: bf16 if Simd::bf16_rows
    float* y;       // at least panels * panel floats
    float* y2;
    float scale;    // of a row of integers
};

// Y = bias + sum over taps of X_tap W_tap.  Rows are pointers, so padding, stride, dilation and upsampling of a
// convolution are a matter of where they point and nothing is copied.
struct Gemm {
    const GemmRow* rows;       // those of tap 0, then of tap 1 ..; tap 0 names every row of Y, the others may skip some
    const int* tap_start;      // [taps + 1] into rows
    int taps, depth;           // depth is a multiple of s: 1 of f32, 4 of int8_bytes, else 2
    const void* weights;       // 64-byte aligned; [panels][taps][depth/s][panel][s]
    const float* weight_scale; // int8: [taps][panels * panel]
    int panels;
    const float* bias;         // [panels * panel]
    bool accumulate;           // add to what y holds
    bool relu;                 // max(., 0) at the end; NaN stays NaN
    const void* next;          // weights that are multiplied next, so that they can be fetched, or null
    int next_taps;
};

constexpr int kHandJoints = 16, kHandTips = 5, kHandKeypoints = kHandJoints + kHandTips;

// The joints that move a finger's tip.
struct TipWeights {
    int count;
    int joint[kHandJoints];
    float weight[kHandJoints];
};

// Hands whose joints are turned, parents first. A transform is three rows of four, a translation in column 3. What may be
// null is null of all hands or of none.
struct ChainHand {
    const float* rotations;  // [16][3][3]
    const float* joints;     // [16][3] in the rest pose
    const float* tip_rest;   // [5][3]
    const float* trans;      // [3] added to all points, or null
    float* keypoints;        // [21][3]
    float* offset;           // [3] of all points: `trans`, less the wrist where it is centred
    float* skin;             // [16][12] rest pose -> posed but for the offset, or null
    float* world;            // [16][12] the joints' frames but for the offset, or null
};

struct Chain {
    const ChainHand* hands;
    int count;
    const int* parents;      // [16], -1 for the wrist
    const TipWeights* tips;  // [5]
    const int* order;        // [21] of the keypoints: joints, 16 .. 20 for the tips
    bool same_joints;        // all hands have the first one's
    bool center;             // the wrist to the origin
};

// Meshes of posed hands: rest vertices, moved by the pose blend shapes, skinned. Vertices come in blocks of `lanes`; of
// each block all that is needed lies together, so that a block's pose blends are read once and nothing is written but
// the vertices.
struct MeshHand {
    const void* features;     // `depth` numbers as GemmRow::x
    float scale;              // of int16 features
    const float* betas;       // [10], or null where `rest` is the shaped template
    const float* transforms;  // [16][12], rows of 3x4 matrices, translation in column 3
    const float* offset;      // [3], added to every vertex
    float* out;               // [vertices][3]
};

struct Mesh {
    const MeshHand* hands;
    int count;
    int vertices, depth;         // depth is even except with f32 weights
    const float* rest;           // [blocks][3][lanes]: x, y, z
    const float* shape;          // [blocks][10][3][lanes]
    const void* pose;            // 64-byte aligned; f32: [blocks][depth][3][lanes], else [blocks][depth/2][3][lanes][2]
    const float* pose_scale;     // int8: [blocks][3][lanes]
    const int32_t* block_start;      // [blocks + 1] into block_transform
    const int32_t* block_transform;  // where in transforms: of the joints that move any vertex of the block
    const float* block_weight;   // [entries][lanes]
};

struct Simd {
    const char* name;
    int lanes;     // floats of a vector
    int panel;     // output columns per panel of packed weights
    bool bf16_rows;  // bf16 weights are multiplied with rows rounded to bf16 (the instruction wants both so)
    void (*gemm[kProducts])(const Gemm&) noexcept;
    void (*chain)(const Chain&) noexcept;
    void (*mesh[kStorages])(const Mesh&) noexcept;
    // x[n] -> bf16, nearest, ties to even; a zero follows an odd n.
    void (*to_bf16)(const float* x, int n, uint16_t* y) noexcept;
    // x[n] -> integers of at most `limit` times the scale returned, which is NaN if x holds something not finite; a
    // zero follows an odd n.
    float (*to_int16)(const float* x, int n, int limit, int16_t* y) noexcept;
    // The same of x of which none is negative, at most 127; zeros follow up to a multiple of 4.
    float (*to_bytes)(const float* x, int n, int8_t* y) noexcept;
    // Rows are `stride` floats apart; channels beyond `channels` are left alone. Operations on x -> y, x may equal y.
    void (*activate)(const float* x, float* y, int rows, int channels, ptrdiff_t stride, Activation) noexcept;
    void (*affine)(const float* x, float* y, int rows, int channels, ptrdiff_t stride,
                   const float* scale, const float* shift) noexcept;
    // Mean 0, variance 1 over `rows` rows x `channels` channels, then scale and shift per channel.
    void (*normalise)(const float* x, float* y, int rows, int channels, ptrdiff_t stride,
                      const float* scale, const float* shift, float eps) noexcept;
    // n rotations of at most some thousand turns, radians -> row-major 3x3.
    void (*axis_angle_to_matrix)(const float* axis_angle, int64_t n, float* matrix) noexcept;
    // First two columns of each matrix, row by row (interleaved) or one after the other -> row-major 3x3.
    void (*rot6d_to_matrix)(const float* rot6d, int64_t n, bool interleaved, float* matrix) noexcept;
    // y = rows[0] + .. + rows[count - 1]
    void (*sum_rows)(const float* const* rows, int count, int channels, float* y) noexcept;
};

// The table in use: the best this machine runs, or the one that use_isa or the environment's BEINGH0_ISA named.
// Objects keep the table they were built with. Throws std::invalid_argument when BEINGH0_ISA names a set that is
// unknown or absent here.
const Simd& simd();

// From now on; null or "" for the best. Throws std::invalid_argument as above. Not while others build or convert.
void use_isa(const char* name);

// Names of the tables this machine can run, best first.
const char* const* available_isas(int& count) noexcept;

}  // namespace beingh0
