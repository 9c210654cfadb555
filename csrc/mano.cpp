// MANO forward kinematics: pose -> 21 keypoints, and the mesh on request.
//
// Keypoints need 16 joint transforms and five vertices, about one per cent of the mesh's work. Hands go through in
// blocks, so that one sweep over the pose blend shapes (1.3 MB) serves all of them.
#include <cmath>

#include "kernels.hpp"

namespace beingh0 {
namespace {

constexpr int kBlock = 8;          // hands per sweep
constexpr int kVertexBlock = 16;   // vertices per skinning block
constexpr int kVertexStride = (HandModel::kVertices + kVertexBlock - 1) / kVertexBlock * kVertexBlock;
constexpr int kFeatureStride = 144;  // 135 rounded up, rows stay aligned
constexpr int kBetaStride = 16;

// Joints 0..15 are MANO's, 16..20 the tips thumb to little. MANO's fingers are index, middle, little, ring, thumb.
constexpr int kKeypointOrder[HandModel::kKeypoints] = {0, 13, 14, 15, 16, 1,  2, 3, 17, 4, 5,
                                                       6, 18, 10, 11, 12, 19, 7, 8, 9,  20};

using Affine = float[12];  // rows of a 3x4 matrix
typedef float Row __attribute__((vector_size(16), aligned(4), may_alias));  // one row: four floats

// out = parent * [rotation | offset]
void compose(const Affine& parent, const float* rotation, const float* offset, Affine& out) noexcept {
    Row local[3];
    for (int i = 0; i < 3; ++i)
        local[i] = Row{rotation[3 * i], rotation[3 * i + 1], rotation[3 * i + 2], offset[i]};
    for (int i = 0; i < 3; ++i) {
        const float* const a = parent + 4 * i;
        *reinterpret_cast<Row*>(out + 4 * i) = a[0] * local[0] + a[1] * local[1] + a[2] * local[2] + Row{0, 0, 0, a[3]};
    }
}

void transform(const Affine& m, const float* p, float* out) noexcept {
    for (int i = 0; i < 3; ++i) out[i] = m[4 * i] * p[0] + m[4 * i + 1] * p[1] + m[4 * i + 2] * p[2] + m[4 * i + 3];
}

}  // namespace

HandModel::HandModel(const Source& s)
    : features_(kBlock * kFeatureStride), betas_(kBlock * kBetaStride), transforms_(kBlock * kJoints * 12) {
    for (int j = 0; j < kJoints; ++j) parents_[j] = s.parents[j];

    // Joints are linear in betas: regress template and directions once, in double.
    for (int j = 0; j < kJoints; ++j)
        for (int i = 0; i < 3; ++i) {
            double base = 0.0, dirs[kBetas] = {};
            for (int v = 0; v < kVertices; ++v) {
                const double r = s.j_regressor[j * kVertices + v];
                base += r * s.v_template[3 * v + i];
                for (int b = 0; b < kBetas; ++b) dirs[b] += r * s.shapedirs[(3 * v + i) * kBetas + b];
            }
            joint_template_[j][i] = static_cast<float>(base);
            for (int b = 0; b < kBetas; ++b) joint_dirs_[b][j][i] = static_cast<float>(dirs[b]);
        }

    // Mesh columns are [x of all vertices | y | z], padded so that skinning reads whole blocks.
    const int columns = 3 * kVertexStride;
    const std::size_t width = static_cast<std::size_t>(columns);
    std::vector<float> bias(width), shape(width * kBetas), pose(width * kPoseDirs);
    for (int v = 0; v < kVertices; ++v)
        for (int i = 0; i < 3; ++i) {
            const std::size_t column = static_cast<std::size_t>(i) * kVertexStride + v;
            bias[column] = s.v_template[3 * v + i];
            for (int b = 0; b < kBetas; ++b) shape[b * width + column] = s.shapedirs[(3 * v + i) * kBetas + b];
            for (int k = 0; k < kPoseDirs; ++k) pose[k * width + column] = s.posedirs[(3 * v + i) * kPoseDirs + k];
        }
    shape_ = PackedWeights(shape.data(), 1, kBetas, columns, 0, columns, 1, bias.data());
    pose_ = PackedWeights(pose.data(), 1, kPoseDirs, columns, 0, columns, 1, nullptr);
    rest_.resize(static_cast<std::size_t>(kBlock) * pose_.columns());

    for (int set = 0; set < kTipSets; ++set) {
        constexpr int kColumns = 3 * kTips;
        std::vector<float> tip_bias(kColumns), tip_shape(kColumns * kBetas), tip_pose(kColumns * kPoseDirs);
        for (int tip = 0; tip < kTips; ++tip) {
            const int v = s.tips[set * kTips + tip];
            for (int i = 0; i < 3; ++i) {
                tip_bias[3 * tip + i] = s.v_template[3 * v + i];
                for (int b = 0; b < kBetas; ++b)
                    tip_shape[b * kColumns + 3 * tip + i] = s.shapedirs[(3 * v + i) * kBetas + b];
                for (int k = 0; k < kPoseDirs; ++k)
                    tip_pose[k * kColumns + 3 * tip + i] = s.posedirs[(3 * v + i) * kPoseDirs + k];
            }
            TipWeights& w = tip_weights_[set][tip];
            w.count = 0;
            for (int j = 0; j < kJoints; ++j)
                if (s.weights[v * kJoints + j] != 0.0f) {
                    w.joint[w.count] = j;
                    w.weight[w.count++] = s.weights[v * kJoints + j];
                }
        }
        tip_shape_[set] = PackedWeights(tip_shape.data(), 1, kBetas, kColumns, 0, kColumns, 1, tip_bias.data());
        tip_pose_[set] = PackedWeights(tip_pose.data(), 1, kPoseDirs, kColumns, 0, kColumns, 1, nullptr);
        fixed_.tip_bias[set].resize(tip_shape_[set].bias.size());
    }
    tip_rest_.resize(static_cast<std::size_t>(kBlock) * tip_pose_[0].columns());

    block_start_.push_back(0);
    std::vector<float> weights;
    for (int first = 0; first < kVertices; first += kVertexBlock) {
        for (int j = 0; j < kJoints; ++j) {
            float lane[kVertexBlock] = {};
            bool used = false;
            for (int v = first; v < first + kVertexBlock && v < kVertices; ++v) {
                lane[v - first] = s.weights[v * kJoints + j];
                used = used || lane[v - first] != 0.0f;
            }
            if (!used) continue;
            block_joint_.push_back(j);
            weights.insert(weights.end(), lane, lane + kVertexBlock);
        }
        block_start_.push_back(static_cast<std::int32_t>(block_joint_.size()));
    }
    block_weight_.resize(weights.size());
    std::memcpy(block_weight_.data(), weights.data(), weights.size() * sizeof(float));

    fixed_.template_bias.resize(shape_.bias.size());
    const float no_betas[kBetas] = {};
    set_shape(no_betas);
}

void HandModel::shape_joints(const float* betas, float (*joints)[3]) const noexcept {
    for (int j = 0; j < kJoints; ++j)
        for (int i = 0; i < 3; ++i) {
            float sum = joint_template_[j][i];
            for (int b = 0; b < kBetas; ++b) sum += joint_dirs_[b][j][i] * betas[b];
            joints[j][i] = sum;
        }
}

// Betas stay the same for a user's whole session: the shaped template and joints are kept.
void HandModel::set_shape(const float* betas) noexcept {
    std::memcpy(fixed_.betas, betas, sizeof fixed_.betas);
    shape_joints(betas, fixed_.joints);
    float padded[kBetaStride] = {};
    std::memcpy(padded, betas, sizeof fixed_.betas);
    const float* const row = padded;
    shape_.multiply(&row, 1, fixed_.template_bias.data(), 0);
    for (int set = 0; set < kTipSets; ++set) tip_shape_[set].multiply(&row, 1, fixed_.tip_bias[set].data(), 0);
}

void HandModel::forward(const Batch& batch) noexcept {
    if (!batch.betas_per_hand && std::memcmp(batch.betas, fixed_.betas, sizeof fixed_.betas) != 0)
        set_shape(batch.betas);
    for (std::int64_t first = 0; first < batch.count; first += kBlock) {
        const std::int64_t left = batch.count - first;
        forward_block(batch, first, static_cast<int>(left < kBlock ? left : kBlock));
    }
}

void HandModel::forward_block(const Batch& b, std::int64_t first, int count) noexcept {
    const float* feature_rows[kBlock];
    const float* beta_rows[kBlock];
    float posed[kBlock][kJoints][3];
    float offset[kBlock][3];

    for (int h = 0; h < count; ++h) {
        const std::int64_t hand = first + h;
        float shaped[kJoints][3];
        const float(*joints)[3] = fixed_.joints;
        if (b.betas_per_hand) {
            float* const row = betas_.data() + h * kBetaStride;
            std::memcpy(row, b.betas + hand * kBetas, sizeof fixed_.betas);
            beta_rows[h] = row;
            shape_joints(row, shaped);
            joints = shaped;
        }

        float converted[kJoints * 9];
        const float* rotations = converted;
        if (b.matrices) {
            rotations = b.pose + hand * kJoints * 9;
        } else {
            float pose[kJoints * 3];
            std::memcpy(pose, b.pose + hand * kJoints * 3, sizeof pose);
            if (b.mean_pose != nullptr)
                for (int i = 3; i < kJoints * 3; ++i) pose[i] += b.mean_pose[i - 3];
            axis_angle_to_matrix(pose, kJoints, converted);
        }

        float* const feature = features_.data() + h * kFeatureStride;
        feature_rows[h] = feature;
        for (int k = 0; k < kPoseDirs; ++k) feature[k] = rotations[9 + k] - (k % 9 % 4 == 0 ? 1.0f : 0.0f);

        Affine world[kJoints];
        static constexpr Affine identity = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
        for (int j = 0; j < kJoints; ++j) {
            const int parent = parents_[j];
            if (parent < 0) {
                compose(identity, rotations + 9 * j, joints[j], world[j]);
            } else {
                const float bone[3] = {joints[j][0] - joints[parent][0], joints[j][1] - joints[parent][1],
                                       joints[j][2] - joints[parent][2]};
                compose(world[parent], rotations + 9 * j, bone, world[j]);
            }
        }
        // Skinning takes points of the rest pose: move the joint's rest position to the origin first.
        float* const skin = transforms_.data() + h * kJoints * 12;
        for (int j = 0; j < kJoints; ++j)
            for (int i = 0; i < 3; ++i) {
                const float* const row = world[j] + 4 * i;
                float* const to = skin + 12 * j + 4 * i;
                posed[h][j][i] = row[3];
                std::memcpy(to, row, 3 * sizeof(float));
                to[3] = row[3] - (row[0] * joints[j][0] + row[1] * joints[j][1] + row[2] * joints[j][2]);
            }
        for (int i = 0; i < 3; ++i)
            offset[h][i] = (b.trans != nullptr ? b.trans[3 * hand + i] : 0.0f) - (b.center ? posed[h][0][i] : 0.0f);
    }

    const PackedWeights& tip_pose = tip_pose_[b.tips];
    const std::ptrdiff_t tip_stride = tip_pose.columns();
    if (b.betas_per_hand) tip_shape_[b.tips].multiply(beta_rows, count, tip_rest_.data(), tip_stride);
    tip_pose.multiply(feature_rows, count, tip_rest_.data(), tip_stride, b.betas_per_hand, false,
                      b.betas_per_hand ? nullptr : fixed_.tip_bias[b.tips].data());
    for (int h = 0; h < count; ++h) {
        const float* const skin = transforms_.data() + h * kJoints * 12;
        float points[kKeypoints][3];
        std::memcpy(points, posed[h], sizeof posed[h]);
        for (int tip = 0; tip < kTips; ++tip) {
            const TipWeights& w = tip_weights_[b.tips][tip];
            Affine blended = {};
            for (int e = 0; e < w.count; ++e)
                for (int i = 0; i < 12; ++i) blended[i] += w.weight[e] * skin[12 * w.joint[e] + i];
            transform(blended, tip_rest_.data() + h * tip_stride + 3 * tip, points[kJoints + tip]);
        }
        float* const out = b.keypoints + (first + h) * kKeypoints * 3;
        for (int k = 0; k < kKeypoints; ++k)
            for (int i = 0; i < 3; ++i) out[3 * k + i] = points[kKeypointOrder[k]][i] + offset[h][i];
    }

    if (b.vertices == nullptr) return;
    const std::ptrdiff_t stride = pose_.columns();
    if (b.betas_per_hand) shape_.multiply(beta_rows, count, rest_.data(), stride);
    pose_.multiply(feature_rows, count, rest_.data(), stride, b.betas_per_hand, false,
                   b.betas_per_hand ? nullptr : fixed_.template_bias.data());
    for (int h = 0; h < count; ++h)
        simd().skin({rest_.data() + h * stride, kVertexStride, transforms_.data() + h * kJoints * 12,
                     block_start_.data(), block_joint_.data(), block_weight_.data(), kVertices, offset[h],
                     b.vertices + (first + h) * kVertices * 3});
}

}  // namespace beingh0
