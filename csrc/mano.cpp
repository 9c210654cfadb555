// MANO forward kinematics: pose -> 21 keypoints, and the mesh on request.
//
// Keypoints need 16 joint transforms and five vertices, about one per cent of the mesh's work. Hands go through in
// blocks, so that one sweep over the pose blend shapes (1.3 MB) serves all of them.
#include "mano.hpp"

#include <algorithm>

namespace beingh0 {

using namespace mano;

namespace {

constexpr int kBlock = 32;           // hands per sweep
constexpr int kFeatureStride = 144;  // 135 rounded up, rows stay aligned
constexpr int kBetaStride = 16;
constexpr int kTipColumns = 3 * HandModel::kTips;

}  // namespace

int HandModel::Batch::pose_width() const noexcept {
    switch (kind) {
        case Pose::axis_angle: return kPoseAngles;
        case Pose::matrix: return kJoints * 9;
        case Pose::pca: return 3 + components;
        default: return kJoints * 6;
    }
}

HandModel::HandModel(const Source& s)
    : simd_(&simd()), components_(kFingerAngles * kFingerAngles), mean_pose_(kFingerAngles) {
    std::memcpy(components_.data(), s.components, sizeof(float) * components_.size());
    std::memcpy(mean_pose_.data(), s.mean_pose, sizeof(float) * mean_pose_.size());
    for (int j = 0; j < kJoints; ++j) {
        parents_[j] = s.parents[j];
        moved_by_[j] = 0;
        for (int on = j; on >= 0; on = parents_[on]) moved_by_[on] |= 1u << j;
    }

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

    // Mesh columns are [x | y | z] of a block's vertices, then the next block's; the last block is padded.
    const int lanes = simd_->lanes, blocks = (kVertices + lanes - 1) / lanes, panel = 3 * lanes;
    const int columns = blocks * panel;
    const std::size_t width = static_cast<std::size_t>(columns);
    std::vector<float> bias(width), shape(width * kBetas), pose(width * kPoseDirs);
    for (int v = 0; v < kVertices; ++v)
        for (int i = 0; i < 3; ++i) {
            const std::size_t column = static_cast<std::size_t>(v / lanes) * panel + i * lanes + v % lanes;
            bias[column] = s.v_template[3 * v + i];
            for (int b = 0; b < kBetas; ++b) shape[b * width + column] = s.shapedirs[(3 * v + i) * kBetas + b];
            for (int k = 0; k < kPoseDirs; ++k) pose[k * width + column] = s.posedirs[(3 * v + i) * kPoseDirs + k];
        }
    shape_ = PackedWeights(shape.data(), 1, kBetas, columns, 0, columns, 1, bias.data(), Storage::f32, panel);
    pose_ = PackedWeights(pose.data(), 1, kPoseDirs, columns, 0, columns, 1, nullptr, s.pose_blends, panel);

    for (int set = 0; set < kTipSets; ++set) {
        std::vector<float> tip_bias(kTipColumns), tip_shape(kTipColumns * kBetas);
        FloatBuffer& tip_pose = tip_dirs_[set];
        tip_pose.resize(kTipColumns * kPoseDirs);
        for (int tip = 0; tip < kTips; ++tip) {
            const int v = s.tips[set * kTips + tip];
            for (int i = 0; i < 3; ++i) {
                tip_bias[3 * tip + i] = s.v_template[3 * v + i];
                for (int b = 0; b < kBetas; ++b)
                    tip_shape[b * kTipColumns + 3 * tip + i] = s.shapedirs[(3 * v + i) * kBetas + b];
                for (int k = 0; k < kPoseDirs; ++k)
                    tip_pose[k * kTipColumns + 3 * tip + i] = s.posedirs[(3 * v + i) * kPoseDirs + k];
            }
            TipWeights& w = tip_weights_[set][tip];
            w.count = 0;
            for (int j = 0; j < kJoints; ++j)
                if (s.weights[v * kJoints + j] != 0.0f) {
                    w.joint[w.count] = j;
                    w.weight[w.count++] = s.weights[v * kJoints + j];
                }
        }
        tip_shape_[set] = PackedWeights(tip_shape.data(), 1, kBetas, kTipColumns, 0, kTipColumns, 1, tip_bias.data());
        tip_pose_[set] = PackedWeights(tip_pose.data(), 1, kPoseDirs, kTipColumns, 0, kTipColumns, 1, nullptr);
    }

    block_start_.push_back(0);
    std::vector<float> weights;
    for (int first = 0; first < kVertices; first += lanes) {
        for (int j = 0; j < kJoints; ++j) {
            std::vector<float> lane(static_cast<std::size_t>(lanes));
            bool used = false;
            for (int v = first; v < first + lanes && v < kVertices; ++v) {
                lane[v - first] = s.weights[v * kJoints + j];
                used = used || lane[v - first] != 0.0f;
            }
            if (!used) continue;
            block_transform_.push_back(12 * j);
            weights.insert(weights.end(), lane.begin(), lane.end());
        }
        block_start_.push_back(static_cast<std::int32_t>(block_transform_.size()));
    }
    block_weight_.resize(weights.size());
    std::memcpy(block_weight_.data(), weights.data(), weights.size() * sizeof(float));
}

HandModel::Scratch::Scratch(const HandModel& m)
    : shaped_template(m.shape_.bias.size()), features(kBlock * kFeatureStride), beta_rows(kBlock * kBetaStride),
      rotations(kBlock * kJoints * 9), shaped_joints(kBlock * kJoints * 3),
      tip_rest(static_cast<std::size_t>(kBlock) * m.tip_pose_[0].columns()), transforms(kBlock * kJoints * 12),
      half(kBlock * kFeatureStride) {
    for (FloatBuffer& bias : tip_bias) bias.resize(m.tip_shape_[0].bias.size());
}

void HandModel::shape_joints(const float* betas, float* joints) const noexcept {
    for (int j = 0; j < kJoints; ++j)
        for (int i = 0; i < 3; ++i) {
            float sum = joint_template_[j][i];
            for (int b = 0; b < kBetas; ++b) sum += joint_dirs_[b][j][i] * betas[b];
            joints[3 * j + i] = sum;
        }
}

// Betas stay the same for a user's whole session: the shaped template and joints are kept.
void HandModel::set_shape(const float* betas, Scratch& s) const noexcept {
    std::memcpy(s.betas, betas, sizeof s.betas);
    shape_joints(betas, s.joints[0]);
    float padded[kBetaStride] = {};
    std::memcpy(padded, betas, sizeof s.betas);
    const int panel = 3 * simd_->lanes;
    const float* dirs = static_cast<const float*>(shape_.data());
    for (int first = 0; first < shape_.columns(); first += panel, dirs += kBetas * panel)
        for (int i = 0; i < panel; ++i) {
            float sum = 0.0f;
            for (int k = 0; k < kBetas; ++k) sum += dirs[k * panel + i] * betas[k];
            s.shaped_template[first + i] = shape_.bias[first + i] + sum;
        }
    const int one[2] = {0, 1};
    for (int set = 0; set < kTipSets; ++set) {
        const GemmRow tips = {padded, s.tip_bias[set].data(), nullptr, 1.0f};
        tip_shape_[set].multiply(&tips, one);
    }
    s.shaped = true;
}

void HandModel::forward(const Batch& batch, Scratch& scratch) const noexcept {
    if (!batch.betas_per_hand &&
        !(scratch.shaped && std::memcmp(batch.betas, scratch.betas, sizeof scratch.betas) == 0))
        set_shape(batch.betas, scratch);
    for (std::int64_t first = 0; first < batch.count; first += kBlock) {
        const std::int64_t left = batch.count - first;
        forward_block(batch, first, static_cast<int>(left < kBlock ? left : kBlock), scratch);
    }
}

// 16 matrices; for axis_angle and pca also the angles they come from.
void HandModel::rotations_of(const Batch& b, std::int64_t hand, float* rotations, float* axis_angle) const noexcept {
    const float* const pose = b.pose + hand * b.pose_width();
    switch (b.kind) {
        case Pose::matrix:
            std::memcpy(rotations, pose, sizeof(float) * kJoints * 9);
            return;
        case Pose::rot6d_interleaved:
        case Pose::rot6d_columns:
            simd_->rot6d_to_matrix(pose, kJoints, b.kind == Pose::rot6d_interleaved, rotations);
            return;
        case Pose::axis_angle:
            std::memcpy(axis_angle, pose, sizeof(float) * kPoseAngles);
            if (b.mean_pose)
                for (int i = 0; i < kFingerAngles; ++i) axis_angle[3 + i] += mean_pose_[i];
            break;
        case Pose::pca:
            std::memcpy(axis_angle, pose, sizeof(float) * 3);
            for (int i = 0; i < kFingerAngles; ++i) {
                float sum = b.mean_pose ? mean_pose_[i] : 0.0f;
                for (int c = 0; c < b.components; ++c) sum += pose[3 + c] * components_[c * kFingerAngles + i];
                axis_angle[3 + i] = sum;
            }
            break;
    }
    simd_->axis_angle_to_matrix(axis_angle, kJoints, rotations);
}

void HandModel::forward_block(const Batch& b, std::int64_t first, int count, Scratch& s) const noexcept {
    Hand hands[kBlock];
    ChainHand posed[kBlock];
    GemmRow features[kBlock], betas[kBlock];  // both to the tips
    const int rows[2] = {0, count};
    const bool mesh = b.vertices != nullptr, jacobian = b.jacobian != nullptr;
    const PackedWeights& tip_pose = tip_pose_[b.tips];

    for (int h = 0; h < count; ++h) {
        const std::int64_t hand = first + h;
        float* const rotations = s.rotations.data() + h * kJoints * 9;
        float* const tip_rest = s.tip_rest.data() + static_cast<std::ptrdiff_t>(h) * tip_pose.columns();
        const float* joints = s.joints[0];
        if (b.betas_per_hand) {
            float* const row = s.beta_rows.data() + h * kBetaStride;
            std::memcpy(row, b.betas + hand * kBetas, sizeof s.betas);
            betas[h] = {row, tip_rest, nullptr, 1.0f};
            float* const shaped = s.shaped_joints.data() + h * kJoints * 3;
            shape_joints(row, shaped);
            joints = shaped;
        }
        rotations_of(b, hand, rotations, hands[h].axis_angle);

        float* const feature = s.features.data() + h * kFeatureStride;
        features[h] = {feature, tip_rest, nullptr, 1.0f};
        static constexpr float kUnturned[9] = {1, 0, 0, 0, 1, 0, 0, 0, 1};
        for (int k = 0; k < kPoseDirs; k += 9)
            for (int i = 0; i < 9; ++i) feature[k + i] = rotations[9 + k + i] - kUnturned[i];
        posed[h] = {rotations, joints, tip_rest, b.trans != nullptr ? b.trans + 3 * hand : nullptr,
                    b.keypoints + hand * kKeypoints * 3, hands[h].offset,
                    mesh || jacobian ? s.transforms.data() + h * kJoints * 12 : nullptr,
                    jacobian ? hands[h].world[0] : nullptr};
    }
    if (b.betas_per_hand) tip_shape_[b.tips].multiply(betas, rows);
    tip_pose.multiply(features, rows, b.betas_per_hand, false, b.betas_per_hand ? nullptr : s.tip_bias[b.tips].data());
    simd_->chain({posed, count, parents_, tip_weights_[b.tips], kKeypointOrder, !b.betas_per_hand, b.center});
    for (int h = 0; h < count && jacobian; ++h) jacobian_of(b, first + h, hands[h], posed[h]);

    if (!mesh) return;
    MeshHand meshes[kBlock];
    for (int h = 0; h < count; ++h) {
        const GemmRow row = pose_.prepare(s.features.data() + h * kFeatureStride, s.half.data() + h * kFeatureStride);
        meshes[h] = {row.x, row.scale, b.betas_per_hand ? b.betas + (first + h) * kBetas : nullptr,
                     posed[h].skin, posed[h].offset, b.vertices + (first + h) * kVertices * 3};
    }
    simd_->mesh[static_cast<int>(pose_.storage)](
        {meshes, count, kVertices, pose_.depth(),
         b.betas_per_hand ? shape_.bias.data() : s.shaped_template.data(), static_cast<const float*>(shape_.data()),
         pose_.data(), pose_.scale(), block_start_.data(), block_transform_.data(), block_weight_.data()});
}

}  // namespace beingh0
