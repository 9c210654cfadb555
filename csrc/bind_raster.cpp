#include <pybind11/stl.h>

// Python face of the rasteriser: every check is here.
#include "bind_check.hpp"
#include "raster.hpp"

#include <array>
#include <cmath>
#include <vector>

namespace py = pybind11;
namespace rs = beingh0::raster;
using beingh0::checked;
using beingh0::finite;
using beingh0::kAny;
using beingh0::writable;

namespace {

using Floats3 = std::array<float, 3>;

rs::Pinhole pinhole(const std::array<float, 4>& k, const py::array& image) {
  for (const float v : k)
    if (!std::isfinite(v)) throw std::invalid_argument("intrinsics_px: expected four finite numbers");
  if (!(k[0] > 0 && k[1] > 0)) throw std::invalid_argument("intrinsics_px: focal lengths must be positive");
  return {k[0], k[1], k[2], k[3], static_cast<int>(image.shape(1)), static_cast<int>(image.shape(0))};
}

const std::int32_t* faces_of(const py::array& faces, py::ssize_t vertex_count) {
  const std::int32_t* f = checked<std::int32_t>("faces", faces, {kAny, 3});
  for (py::ssize_t i = 0; i < faces.size(); ++i)
    if (f[i] < 0 || f[i] >= vertex_count)
      throw std::invalid_argument("faces: index " + std::to_string(f[i]) + " outside [0, " + std::to_string(vertex_count) + ")");
  return f;
}

float near_plane(float near_m) {
  if (!(near_m > 0 && std::isfinite(near_m))) throw std::invalid_argument("near_m: expected a positive number");
  return near_m;
}

void draw(py::array colour, py::array inverse_depth, const py::array& vertices, const py::array& colours,
          const py::array& faces, const std::array<float, 4>& intrinsics_px, float near_m) {
  float* c = writable<float>("colour", colour, {kAny, kAny, 3});
  float* d = writable<float>("inverse_depth", inverse_depth, {colour.shape(0), colour.shape(1)});
  const float* v = finite<float>("vertices", vertices, {kAny, 3});
  const float* k = checked<float>("colours", colours, {vertices.shape(0), 3});
  const std::int32_t* f = faces_of(faces, vertices.shape(0));
  const rs::Pinhole camera = pinhole(intrinsics_px, colour);
  const rs::Mesh mesh{v, f, static_cast<int>(vertices.shape(0)), static_cast<int>(faces.shape(0))};
  near_plane(near_m);
  py::gil_scoped_release release;
  std::vector<rs::Projected> scratch(mesh.vertex_count);
  rs::triangles(camera, mesh, k, near_m, scratch.data(), c, d);
}

void cover(py::array mask, const py::array& vertices, const py::array& faces, const std::array<float, 4>& intrinsics_px,
           float near_m) {
  std::uint8_t* m = writable<std::uint8_t>("mask", mask, {kAny, kAny});
  const float* v = finite<float>("vertices", vertices, {kAny, 3});
  const std::int32_t* f = faces_of(faces, vertices.shape(0));
  const rs::Pinhole camera = pinhole(intrinsics_px, mask);
  const rs::Mesh mesh{v, f, static_cast<int>(vertices.shape(0)), static_cast<int>(faces.shape(0))};
  near_plane(near_m);
  py::gil_scoped_release release;
  std::vector<rs::Projected> scratch(mesh.vertex_count);
  rs::coverage(camera, mesh, near_m, scratch.data(), m);
}

py::array_t<std::uint8_t> soften(const py::array& mask, int radius) {
  const std::uint8_t* m = checked<std::uint8_t>("mask", mask, {kAny, kAny});
  if (radius < 0 || radius > 4096) throw std::invalid_argument("radius: expected 0 to 4096, got " + std::to_string(radius));
  const int height = static_cast<int>(mask.shape(0)), width = static_cast<int>(mask.shape(1));
  py::array_t<std::uint8_t> out({mask.shape(0), mask.shape(1)});
  std::uint8_t* o = out.mutable_data();
  py::gil_scoped_release release;
  for (int i = 0; i < width * height; ++i)
    if (m[i] > 1) throw std::invalid_argument("mask: expected 0 or 1, got " + std::to_string(m[i]));
  std::vector<std::int32_t> scratch(width);
  rs::soften(m, width, height, radius, scratch.data(), o);
  return out;
}

void fill_plane(py::array colour, const std::array<float, 4>& intrinsics_px, const Floats3& origin, const Floats3& u,
                const Floats3& v, const Floats3& normal, const Floats3& colour_a, const Floats3& colour_b,
                const Floats3& horizon, float scale_per_m, int texture, std::uint32_t seed) {
  float* c = writable<float>("colour", colour, {kAny, kAny, 3});
  if (texture < 0 || texture > 3)
    throw std::invalid_argument("texture: expected 0 plain, 1 checker, 2 noise or 3 wood, got " + std::to_string(texture));
  rs::Plane p{};
  const std::array<std::pair<float*, const Floats3*>, 7> pairs{{{p.origin, &origin}, {p.u, &u}, {p.v, &v},
      {p.normal, &normal}, {p.colour_a, &colour_a}, {p.colour_b, &colour_b}, {p.horizon, &horizon}}};
  for (const auto& [to, from] : pairs)
    for (int i = 0; i < 3; ++i) {
      if (!std::isfinite((*from)[i])) throw std::invalid_argument("plane: not finite");
      to[i] = (*from)[i];
    }
  if (!(scale_per_m > 0 && std::isfinite(scale_per_m))) throw std::invalid_argument("scale_per_m: expected a positive number");
  p.scale_per_m = scale_per_m;
  p.texture = static_cast<rs::Texture>(texture);
  p.seed = seed;
  const rs::Pinhole camera = pinhole(intrinsics_px, colour);
  py::gil_scoped_release release;
  rs::plane(camera, p, c);
}

py::array_t<std::uint8_t> compose(const py::array& background, const py::array& shadow, float strength,
                                  const py::array& colour, const py::array& inverse_depth, const py::array& grain) {
  const float* b = checked<float>("background", background, {kAny, kAny, 3});
  const py::ssize_t height = background.shape(0), width = background.shape(1);
  const rs::Layers layers{b, checked<std::uint8_t>("shadow", shadow, {2 * height, 2 * width}), strength,
                          checked<float>("colour", colour, {2 * height, 2 * width, 3}),
                          checked<float>("inverse_depth", inverse_depth, {2 * height, 2 * width}),
                          checked<float>("grain", grain, {height, width, 3})};
  if (!(strength >= 0 && strength <= 1)) throw std::invalid_argument("strength: expected 0 to 1, got " + std::to_string(strength));
  py::array_t<std::uint8_t> out({height, width, py::ssize_t{3}});
  std::uint8_t* o = out.mutable_data();
  py::gil_scoped_release release;
  std::vector<float> scratch(2 * 3 * width);
  rs::compose(layers, static_cast<int>(width), static_cast<int>(height), scratch.data(), o);
  return out;
}

}  // namespace

void bind_raster(py::module_& m) {
  m.def("raster_triangles", &draw, py::arg("colour"), py::arg("inverse_depth"), py::arg("vertices"), py::arg("colours"),
        py::arg("faces"), py::arg("intrinsics_px"), py::arg("near_m") = 0.02f,
        "Draws lit triangles (camera frame, metres) into colour float32[H, W, 3] and inverse_depth float32[H, W].");
  m.def("raster_coverage", &cover, py::arg("mask"), py::arg("vertices"), py::arg("faces"), py::arg("intrinsics_px"),
        py::arg("near_m") = 0.02f, "Sets mask uint8[H, W] to 1 where a triangle covers the pixel's centre.");
  m.def("raster_soften", &soften, py::arg("mask"), py::arg("radius"),
        "Mean of mask uint8[H, W] (0 or 1) around each pixel, as uint8[H, W] in 0..255.");
  m.def("raster_plane", &fill_plane, py::arg("colour"), py::arg("intrinsics_px"), py::arg("origin"), py::arg("u"),
        py::arg("v"), py::arg("normal"), py::arg("colour_a"), py::arg("colour_b"), py::arg("horizon"),
        py::arg("scale_per_m"), py::arg("texture"), py::arg("seed"),
        "Fills colour float32[H, W, 3] with a textured plane seen by the camera.");
  m.def("raster_compose", &compose, py::arg("background"), py::arg("shadow"), py::arg("strength"), py::arg("colour"),
        py::arg("inverse_depth"), py::arg("grain"),
        "Averages what was drawn at twice the size over an enlarged background: uint8[H, W, 3].");
}
