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
constexpr int kMaxChain = 16;  // hinges between the palm and one point
constexpr int kMaxPairs = 128;
constexpr int kHumanKeypoints = 21;

using Vec3 = std::array<double, 3>;
using Mat3 = std::array<double, 9>;  // row-major

// Rodrigues' formula, axis of length 1.
Mat3 rotation_about(const Vec3& axis, double angle) noexcept;

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
    std::vector<int> chain;  // links that move it, palm first; filled by Hand::prepare
};

// Where every link is for one q.
struct Pose {
    std::array<Mat3, kMaxLinks> rotation;
    std::array<Vec3, kMaxLinks> origin, axis;
};

// Links in order parent before child; joints with bounds; points with the fingertips first.
struct Hand {
    std::vector<Link> links;
    std::vector<Point> points;
    int tips;
    std::vector<double> lower, upper;

    int joints() const noexcept { return static_cast<int>(lower.size()); }

    // Fills the chains. Returns the longest one; the caller refuses more than kMaxChain.
    int prepare();

    void place(const double* q, Pose& pose) const noexcept;
    // The first `count` points in the palm frame, double[count][3].
    void positions(const Pose& pose, int count, double* out) const noexcept;
    // d position / d q of the first `count` points, double[count][3][joints].
    void jacobian(const Pose& pose, const double* positions, int count, double* out) const noexcept;
};

// How one finger's human tip becomes a target: base + map * (human tip - human base).
struct Finger {
    int tip;        // index into Hand::points, below Hand::tips
    int human_tip;  // keypoint indices
    int human_base;
    Vec3 base;  // palm frame
    Mat3 map;   // human wrist frame -> palm frame, with a scale
};

// Two segments of different fingers, between points a0-a1 and b0-b1, that must not come closer than `distance`.
struct Pair {
    int a0, a1, b0, b1;
    double distance;
};

struct Objective {
    std::vector<Finger> fingers;
    std::vector<Pair> pairs;
    int thumb;             // index into fingers, -1 when the hand has none
    Mat3 palm_from_wrist;  // rotation of the human wrist frame into the palm frame
    double huber_m;        // fingertip errors beyond this count linearly
    double smoothness_m2;  // weight of |q - previous q|^2
    double pinch_weight;   // weight of a thumb-finger gap when closed; a fingertip has weight 1
    double pinch_near_m;   // human gap at and below which the weight is full
    double pinch_far_m;    // human gap at and beyond which it is zero; smooth in between
    double pair_weight;    // of the squared missing distance
};

// One frame. keypoints double[21][3], wrist frame. On return q holds the solution, within bounds; on entry the angles
// of the frame before (also the start). Returns the number of iterations.
int solve_frame(const Hand& hand, const Objective& objective, const double* keypoints, double* q) noexcept;

// The objective's value at q for one frame with the given previous angles; gradient double[joints] unless null.
double objective_value(const Hand& hand, const Objective& objective, const double* keypoints, const double* previous,
                       const double* q, double* gradient) noexcept;

// Smallest distance between the segments of each pair at q, double[pairs].
void pair_distances(const Hand& hand, const Objective& objective, const double* q, double* out) noexcept;

// How a human hand must look to be followed. palm: wrist, thumb root and four knuckles of the open hand.
struct Shape {
    std::array<Vec3, 6> palm;
    double max_wrist_m;     // of the wrist from the origin
    double max_size_ratio;  // of wrist to middle knuckle, either way
    double max_reach_m;     // of any keypoint from the wrist frame's origin
    double max_palm_error;  // of a palm point, in units of wrist to middle knuckle
};

// Whether keypoints float[21][3] are finite and such a hand.
bool is_hand(const Shape& shape, const float* keypoints) noexcept;

}  // namespace beingh0::retarget
