#include "engine/nn/grid_positions.h"

#include <ATen/ops/arange.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/outer.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/replication_pad3d.h>

#include <cmath>

namespace kino::engine {

at::Tensor RotaryAngles(const at::Tensor& positions, int64_t dim, double theta) {
  const at::Tensor exponents =
      at::arange(0, dim, 2, positions.options()).div_(static_cast<double>(dim));
  return at::outer(positions, at::pow(theta, exponents).reciprocal_());
}

at::Tensor SpreadPositions(double begin, double end, int64_t size, c10::Device device) {
  const double count = static_cast<double>(size);
  return at::linspace(begin, end * (count - 1) / count, size,
                      at::TensorOptions(device).dtype(at::kFloat));
}

GridCrop::GridCrop(int64_t rows, int64_t columns, int64_t base_rows, int64_t base_columns) {
  const double height = static_cast<double>(rows), width = static_cast<double>(columns);
  const double base_height = static_cast<double>(base_rows),
               base_width = static_cast<double>(base_columns);
  const bool is_tall = height / width > base_height / base_width;
  // Python rounds halves to even, as nearbyint does.
  const double used_height = is_tall ? base_height : std::nearbyint(base_width / width * height);
  const double used_width = is_tall ? std::nearbyint(base_height / height * width) : base_width;
  top = std::nearbyint((base_height - used_height) / 2.0);
  left = std::nearbyint((base_width - used_width) / 2.0);
  bottom = top + used_height;
  right = left + used_width;
}

at::Tensor SinCosPositions(const at::Tensor& positions, int64_t dim) {
  constexpr double kTheta = 10000.0;
  const at::Tensor exponents = at::arange(0, dim / 2, positions.options().dtype(at::kDouble))
                                   .div_(static_cast<double>(dim) / 2.0);
  const at::Tensor angles =
      at::outer(positions.to(at::kDouble), at::pow(kTheta, exponents).reciprocal_());
  return at::cat({angles.sin(), angles.cos()}, 1);
}

at::Tensor OverGrid(const at::Tensor& t, const at::Tensor& h, const at::Tensor& w,
                    bool column_first) {
  const int64_t frames = t.size(0), height = h.size(0), width = w.size(0);
  const at::Tensor time = t.view({frames, 1, 1, -1}).expand({-1, height, width, -1}),
                   row = h.view({1, height, 1, -1}).expand({frames, -1, width, -1}),
                   column = w.view({1, 1, width, -1}).expand({frames, height, -1, -1});
  return at::cat({time, column_first ? column : row, column_first ? row : column}, 3).flatten(0, 2);
}

at::Tensor RepeatToMultiples(const at::Tensor& x, int64_t frames, int64_t space) {
  const auto missing = [&x](int64_t axis, int64_t of) { return (of - x.size(axis) % of) % of; };
  const int64_t time = missing(2, frames), rows = missing(3, space), columns = missing(4, space);
  if (time + rows + columns == 0) return x;
  return at::replication_pad3d(x, {0, columns, 0, rows, 0, time});
}

at::Tensor MeanOverCubes(const at::Tensor& table, int64_t height, int64_t width, int64_t n) {
  const at::Tensor grid = table.t().unflatten(1, {-1, height, width}).unsqueeze(0);
  return at::avg_pool3d(RepeatToMultiples(grid, n, n), {n, n, n}, {n, n, n})
      .squeeze(0)
      .flatten(1)
      .t()
      .contiguous();
}

}  // namespace kino::engine
