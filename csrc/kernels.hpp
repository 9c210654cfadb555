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

// Zeroed memory, aligned for the widest vectors; in whole huge pages if there is more than one of them (reading it all
// then takes half the time) and the system gives them. Both throw std::bad_alloc.
void* allocate(std::size_t bytes);
void release(void* memory) noexcept;

template <typename T>
class Buffer {
 public:
    Buffer() = default;
    explicit Buffer(std::size_t size) { resize(size); }
    void resize(std::size_t size) {
        data_.reset(size ? static_cast<T*>(allocate(size * sizeof(T))) : nullptr);
        size_ = size;
    }
    T* data() noexcept { return data_.get(); }
    const T* data() const noexcept { return data_.get(); }
    std::size_t size() const noexcept { return size_; }
    T& operator[](std::size_t i) noexcept { return data_.get()[i]; }
    const T& operator[](std::size_t i) const noexcept { return data_.get()[i]; }

 private:
    struct Free {
        void operator()(T* p) const noexcept { release(p); }
    };
    std::unique_ptr<T, Free> data_;
    std::size_t size_ = 0;
};
using FloatBuffer = Buffer<float>;

// Weights of Y = X W in the order the matrix kernel reads them, and the bias.
class PackedWeights {
 public:
    PackedWeights() = default;
    // Element (tap, input i, output o) is w[tap * tap_stride + i * in_stride + o * out_stride]; bias may be null.
    // int8: one scale per tap and output. `panel`: columns that lie together; 0 for what `multiply` wants.
    // `non_negative`: no row of X holds less than 0; beside int8 weights its numbers are then kept in 7 bits, not 15.
    // Throws std::bad_alloc.
    PackedWeights(const float* w, int taps, int inputs, int outputs, std::ptrdiff_t tap_stride,
                  std::ptrdiff_t in_stride, std::ptrdiff_t out_stride, const float* bias,
                  Storage storage = Storage::f32, int panel = 0, bool non_negative = false);
    int taps = 0, inputs = 0, outputs = 0, panels = 0;
    Storage storage = Storage::f32;
    FloatBuffer bias;
    int columns() const noexcept { return static_cast<int>(bias.size()); }  // outputs rounded up to whole panels
    int depth() const noexcept { return depth_; }  // inputs, rounded up to what a step of the product takes
    const void* data() const noexcept { return data_; }
    const float* scale() const noexcept { return scale_.data(); }
    std::size_t bytes() const noexcept { return size_ + sizeof(float) * scale_.size(); }
    // To `to`, which holds packed_size() bytes, is 64-byte aligned and outlives this; what they were in is freed.
    std::size_t packed_size() const noexcept { return size_; }
    void move_to(unsigned char* to) noexcept;
    // Those that are multiplied after these: they are fetched in time.
    void before(const PackedWeights& next) noexcept {
        next_ = next.data_;
        next_taps_ = next.taps;
    }

    // What the kernel wants a row of x to be: itself (nothing is written), or smaller numbers in `half`, which holds
    // inputs + 3 of two bytes. Only x and scale of the row returned are set.
    GemmRow prepare(const float* x, std::uint16_t* half) const noexcept;
    // Rows as Gemm wants them.  y (+)= bias + rows W; `bias_instead` replaces the packed bias.
    void multiply(const GemmRow* rows, const int* tap_start, bool accumulate = false, bool relu = false,
                  const float* bias_instead = nullptr) const noexcept;

 private:
    Product product_ = Product::f32;
    const Simd* simd_ = nullptr;
    int depth_ = 0;
    std::size_t size_ = 0;
    Buffer<unsigned char> packed_;
    const unsigned char* data_ = nullptr;  // packed_'s, or where they were moved to
    const unsigned char* next_ = nullptr;
    int next_taps_ = 0;
    FloatBuffer scale_;
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

    // What a run writes into; one per caller at a time.
    struct Scratch {
        FloatBuffer buffers[3], zeros;
        Buffer<std::uint16_t> half;
        std::vector<GemmRow> prepared, rows;
        std::vector<int> tap_start;
        float* input() noexcept { return buffers[0].data(); }  // [blocks * frames_in] rows, to be filled by the caller
    };

    ConvNet(int channels, int frames, Storage residual_storage);
    // w [outputs][inputs][kernel]; upsample: every frame twice before the convolution; relu after it.
    void add_conv(const float* w, const float* bias, int outputs, int kernel, int stride, int padding, bool upsample,
                  bool relu, Storage storage);
    // x + conv2(act(norm2(conv1(act(norm1(x)))))); conv1 [C][C][3] with dilation, conv2 [C][C][1].
    void add_residual(const float* w1, const float* bias1, const float* w2, const float* bias2, int dilation,
                      Activation activation, Norm norm, Affine norm1, Affine norm2);

    // All weights into one block of memory in order of use. After the last layer; throws std::bad_alloc.
    void gather();

    bool empty() const noexcept { return layers_.empty(); }
    int channels_in() const noexcept { return channels_in_; }
    int frames_in() const noexcept { return frames_in_; }
    int channels() const noexcept { return channels_; }
    int frames() const noexcept { return frames_; }
    std::ptrdiff_t stride() const noexcept;        // floats between rows
    std::size_t weight_bytes() const noexcept;
    Scratch scratch() const;                       // after the last layer; throws std::bad_alloc
    const float* run(int blocks, Scratch& scratch) const noexcept;  // [blocks * frames] rows

 private:
    struct Conv {
        PackedWeights weights;
        std::vector<int> offsets;  // input frame of output frame 0, per tap; the tap that reaches most frames first
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
                   bool upsample, bool relu, Storage storage, bool non_negative = false) const;
    void convolve(const Conv& conv, const float* x, float* y, int blocks, bool accumulate,
                  Scratch& scratch) const noexcept;
    void norm_activate(const Layer& layer, int which, const float* x, float* y, int blocks) const noexcept;

    const Simd* simd_;
    Storage storage_;
    int channels_in_, frames_in_, channels_, frames_, max_channels_, max_frames_, max_taps_ = 1;
    std::vector<Layer> layers_;
    Buffer<unsigned char> gathered_;
};

// One part (wrist, finger or whole hand) of a motion tokenizer: grouped residual quantisation around two ConvNets.
class GrqPart {
 public:
    struct Geometry {
        int groups, quantizers, codes, code_dim, codebooks;  // codebooks per group: 1 if shared, else quantizers
        int window, frames, positions, dims;                 // frames = window + padding; positions = frames / 2^down_t
        int id_offset;                                       // first id of this part
    };

    // What a call writes into; one per caller at a time. Made after the last layer; throws std::bad_alloc.
    struct Scratch {
        explicit Scratch(const GrqPart& part);
        ConvNet::Scratch encoder, decoder;
        FloatBuffer residual, scores;
        std::vector<GemmRow> rows;
    };

    // Storage is that of the networks' weights, see conv_storage; codebooks and the nearest-code search are float32.
    GrqPart(const Geometry& geometry, const float* codebooks /* [groups][codebooks][codes][code_dim / groups] */,
            const float* mean, const float* std /* [dims] */, Storage storage = Storage::f32);
    const Geometry& geometry() const noexcept { return g_; }
    ConvNet& encoder() noexcept { return encoder_; }
    ConvNet& decoder() noexcept { return decoder_; }
    const ConvNet& encoder() const noexcept { return encoder_; }
    const ConvNet& decoder() const noexcept { return decoder_; }
    bool complete() const noexcept;
    // What the next convolution of a network is best kept as. The one that reads or writes features is float32 and the
    // one that reads the latent at least bf16: they are few, and most of the error comes from them (docs/kernels.md).
    Storage conv_storage(bool encoder, int outputs) const noexcept;
    int ids_per_block() const noexcept { return g_.groups * g_.positions * g_.quantizers; }
    int num_ids() const noexcept { return g_.codes * g_.codebooks; }

    // ids [blocks][id_stride], this part's at the front of each row, in [id_offset, id_offset + num_ids);
    // features [blocks][window][feature_stride], this part's `dims` at the front of each row.
    void decode(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* features,
                std::ptrdiff_t feature_stride, Scratch& scratch) const noexcept;
    void encode(const float* features /* [blocks][window][dims] */, std::int64_t blocks, std::int32_t* ids,
                std::ptrdiff_t id_stride, Scratch& scratch) const noexcept;
    // Either side of the quantiser: latent [blocks][positions][code_dim].
    void dequantise(const std::int32_t* ids, std::ptrdiff_t id_stride, std::int64_t blocks, float* latent,
                    std::ptrdiff_t latent_stride) const noexcept;
    void latent(const float* features, std::int64_t blocks, float* latent, Scratch& scratch) const noexcept;

 private:
    const float* encode_block(const float* features, int blocks, Scratch& scratch) const noexcept;
    void quantise(const float* latent, std::ptrdiff_t stride, int blocks, std::int32_t* ids, std::ptrdiff_t id_stride,
                  Scratch& scratch) const noexcept;

    Geometry g_;
    FloatBuffer codebooks_, mean_, std_;
    std::vector<PackedWeights> search_;  // [groups * codebooks]: |row|^2 / 2 - x . row
    Storage storage_;
    ConvNet encoder_, decoder_;
    const Simd* simd_;
};

// ---------------------------------------------------------------------------------------------------- hand kinematics

// MANO forward kinematics (Romero et al. 2017) for one hand model.
class HandModel {
 public:
    static constexpr int kVertices = 778, kJoints = kHandJoints, kKeypoints = kHandKeypoints, kTips = kHandTips;
    static constexpr int kBetas = 10, kPoseDirs = 135;
    static constexpr int kFingerAngles = 45, kPoseAngles = 48;
    static constexpr int kTipSets = 2;  // manotorch, smplx

    struct Source {
        const float* v_template;   // [778][3] metres
        const float* shapedirs;    // [778][3][10]
        const float* posedirs;     // [778][3][135]
        const float* j_regressor;  // [16][778]
        const float* weights;      // [778][16]
        const float* components;   // [45][45] finger axis-angles of each PCA coefficient
        const float* mean_pose;    // [45] finger axis-angles
        const std::int32_t* tips;  // [2][5] vertex of thumb, index, middle, ring, little; in [0, 778)
        const std::int32_t* parents;  // [16], parents[0] = -1, else in [0, joint)
        Storage pose_blends;       // of the mesh; the tips' are float32
    };

    enum class Pose : int { axis_angle, matrix, rot6d_interleaved, rot6d_columns, pca };

    struct Batch {
        std::int64_t count;
        const float* pose;         // [count][pose_width()], wrist first, then MANO's order
        Pose kind;                 // 16 x 3, 9, 6, 6 numbers; pca: 3 of the wrist, then `components`
        int components;            // of pca, 1 to 45
        bool mean_pose;            // axis_angle, pca: the mean is added to the fingers
        const float* betas;        // [10] for all hands, or [count][10]
        bool betas_per_hand;
        const float* trans;        // [count][3] metres, or null
        bool center;               // wrist joint to the origin before trans is added
        int tips;                  // which tip set
        float* keypoints;          // [count][21][3]: wrist, thumb x4, index x4, middle x4, ring x4, little x4
        float* vertices;           // [count][778][3], or null: then the mesh is not computed
        float* jacobian;           // [count][21][3][jacobian_width()] of the keypoints, or null
        int pose_width() const noexcept;
        // axis_angle, pca: by the numbers of the pose. Else by 16 rotation vectors that turn each joint further, in its
        // parent's frame: R -> exp(delta) R.
        int jacobian_width() const noexcept { return kind == Pose::pca ? 3 + components : kPoseAngles; }
    };

    // What a call writes into, and the shape of the last betas; one per caller at a time. Throws std::bad_alloc.
    struct Scratch {
        explicit Scratch(const HandModel& model);
        bool shaped = false;
        float betas[kBetas];
        float joints[kJoints][3];  // in the rest pose
        FloatBuffer shaped_template, tip_bias[kTipSets];  // as rest of a Mesh, [15 rounded up]
        FloatBuffer features, beta_rows, rotations, shaped_joints, tip_rest, transforms;
        Buffer<std::uint16_t> half;
    };

    explicit HandModel(const Source& source);
    void forward(const Batch& batch, Scratch& scratch) const noexcept;

 private:
    struct Hand;  // one hand on its way through forward_block
    void shape_joints(const float* betas, float* joints) const noexcept;  // [16][3]
    void set_shape(const float* betas, Scratch& scratch) const noexcept;
    void forward_block(const Batch& batch, std::int64_t first, int count, Scratch& scratch) const noexcept;
    void rotations_of(const Batch& batch, std::int64_t hand, float* rotations, float* axis_angle) const noexcept;
    void jacobian_of(const Batch& batch, std::int64_t hand, const Hand& h, const ChainHand& posed) const noexcept;

    const Simd* simd_;
    int parents_[kJoints];
    std::uint32_t moved_by_[kJoints];  // bit j: joint j is the joint itself or hangs on it
    float joint_template_[kJoints][3];
    float joint_dirs_[kBetas][kJoints][3];
    FloatBuffer components_, mean_pose_;
    PackedWeights pose_, shape_;                              // as a Mesh has them; the template is shape_.bias
    PackedWeights tip_pose_[kTipSets], tip_shape_[kTipSets];  // [.] -> [5][3]
    FloatBuffer tip_dirs_[kTipSets];                        // [135][15]
    TipWeights tip_weights_[kTipSets][kTips];
    std::vector<std::int32_t> block_start_, block_transform_;
    FloatBuffer block_weight_;
};

}  // namespace beingh0
