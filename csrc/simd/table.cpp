#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {

#define BEINGH0_STRING_(x) #x
#define BEINGH0_STRING(x) BEINGH0_STRING_(x)

#if defined(__AVX512BF16__)
constexpr bool kBf16Rows = true;
#else
constexpr bool kBf16Rows = false;
#endif

extern const Simd table;
const Simd table = {BEINGH0_STRING(BEINGH0_ISA), kLanes, kPanel, kBf16Rows, {gemm_f32, gemm_bf16, gemm_int8, gemm_int8_bytes},
                    chain, {mesh_f32, mesh_bf16, mesh_int8}, to_bf16, to_int16, to_bytes, activate, affine, normalise,
                    axis_angle_to_matrix, rot6d_to_matrix, sum_rows};

}  // namespace BEINGH0_ISA
}  // namespace beingh0
