// What the kernels offer, with shapes, units and preconditions. Plain C++ without Python.
//
// Constructors allocate and may throw std::bad_alloc; everything that runs per call is noexcept and allocates nothing.
// Bindings (bind_*.cpp) check dtype, shape, contiguity and id range before they call; kernels do not check again.
// Solver and rasteriser have headers of their own: retarget.hpp, raster.hpp.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#include "simd.hpp"

namespace beingh0 {

// Zeroed float32 memory, aligned for the widest vectors.
class FloatBuffer {
 public:
    FloatBuffer() = default;
    explicit FloatBuffer(std::size_t size) { resize(size); }
    void resize(std::size_t size) {
        data_.reset(size ? static_cast<float*>(::operator new(size * sizeof(float), kAlign)) : nullptr);
        size_ = size;
        if (size) std::memset(data_.get(), 0, size * sizeof(float));
    }
    float* data() noexcept { return data_.get(); }
    const float* data() const noexcept { return data_.get(); }
    std::size_t size() const noexcept { return size_; }
    float& operator[](std::size_t i) noexcept { return data_.get()[i]; }
    const float& operator[](std::size_t i) const noexcept { return data_.get()[i]; }

 private:
    static constexpr std::align_val_t kAlign{64};
    struct Free {
        void operator()(float* p) const noexcept { ::operator delete(p, kAlign); }
    };
    std::unique_ptr<float, Free> data_;
    std::size_t size_ = 0;
};

// Weights of Y = X W in the order the matrix kernel reads them: [panel][tap][input][columns of a panel].
class PackedWeights {
 public:
    PackedWeights() = default;
    // Element (tap, input i, output o) is w[tap * tap_stride + i * in_stride + o * out_stride]; bias may be null.
    PackedWeights(const float* w, int taps, int inputs, int outputs, std::ptrdiff_t tap_stride,
                  std::ptrdiff_t in_stride, std::ptrdiff_t out_stride, const float* bias);
    int taps = 0, depth = 0, outputs = 0, panels = 0;
    FloatBuffer weights, bias;
    int columns() const noexcept { return static_cast<int>(bias.size()); }  // outputs rounded up to whole panels
    // y[m][columns] (+)= bias + rows W; `bias_instead` replaces the packed bias.
    void multiply(const float* const* rows, int m, float* y, std::ptrdiff_t y_stride, bool accumulate = false,
                  bool relu = false, const float* bias_instead = nullptr) const noexcept;
};

// ---------------------------------------------------------------------------------------------------------- rotations
// n rotations each; row-major 3x3 matrices, quaternions w first, axis-angle in radians.

void axis_angle_to_matrix(const float* axis_angle, std::int64_t n, float* matrix) noexcept;
void matrix_to_quaternion(const float* matrix, std::int64_t n, float* quaternion) noexcept;  // w >= 0, unit length
void quaternion_to_matrix(const float* quaternion, std::int64_t n, float* matrix) noexcept;  // any length but 0
void quaternion_to_axis_angle(const float* quaternion, std::int64_t n, float* axis_angle) noexcept;  // angle in [0, pi]
void axis_angle_to_quaternion(const float* axis_angle, std::int64_t n, float* quaternion) noexcept;  // w >= 0
void matrix_to_axis_angle(const float* matrix, std::int64_t n, float* axis_angle) noexcept;          // angle in [0, pi]
// 6D: the first two columns of the matrix. interleaved: row by row (r00 r01 r10 r11 r20 r21), as Being-H0;
// else one column after the other.
void rot6d_to_matrix(const float* rot6d, std::int64_t n, bool interleaved, float* matrix) noexcept;
void matrix_to_rot6d(const float* matrix, std::int64_t n, bool interleaved, float* rot6d) noexcept;

// -------------------------------------------------------------------------------------------------- motion tokenizer

enum class Norm : int { none, affine, layer, group };  // affine: batch norm with fixed statistics

// A sequence of 1-D convolutions over blocks of a fixed number of frames; activations are rows of channels.
class ConvNet {
 public:
    static constexpr int kMaxBlocks = 32;  // blocks that go through together; weights are read once for all of them
    static constexpr int kGroups = 32;     // of group norm

    struct Affine {
        const float* scale;  // [channels]
        const float* shift;  // [channels]
    };

    ConvNet(int channels, int frames);
    // w [outputs][inputs][kernel]; upsample: every frame twice before the convolution; relu after it.
    void add_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding, bool upsample,
                  bool relu);
    // x + conv2(act(norm2(conv1(act(norm1(x)))))); conv1 [C][C][3] with dilation, conv2 [C][C][1].
    void add_residual(const float* w1, const float* bias1, const float* w2, const float* bias2, int dilation,
                      Activation activation, Norm norm, Affine norm1, Affine norm2);
    void allocate();  // after the last layer

    int channels_in() const noexcept { return channels_in_; }
    int frames_in() const noexcept { return frames_in_; }
    int channels() const noexcept { return channels_; }
    int frames() const noexcept { return frames_; }
    std::ptrdiff_t stride() const noexcept { return stride_; }   // floats between rows
    float* input() noexcept { return buffers_[0].data(); }      // [blocks * frames_in] rows, to be filled by the caller
    const float* run(int blocks) noexcept;                      // [blocks * frames] rows

 private:
    struct Conv {
        PackedWeights weights;
        std::vector<int> offsets;  // input frame of output frame 0, per tap
        int stride = 1, frames_in = 0, frames_out = 0;
        bool upsample = false, relu = false;
    };
    struct Layer {
        Conv conv, conv2;  // conv2 only in residual blocks
        bool residual = false;
        Activation activation = Activation::relu;
        Norm norm = Norm::none;
        FloatBuffer scale[2], shift[2];
    };
    Conv make_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding, int dilation,
                   bool upsample, bool relu) const;
    void convolve(const Conv& conv, const float* x, float* y, int blocks, bool accumulate) noexcept;
    void norm_activate(const Layer& layer, int which, const float* x, float* y, int blocks) noexcept;

    int channels_in_, frames_in_, channels_, frames_, max_channels_, max_frames_, max_taps_ = 1;
    std::ptrdiff_t stride_ = 0;
    std::vector<Layer> layers_;
    FloatBuffer buffers_[3], zeros_;
    std::vector<const float*> rows_;
};

// One part (wrist, finger or whole hand) of a motion tokenizer: grouped residual quantisation around two ConvNets.
class GrqPart {
 public:
    struct Geometry {
        int groups, quantizers, codes, code_dim, codebooks;  // codebooks per group: 1 if shared, else quantizers
        int window, frames, positions, dims;                 // frames = window + padding; positions = frames / 2^down_t
        int id_offset;                                       // first id of this part
    };

    GrqPart(const Geometry& geometry, const float* codebooks /* [groups][codebooks][codes][code_dim / groups] */,
            const float* mean, const float* std /* [dims] */);
    const Geometry& geometry() const noexcept { return g_; }
    ConvNet& encoder() noexcept { return encoder_; }
    ConvNet& decoder() noexcept { return decoder_; }
    bool complete() const noexcept;
    int ids_per_block() const noexcept { return g_.groups * g_.positions * g_.quantizers; }
    int num_ids() const noexcept { return g_.codes * g_.codebooks; }

    // ids [blocks][id_stride], this part's at the front of each row, in [id_offset, id_offset + num_ids);
    // features [blocks][window][feature_stride], this part's `dims` at the front of each row.
    // Not for two threads at once: scratch is inside.
    void decode(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* features,
                std::ptrdiff_t feature_stride) noexcept;
    void encode(const float* features /* [blocks][window][dims] */, std::int64_t blocks, std::int32_t* ids,
                std::ptrdiff_t id_stride) noexcept;
    // Either side of the quantiser: latent [blocks][positions][code_dim].
    void dequantise(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* latent,
                    std::ptrdiff_t latent_stride) const noexcept;
    void latent(const float* features, std::int64_t blocks, float* latent) noexcept;

 private:
    const float* encode_block(const float* features, int blocks) noexcept;
    void quantise(const float* latent, std::ptrdiff_t stride, int blocks, std::int32_t* ids,
                  std::ptrdiff_t id_stride) noexcept;

    Geometry g_;
    FloatBuffer codebooks_, mean_, std_;
    std::vector<PackedWeights> search_;  // [groups * codebooks]: |row|^2 / 2 - x . row
    ConvNet encoder_, decoder_;
    FloatBuffer residual_, scores_;
    std::vector<const float*> rows_;
};

// ---------------------------------------------------------------------------------------------------- hand kinematics

// MANO forward kinematics (Romero et al. 2017) for one hand model.
class HandModel {
 public:
    static constexpr int kVertices = 778, kJoints = 16, kKeypoints = 21, kBetas = 10, kPoseDirs = 135, kTips = 5;
    static constexpr int kTipSets = 2;  // manotorch, smplx

    struct Source {
        const float* v_template;   // [778][3] metres
        const float* shapedirs;    // [778][3][10]
        const float* posedirs;     // [778][3][135]
        const float* j_regressor;  // [16][778]
        const float* weights;      // [778][16]
        const std::int32_t* tips;  // [2][5] vertex of thumb, index, middle, ring, little; in [0, 778)
        const std::int32_t* parents;  // [16], parents[0] = -1, else in [0, joint)
    };

    struct Batch {
        std::int64_t count;
        const float* pose;         // [count][16][3] axis-angle, or [count][16][9] matrices; wrist first, MANO order
        bool matrices;
        const float* mean_pose;    // [15][3] added to the finger axis-angles, or null
        const float* betas;        // [10] for all hands, or [count][10]
        bool betas_per_hand;
        const float* trans;        // [count][3] metres, or null
        bool center;               // wrist joint to the origin before trans is added
        int tips;                  // which tip set
        float* keypoints;          // [count][21][3]: wrist, thumb x4, index x4, middle x4, ring x4, little x4
        float* vertices;           // [count][778][3], or null: then the mesh is not computed
    };

    explicit HandModel(const Source& source);
    void forward(const Batch& batch) noexcept;  // not for two threads at once: scratch is inside

 private:
    struct Shape {  // what betas decide
        float betas[kBetas];
        float joints[kJoints][3];
        FloatBuffer template_bias;              // [3][vertex stride] shaped template
        FloatBuffer tip_bias[kTipSets];         // [15 rounded up]
    };
    void shape_joints(const float* betas, float (*joints)[3]) const noexcept;
    void set_shape(const float* betas) noexcept;
    void forward_block(const Batch& batch, std::int64_t first, int count) noexcept;

    int parents_[kJoints];
    float joint_template_[kJoints][3];
    float joint_dirs_[kBetas][kJoints][3];
    PackedWeights pose_, shape_;                            // [.] -> [3][vertex stride]
    PackedWeights tip_pose_[kTipSets], tip_shape_[kTipSets];  // [.] -> [5][3]
    struct TipWeights {
        int count;
        int joint[kJoints];
        float weight[kJoints];
    };
    TipWeights tip_weights_[kTipSets][kTips];
    std::vector<std::int32_t> block_start_, block_joint_;
    FloatBuffer block_weight_;
    Shape fixed_;
    FloatBuffer features_, betas_, rest_, tip_rest_, transforms_;
};

}  // namespace beingh0
