#include "vec.hpp"

namespace beingh0 {
namespace BEINGH0_ISA {

#define BEINGH0_STRING_(x) #x
#define BEINGH0_STRING(x) BEINGH0_STRING_(x)

extern const Simd table;
const Simd table = {BEINGH0_STRING(BEINGH0_ISA), kPanel, gemm, skin, activate, affine, normalise,
                    axis_angle_to_matrix, sum_rows};

}  // namespace BEINGH0_ISA
}  // namespace beingh0
