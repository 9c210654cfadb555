#include "raster.hpp"

#include <algorithm>
#include <cmath>

namespace beingh0::raster {
namespace {

struct Corner {
  float x, y, z;
  float colour[3];
};

Corner mix(const Corner& a, const Corner& b, float t) noexcept {
  const auto at = [t](float p, float q) { return p + (q - p) * t; };
  return {at(a.x, b.x), at(a.y, b.y), at(a.z, b.z),
          {at(a.colour[0], b.colour[0]), at(a.colour[1], b.colour[1]), at(a.colour[2], b.colour[2])}};
}

Projected project(const Pinhole& camera, float x, float y, float z) noexcept {
  const float inverse_z = 1 / z;
  return {camera.fx * x * inverse_z + camera.cx, camera.fy * y * inverse_z + camera.cy, inverse_z};
}

// The pixels whose centres lie in a triangle: visit(pixel index, weight of each corner over its z).
template <typename Visit>
void scan(const Pinhole& camera, const Projected& a, const Projected& b, const Projected& c, Visit&& visit) noexcept {
  const float area = (b.x - a.x) * (c.y - a.y) - (b.y - a.y) * (c.x - a.x);
  if (!(std::fabs(area) > 1e-12f)) return;
  const auto bound = [](float v, int limit) { return static_cast<int>(std::clamp(v, 0.f, static_cast<float>(limit))); };
  const int x0 = bound(std::ceil(std::min({a.x, b.x, c.x}) - 0.5f), camera.width);
  const int x1 = bound(std::floor(std::max({a.x, b.x, c.x}) - 0.5f) + 1, camera.width);
  const int y0 = bound(std::ceil(std::min({a.y, b.y, c.y}) - 0.5f), camera.height);
  const int y1 = bound(std::floor(std::max({a.y, b.y, c.y}) - 0.5f) + 1, camera.height);
  if (x0 >= x1 || y0 >= y1) return;  // in a fine mesh many triangles lie between the centres
  const float inverse = 1 / area;
  // Edge functions are affine in the pixel: one value at the row's start, one step per pixel.
  const float step_a = -(c.y - b.y) * inverse, step_b = -(a.y - c.y) * inverse;
  for (int y = y0; y < y1; ++y) {
    const float py = y + 0.5f, px = x0 + 0.5f;
    float wa = ((c.x - b.x) * (py - b.y) - (c.y - b.y) * (px - b.x)) * inverse;
    float wb = ((a.x - c.x) * (py - c.y) - (a.y - c.y) * (px - c.x)) * inverse;
    for (int x = x0; x < x1; ++x, wa += step_a, wb += step_b) {
      const float wc = 1 - wa - wb;
      if (wa < 0 || wb < 0 || wc < 0) continue;
      visit(y * camera.width + x, wa * a.inverse_z, wb * b.inverse_z, wc * c.inverse_z);
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

// Every triangle in front of the near plane: draw(three projected corners, three pointers to their colours).
template <typename Draw>
void each(const Pinhole& camera, const Mesh& mesh, const float* colours, float near_m, Projected* scratch,
          Draw&& draw) noexcept {
  for (int v = 0; v < mesh.vertex_count; ++v) {
    const float* p = mesh.vertices + 3 * v;
    if (p[2] >= near_m) scratch[v] = project(camera, p[0], p[1], p[2]);
  }
  static constexpr float kNoColour[3] = {0, 0, 0};
  const auto colour_of = [colours](std::int32_t v) { return colours == nullptr ? kNoColour : colours + 3 * v; };
  for (int f = 0; f < mesh.face_count; ++f) {
    const std::int32_t* v = mesh.faces + 3 * f;
    const auto z = [&](int i) { return mesh.vertices[3 * v[i] + 2]; };
    if (z(0) >= near_m && z(1) >= near_m && z(2) >= near_m) {
      draw(scratch[v[0]], scratch[v[1]], scratch[v[2]], colour_of(v[0]), colour_of(v[1]), colour_of(v[2]));
      continue;
    }
    Corner corners[3];
    for (int i = 0; i < 3; ++i) {
      const float *p = mesh.vertices + 3 * v[i], *c = colour_of(v[i]);
      corners[i] = {p[0], p[1], p[2], {c[0], c[1], c[2]}};
    }
    clip(corners, near_m, [&](const Corner& a, const Corner& b, const Corner& c) {
      draw(project(camera, a.x, a.y, a.z), project(camera, b.x, b.y, b.z), project(camera, c.x, c.y, c.z), a.colour,
           b.colour, c.colour);
    });
  }
}

// Integer hash of a lattice point to [0, 1); constants from the xxHash finaliser family.
inline float lattice(int x, int y, std::uint32_t seed) noexcept {
  std::uint32_t h = static_cast<std::uint32_t>(x) * 0x85ebca77u + static_cast<std::uint32_t>(y) * 0xc2b2ae3du + seed * 0x27d4eb2fu;
  h = (h ^ (h >> 15)) * 0x2c1b3c6du;
  h = (h ^ (h >> 12)) * 0x297a2d39u;
  return static_cast<float>(static_cast<int>((h ^ (h >> 15)) >> 8)) * (1.f / 16777216.f);
}

inline float value_noise(float x, float y, std::uint32_t seed) noexcept {
  const float fx = std::floor(x), fy = std::floor(y);
  const int ix = static_cast<int>(fx), iy = static_cast<int>(fy);
  float tx = x - fx, ty = y - fy;
  tx = tx * tx * (3 - 2 * tx);
  ty = ty * ty * (3 - 2 * ty);
  const float top = lattice(ix, iy, seed) * (1 - tx) + lattice(ix + 1, iy, seed) * tx;
  const float bottom = lattice(ix, iy + 1, seed) * (1 - tx) + lattice(ix + 1, iy + 1, seed) * tx;
  return top + (bottom - top) * ty;
}

constexpr int kRun = 64;  // pixels of a row at a time; loops over a run are free of branches, so that they vectorise

// The texture's mix of its two colours at the points (a, b), in cells.
void pattern(Texture texture, const float* a, const float* b, std::uint32_t seed, float* m) noexcept {
  switch (texture) {
    case Texture::plain:
      for (int i = 0; i < kRun; ++i) m[i] = 0.5f + 0.15f * (value_noise(4 * a[i], 4 * b[i], seed) - 0.5f);
      return;
    case Texture::checker:
      for (int i = 0; i < kRun; ++i)
        m[i] = static_cast<float>((static_cast<int>(std::floor(a[i])) + static_cast<int>(std::floor(b[i]))) & 1);
      return;
    case Texture::noise:
      for (int i = 0; i < kRun; ++i) m[i] = 0.6f * value_noise(a[i], b[i], seed);
      for (int i = 0; i < kRun; ++i) m[i] += 0.4f * value_noise(3 * a[i], 3 * b[i], seed + 1);
      return;
    case Texture::wood: {
      float fibre[kRun];
      for (int i = 0; i < kRun; ++i) m[i] = value_noise(0.7f * a[i], 0.2f * b[i], seed);
      for (int i = 0; i < kRun; ++i) fibre[i] = value_noise(9 * a[i], 0.9f * b[i], seed + 2);
      for (int i = 0; i < kRun; ++i) m[i] = 0.65f * (0.5f + 0.5f * std::sin(6 * a[i] + 5 * m[i])) + 0.35f * fibre[i];
      return;
    }
  }
}

float dot(const float* a, const float* b) noexcept { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

constexpr float kFarthest = 20;  // of the plane, in lengths of the ray (whose z is 1): metres of depth

}  // namespace

void triangles(const Pinhole& camera, const Mesh& mesh, const float* colours, float near_m, Projected* scratch,
               float* colour, float* inverse_depth) noexcept {
  each(camera, mesh, colours, near_m, scratch, [&](const Projected& a, const Projected& b, const Projected& c,
                                                   const float* ca, const float* cb, const float* cc) {
    scan(camera, a, b, c, [&](int pixel, float ka, float kb, float kc) {
      const float inverse_z = ka + kb + kc;
      if (inverse_z <= inverse_depth[pixel]) return;
      inverse_depth[pixel] = inverse_z;
      const float z = 1 / inverse_z;
      for (int i = 0; i < 3; ++i) colour[3 * pixel + i] = (ka * ca[i] + kb * cb[i] + kc * cc[i]) * z;
    });
  });
}

void coverage(const Pinhole& camera, const Mesh& mesh, float near_m, Projected* scratch, std::uint8_t* mask) noexcept {
  each(camera, mesh, nullptr, near_m, scratch, [&](const Projected& a, const Projected& b, const Projected& c,
                                                   const float*, const float*, const float*) {
    scan(camera, a, b, c, [mask](int pixel, float, float, float) { mask[pixel] = 1; });
  });
}

void soften(const std::uint8_t* mask, int width, int height, int radius, std::int32_t* scratch, std::uint8_t* out) noexcept {
  const auto mirrored = [](int i, int n) {
    while (i < 0 || i >= n) i = n == 1 ? 0 : (i < 0 ? -i : 2 * (n - 1) - i);
    return i;
  };
  const int side = 2 * radius + 1;
  const float scale = 255.f / (static_cast<float>(side) * static_cast<float>(side));
  const auto add_row = [&](int y, int sign) {
    const std::uint8_t* row = mask + mirrored(y, height) * width;
    for (int x = 0; x < width; ++x) scratch[x] += sign * row[x];
  };
  std::fill(scratch, scratch + width, 0);
  for (int y = -radius; y < radius; ++y) add_row(y, 1);
  for (int y = 0; y < height; ++y) {
    add_row(y + radius, 1);  // scratch: sums of the columns over the window's rows
    std::int32_t sum = 0;
    for (int x = -radius; x < radius; ++x) sum += scratch[mirrored(x, width)];
    for (int x = 0; x < width; ++x) {
      sum += x + radius < width ? scratch[x + radius] : scratch[mirrored(x + radius, width)];
      out[y * width + x] = static_cast<std::uint8_t>(scale * static_cast<float>(sum) + 0.5f);
      sum -= x >= radius ? scratch[x - radius] : scratch[mirrored(x - radius, width)];
    }
    add_row(y - radius, -1);
  }
}

void plane(const Pinhole& camera, const Plane& p, float* colour) noexcept {
  const float distance = dot(p.origin, p.normal);
  for (int y = 0; y < camera.height; ++y) {
    const float ray_y = (y + 0.5f - camera.cy) / camera.fy;
    for (int x0 = 0; x0 < camera.width; x0 += kRun) {
      float a[kRun], b[kRun], m[kRun], seen[kRun];
      for (int i = 0; i < kRun; ++i) {
        const float ray[3] = {(x0 + i + 0.5f - camera.cx) / camera.fx, ray_y, 1};
        const float t = distance / dot(ray, p.normal);
        seen[i] = t > 0 && t < kFarthest ? 1.f : 0.f;  // false for a ray along the plane, too
        const float along = seen[i] != 0 ? t : 0.f;
        const float hit[3] = {along * ray[0] - p.origin[0], along * ray[1] - p.origin[1], along * ray[2] - p.origin[2]};
        a[i] = dot(hit, p.u) * p.scale_per_m;
        b[i] = dot(hit, p.v) * p.scale_per_m;
      }
      pattern(p.texture, a, b, p.seed, m);
      float* out = colour + 3 * (y * camera.width + x0);
      for (int i = 0; i < std::min(kRun, camera.width - x0); ++i)
        for (int c = 0; c < 3; ++c)
          out[3 * i + c] = seen[i] != 0 ? p.colour_a[c] + (p.colour_b[c] - p.colour_a[c]) * m[i] : p.horizon[c];
    }
  }
}

void compose(const Layers& layers, int width, int height, float* scratch, std::uint8_t* out) noexcept {
  const int row = 3 * width;
  float light[256];  // a sample's share of its pixel, by shadow
  for (int i = 0; i < 256; ++i) light[i] = 0.25f * (1 - layers.strength * (static_cast<float>(i) / 255));
  for (int y = 0; y < height; ++y) {
    // The two sample rows lie a quarter of a pixel above and below the middle of the pixel row, the columns likewise.
    const float* here = layers.background + y * row;
    const float* near[2] = {layers.background + std::max(y - 1, 0) * row,
                            layers.background + std::min(y + 1, height - 1) * row};
    for (int r = 0; r < 2; ++r)
      for (int i = 0; i < row; ++i) scratch[r * row + i] = 0.75f * here[i] + 0.25f * near[r][i];
    for (int x = 0; x < width; ++x) {
      const int side[2] = {3 * std::max(x - 1, 0), 3 * std::min(x + 1, width - 1)};
      float sum[3] = {0, 0, 0};
      for (int r = 0; r < 2; ++r) {
        const float* middle = scratch + r * row + 3 * x;
        for (int s = 0; s < 2; ++s) {
          const int sample = (2 * y + r) * 2 * width + 2 * x + s;
          if (layers.inverse_depth[sample] > 0) {
            for (int c = 0; c < 3; ++c) sum[c] += 0.25f * layers.colour[3 * sample + c];
          } else {
            const float* beside = scratch + r * row + side[s];
            const float share = light[layers.shadow[sample]];
            for (int c = 0; c < 3; ++c) sum[c] += share * (0.75f * middle[c] + 0.25f * beside[c]);
          }
        }
      }
      const int pixel = 3 * (y * width + x);
      for (int c = 0; c < 3; ++c) {
        const float value = sum[c] + layers.grain[pixel + c];
        const float level = value > 0 ? std::min(value, 1.f) : 0.f;  // not a number is black, too
        out[pixel + c] = static_cast<std::uint8_t>(level * 255 + 0.5f);
      }
    }
  }
}

}  // namespace beingh0::raster
