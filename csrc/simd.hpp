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

// Y = bias + sum over taps of X_tap W_tap.  Rows are pointers, so padding, stride, dilation and upsampling of a
// convolution are a matter of where they point (a row of zeros outside the sequence) and nothing is copied.
struct Gemm {
    const float* const* rows;  // [taps][m] pointers to at least `depth` floats
    int m, taps, depth;
    const float* weights;      // [panels][taps][depth][panel], 64-byte aligned
    int panels;
    const float* bias;         // [panels * panel]
    float* y;                  // [m] rows of at least panels * panel floats
    ptrdiff_t y_stride;        // floats between rows of y
    bool accumulate;           // add to what y holds
    bool relu;                 // max(., 0) at the end; NaN stays NaN
};

// Linear blend skinning.  Vertices come in blocks of 16; a block lists the joints that move any of its vertices.
struct Skin {
    const float* rest;           // [3][stride]: x of all vertices, then y, then z
    ptrdiff_t stride;
    const float* transforms;     // [16][12], rows of 3x4 matrices, translation in column 3
    const int32_t* block_start;  // [blocks + 1] into block_joint
    const int32_t* block_joint;  // joint of each entry
    const float* block_weight;   // [entries][16]
    int vertices;
    const float* offset;         // [3], added to every vertex
    float* out;                  // [vertices][3]
};

struct Simd {
    const char* name;
    int panel;     // output columns per panel of packed weights
    void (*gemm)(const Gemm&) noexcept;
    void (*skin)(const Skin&) noexcept;
    // Rows are `stride` floats apart; channels beyond `channels` are left alone. Operations on x -> y, x may equal y.
    void (*activate)(const float* x, float* y, int rows, int channels, ptrdiff_t stride, Activation) noexcept;
    void (*affine)(const float* x, float* y, int rows, int channels, ptrdiff_t stride,
                   const float* scale, const float* shift) noexcept;
    // Mean 0, variance 1 over `rows` rows x `channels` channels, then scale and shift per channel.
    void (*normalise)(const float* x, float* y, int rows, int channels, ptrdiff_t stride,
                      const float* scale, const float* shift, float eps) noexcept;
    // n rotations of at most some thousand turns, radians -> row-major 3x3.
    void (*axis_angle_to_matrix)(const float* axis_angle, int64_t n, float* matrix) noexcept;
    // y = rows[0] + .. + rows[count - 1]
    void (*sum_rows)(const float* const* rows, int count, int channels, float* y) noexcept;
};

// The table in use: the best this machine runs, or the one BEINGH0_ISA names.
// Throws std::invalid_argument when BEINGH0_ISA names a set that is unknown or absent here.
const Simd& simd();

// Names of the tables this machine can run, best first.
const char* const* available_isas(int& count) noexcept;

}  // namespace beingh0
