// Human keypoints to the joint angles of a robot hand: kinematics of a tree of hinges and a bounded least-squares
// solver. Plain C++: no Python, no exceptions, no allocation after the description is built. float64 throughout,
// metres, radians.
#pragma once

#include <array>
#include <vector>

namespace beingh0::retarget {

constexpr int kMaxJoints = 32;  // driven joints
constexpr int kMaxLinks = 64;   // hinges, driven or coupled
constexpr int kMaxPoints = 64;  // points fixed to links, fingertips among them
constexpr int kMaxFingers = 5;
constexpr int kHumanKeypoints = 21;

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;  // row-major

// A hinge and the link it moves. Link frames are parallel to the palm frame when every angle is 0.
struct Link {
    int parent;         // index of an earlier link, -1 for the palm
    Vec3 origin;        // hinge in the parent's frame
    Vec3 axis;          // unit, right-hand rule
    int joint;          // driven joint that moves it
    double multiplier;  // angle = multiplier * q[joint] + offset
    double offset;
};

struct Point {
    int link;  // -1 for the palm
    Vec3 position;
};

// Links in order parent before child; joints with bounds; points with the fingertips first.
struct Hand {
    std::vector<Link> links;
    std::vector<Point> points;
    int tips;
    std::vector<double> lower, upper;

    int joints() const noexcept { return static_cast<int>(lower.size()); }

    // The first `count` points in the palm frame; positions double[count][3]. With jacobian, also d position / d q,
    // double[count][3][joints].
    void forward(const double* q, int count, double* positions, double* jacobian) const noexcept;
};

// How one finger's human tip becomes a target: base + map * (human tip - human base).
struct Finger {
    int tip;        // index into Hand::points, below Hand::tips
    int human_tip;  // keypoint indices
    int human_base;
    Vec3 base;  // the finger's base in the palm frame
    Mat3 map;   // human wrist frame -> palm frame, with the ratio of finger lengths
};

struct Objective {
    std::vector<Finger> fingers;
    int thumb;             // index into fingers, -1 when the hand has none
    Mat3 palm_from_wrist;  // rotation of the human wrist frame into the palm frame
    double huber_m;        // fingertip errors beyond this count linearly
    double smoothness_m2;  // weight of |q - previous q|^2
    double pinch_weight;   // weight of a thumb-finger gap when closed; a fingertip has weight 1
    double pinch_near_m;   // human gap at and below which the weight is full
    double pinch_far_m;    // human gap at and beyond which it is zero; smooth in between
};

// One frame. keypoints double[21][3], wrist frame. On return q holds the solution, within bounds; on entry the angles
// of the frame before (also the start). Returns the number of iterations.
int solve_frame(const Hand& hand, const Objective& objective, const double* keypoints, double* q) noexcept;

// The objective's value at q for one frame with the given previous angles.
double objective_value(const Hand& hand, const Objective& objective, const double* keypoints, const double* previous,
                       const double* q) noexcept;

}  // namespace beingh0::retarget
