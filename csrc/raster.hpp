// Software rasteriser: triangles with a depth buffer, and a procedurally textured plane, through an exact pinhole.
// Camera frame: x right, y down, z forward, metres. A pixel's centre is at (x + 0.5, y + 0.5). All functions are
// noexcept and allocate nothing; buffers belong to the caller; the binding has checked shapes and index ranges.
#pragma once

#include <cstdint>

namespace beingh0::raster {

struct Pinhole {
  float fx, fy, cx, cy;  // pixels
  int width, height;
};

// Draws into colour float[H, W, 3] wherever 1/z exceeds inverse_depth float[H, W] (start it at 0).
//   vertices float[V, 3], colours float[V, 3] (already lit), faces int32[F, 3]; parts nearer than near_m are cut off.
void triangles(const Pinhole& camera, const float* vertices, const float* colours, const std::int32_t* faces,
               int face_count, float near_m, float* colour, float* inverse_depth) noexcept;

// Sets mask uint8[H, W] to 1 where any triangle covers the pixel's centre.
void coverage(const Pinhole& camera, const float* vertices, const std::int32_t* faces, int face_count, float near_m,
              std::uint8_t* mask) noexcept;

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

}  // namespace beingh0::raster
