// Shared by mano.cpp and mano_jacobian.cpp.
#pragma once

#include "kernels.hpp"

namespace beingh0 {
namespace mano {

using Affine = float[12];  // rows of a 3x4 matrix

// Joints 0..15 are MANO's, 16..20 the tips thumb to little. MANO's fingers are index, middle, little, ring, thumb.
constexpr int kKeypointOrder[HandModel::kKeypoints] = {0, 13, 14, 15, 16, 1,  2, 3, 17, 4, 5,
                                                       6, 18, 10, 11, 12, 19, 7, 8, 9,  20};

}  // namespace mano

struct HandModel::Hand {
    float axis_angle[kPoseAngles];  // not for matrices and 6D
    mano::Affine world[kJoints];    // joint's frame; only for a Jacobian
    float offset[3];
};

}  // namespace beingh0
