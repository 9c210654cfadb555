#include "raster.hpp"

#include <algorithm>
#include <cmath>

namespace beingh0::raster {
namespace {

struct Corner {
  float x, y, z;
  float r, g, b;
};

Corner mix(const Corner& a, const Corner& b, float t) noexcept {
  return {a.x + (b.x - a.x) * t, a.y + (b.y - a.y) * t, a.z + (b.z - a.z) * t,
          a.r + (b.r - a.r) * t, a.g + (b.g - a.g) * t, a.b + (b.b - a.b) * t};
}

// One triangle in front of the near plane: visit(pixel index, 1/z, weights of the corners over z).
template <typename Visit>
void scan(const Pinhole& camera, const Corner& a, const Corner& b, const Corner& c, Visit&& visit) noexcept {
  const float iza = 1 / a.z, izb = 1 / b.z, izc = 1 / c.z;
  const float ax = camera.fx * a.x * iza + camera.cx, ay = camera.fy * a.y * iza + camera.cy;
  const float bx = camera.fx * b.x * izb + camera.cx, by = camera.fy * b.y * izb + camera.cy;
  const float cx = camera.fx * c.x * izc + camera.cx, cy = camera.fy * c.y * izc + camera.cy;
  const float area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax);
  if (!(std::fabs(area) > 1e-12f)) return;
  const auto bound = [](float v, int limit) { return static_cast<int>(std::clamp(v, 0.f, static_cast<float>(limit))); };
  const int x0 = bound(std::ceil(std::min({ax, bx, cx}) - 0.5f), camera.width);
  const int x1 = bound(std::floor(std::max({ax, bx, cx}) - 0.5f) + 1, camera.width);
  const int y0 = bound(std::ceil(std::min({ay, by, cy}) - 0.5f), camera.height);
  const int y1 = bound(std::floor(std::max({ay, by, cy}) - 0.5f) + 1, camera.height);
  const float inverse = 1 / area;
  // Edge functions are affine in the pixel: one value at the row's start, one step per pixel.
  const float step_a = -(cy - by) * inverse, step_b = -(ay - cy) * inverse;
  for (int y = y0; y < y1; ++y) {
    const float py = y + 0.5f, px = x0 + 0.5f;
    float wa = ((cx - bx) * (py - by) - (cy - by) * (px - bx)) * inverse;
    float wb = ((ax - cx) * (py - cy) - (ay - cy) * (px - cx)) * inverse;
    for (int x = x0; x < x1; ++x, wa += step_a, wb += step_b) {
      const float wc = 1 - wa - wb;
      if (wa < 0 || wb < 0 || wc < 0) continue;
      visit(y * camera.width + x, wa * iza, wb * izb, wc * izc);
    }
  }
}

// Cuts a triangle at z = near; calls draw for the zero, one or two triangles left.
template <typename Draw>
void clip(const Corner (&corner)[3], float near_m, Draw&& draw) noexcept {
  Corner kept[4];
  int count = 0;
  for (int i = 0; i < 3; ++i) {
    const Corner &p = corner[i], &q = corner[(i + 1) % 3];
    if (p.z >= near_m) kept[count++] = p;
    if ((p.z >= near_m) != (q.z >= near_m)) kept[count++] = mix(p, q, (near_m - p.z) / (q.z - p.z));
  }
  for (int i = 2; i < count; ++i) draw(kept[0], kept[i - 1], kept[i]);
}

Corner corner_at(const float* vertices, const float* colours, std::int32_t i) noexcept {
  const float* p = vertices + 3 * i;
  if (colours == nullptr) return {p[0], p[1], p[2], 0, 0, 0};
  const float* c = colours + 3 * i;
  return {p[0], p[1], p[2], c[0], c[1], c[2]};
}

// Integer hash of a lattice point to [0, 1); constants from the xxHash finaliser family.
float lattice(int x, int y, std::uint32_t seed) noexcept {
  std::uint32_t h = static_cast<std::uint32_t>(x) * 0x85ebca77u + static_cast<std::uint32_t>(y) * 0xc2b2ae3du + seed * 0x27d4eb2fu;
  h = (h ^ (h >> 15)) * 0x2c1b3c6du;
  h = (h ^ (h >> 12)) * 0x297a2d39u;
  return static_cast<float>((h ^ (h >> 15)) >> 8) * (1.f / 16777216.f);
}

float value_noise(float x, float y, std::uint32_t seed) noexcept {
  const float fx = std::floor(x), fy = std::floor(y);
  const int ix = static_cast<int>(fx), iy = static_cast<int>(fy);
  float tx = x - fx, ty = y - fy;
  tx = tx * tx * (3 - 2 * tx);
  ty = ty * ty * (3 - 2 * ty);
  const float top = lattice(ix, iy, seed) * (1 - tx) + lattice(ix + 1, iy, seed) * tx;
  const float bottom = lattice(ix, iy + 1, seed) * (1 - tx) + lattice(ix + 1, iy + 1, seed) * tx;
  return top + (bottom - top) * ty;
}

float pattern(Texture texture, float a, float b, std::uint32_t seed) noexcept {
  switch (texture) {
    case Texture::checker:
      return static_cast<float>((static_cast<int>(std::floor(a)) + static_cast<int>(std::floor(b))) & 1);
    case Texture::noise:
      return 0.6f * value_noise(a, b, seed) + 0.4f * value_noise(3 * a, 3 * b, seed + 1);
    case Texture::wood: {
      const float rings = 0.5f + 0.5f * std::sin(6 * a + 5 * value_noise(0.7f * a, 0.2f * b, seed));
      return 0.65f * rings + 0.35f * value_noise(9 * a, 0.9f * b, seed + 2);
    }
    case Texture::plain:
      break;
  }
  return 0.5f + 0.15f * (value_noise(4 * a, 4 * b, seed) - 0.5f);
}

float dot(const float* a, const float* b) noexcept { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

}  // namespace

void triangles(const Pinhole& camera, const float* vertices, const float* colours, const std::int32_t* faces,
               int face_count, float near_m, float* colour, float* inverse_depth) noexcept {
  for (int f = 0; f < face_count; ++f) {
    const std::int32_t* face = faces + 3 * f;
    const Corner corners[3] = {corner_at(vertices, colours, face[0]), corner_at(vertices, colours, face[1]),
                               corner_at(vertices, colours, face[2])};
    clip(corners, near_m, [&](const Corner& a, const Corner& b, const Corner& c) {
      scan(camera, a, b, c, [&](int pixel, float ka, float kb, float kc) {
        const float inverse_z = ka + kb + kc;
        if (inverse_z <= inverse_depth[pixel]) return;
        inverse_depth[pixel] = inverse_z;
        const float z = 1 / inverse_z;
        float* out = colour + 3 * pixel;
        out[0] = (ka * a.r + kb * b.r + kc * c.r) * z;
        out[1] = (ka * a.g + kb * b.g + kc * c.g) * z;
        out[2] = (ka * a.b + kb * b.b + kc * c.b) * z;
      });
    });
  }
}

void coverage(const Pinhole& camera, const float* vertices, const std::int32_t* faces, int face_count, float near_m,
              std::uint8_t* mask) noexcept {
  for (int f = 0; f < face_count; ++f) {
    const std::int32_t* face = faces + 3 * f;
    const Corner corners[3] = {corner_at(vertices, nullptr, face[0]), corner_at(vertices, nullptr, face[1]),
                               corner_at(vertices, nullptr, face[2])};
    clip(corners, near_m, [&](const Corner& a, const Corner& b, const Corner& c) {
      scan(camera, a, b, c, [&](int pixel, float, float, float) { mask[pixel] = 1; });
    });
  }
}

void plane(const Pinhole& camera, const Plane& p, float* colour) noexcept {
  const float distance = dot(p.origin, p.normal);
  for (int y = 0; y < camera.height; ++y) {
    for (int x = 0; x < camera.width; ++x) {
      float* out = colour + 3 * (y * camera.width + x);
      const float ray[3] = {(x + 0.5f - camera.cx) / camera.fx, (y + 0.5f - camera.cy) / camera.fy, 1};
      const float along = dot(ray, p.normal);
      const float t = along != 0 ? distance / along : -1;
      if (!(t > 0 && t < 20)) {
        for (int c = 0; c < 3; ++c) out[c] = p.horizon[c];
        continue;
      }
      const float hit[3] = {t * ray[0] - p.origin[0], t * ray[1] - p.origin[1], t * ray[2] - p.origin[2]};
      const float m = pattern(p.texture, dot(hit, p.u) * p.scale_per_m, dot(hit, p.v) * p.scale_per_m, p.seed);
      for (int c = 0; c < 3; ++c) out[c] = p.colour_a[c] + (p.colour_b[c] - p.colour_a[c]) * m;
    }
  }
}

}  // namespace beingh0::raster
