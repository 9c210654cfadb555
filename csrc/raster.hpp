// Software rasteriser: triangles with a depth buffer, a procedurally textured plane, and how both become a picture.
// Camera frame: x right, y down, z forward, metres. A pixel's centre is at (x + 0.5, y + 0.5). All functions are
// noexcept and allocate nothing; buffers belong to the caller; the binding has checked shapes and index ranges.
#pragma once

#include <cstdint>

namespace beingh0::raster {

struct Pinhole {
  float fx, fy, cx, cy;  // pixels
  int width, height;
};

// A vertex on the screen; functions take scratch space for one per vertex.
struct Projected {
  float x, y, inverse_z;
};

struct Mesh {
  const float* vertices;      // [vertex_count, 3]
  const std::int32_t* faces;  // [face_count, 3]
  int vertex_count, face_count;
};

// Draws into colour float[H, W, 3] wherever 1/z exceeds inverse_depth float[H, W] (start it at 0).
//   colours float[V, 3], of the vertices, already lit; parts nearer than near_m are cut off.
void triangles(const Pinhole& camera, const Mesh& mesh, const float* colours, float near_m, Projected* scratch,
               float* colour, float* inverse_depth) noexcept;

// Sets mask uint8[H, W] to 1 where any triangle covers the pixel's centre.
void coverage(const Pinhole& camera, const Mesh& mesh, float near_m, Projected* scratch, std::uint8_t* mask) noexcept;

// Mean of the mask around each pixel, 0..255, over (2 radius + 1)^2 pixels: soft edges for shadows. Beyond the border
// the mask goes on as mirrored at its outermost pixels. mask (0 or 1) and out uint8[H, W]; scratch int32[W].
void soften(const std::uint8_t* mask, int width, int height, int radius, std::int32_t* scratch, std::uint8_t* out) noexcept;

enum class Texture : int { plain = 0, checker = 1, noise = 2, wood = 3 };

struct Plane {
  float origin[3], u[3], v[3], normal[3];  // u, v: unit axes in the plane; normal towards the camera
  float colour_a[3], colour_b[3];          // the texture mixes them
  float horizon[3];                        // where a ray misses the plane
  float scale_per_m;                       // texture cells per metre
  Texture texture;
  std::uint32_t seed;
};

// Fills colour float[H, W, 3] with the plane as seen by the camera; does not touch depth.
void plane(const Pinhole& camera, const Plane& plane, float* colour) noexcept;

// Things drawn at twice the size, before a background, averaged to out uint8[H, W, 3]. Colours are in 0..1.
//   background float[H, W, 3], enlarged bilinearly; shadow uint8[2H, 2W] takes up to `strength` of its light (at 255)
//   colour float[2H, 2W, 3] stands before it where inverse_depth float[2H, 2W] > 0
//   grain float[H, W, 3] is added last; scratch float[2, W, 3]
struct Layers {
  const float* background;
  const std::uint8_t* shadow;
  float strength;
  const float *colour, *inverse_depth, *grain;
};
void compose(const Layers& layers, int width, int height, float* scratch, std::uint8_t* out) noexcept;

}  // namespace beingh0::raster
