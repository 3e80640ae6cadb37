#include "engine/ops/half_rotary.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/pow.h>

#include <vector>

#include "engine/core/kernel_counter.h"
#include "engine/ops/cpu_rows.h"
#include "engine/ops/row_loop.h"

namespace kino::engine {
namespace {

constexpr double kTheta = 10000.0;

void Check(const at::Tensor& x, int64_t axes, const RotaryTable& table) {
  TORCH_CHECK(x.dim() == 3 && table.cos.dim() == 2 && table.cos.sizes() == table.sin.sizes() &&
                  table.cos.size(0) == x.size(1) && table.cos.size(1) % axes == 0 &&
                  x.size(2) % (2 * table.cos.size(1)) == 0,
              "half rotary: the input is ", x.sizes(), ", the table ", table.cos.sizes(), " of ",
              axes, " axes, expected [B, L, D] and [L, half a head]");
}

}  // namespace

RotaryTable HalfRotaryTable(at::IntArrayRef extents, at::ArrayRef<double> scales, int64_t head,
                            c10::Device device) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(device);
  const size_t axes = extents.size();
  const int64_t width = head / static_cast<int64_t>(axes);
  const at::Tensor frequencies =
      1.0 / at::pow(kTheta, at::arange(0, width, 2, options) / static_cast<double>(width));
  std::vector<int64_t> whole = extents.vec();
  whole.push_back(width / 2);
  std::vector<at::Tensor> parts;
  for (size_t axis = 0; axis < axes; ++axis) {
    std::vector<int64_t> along(axes + 1, 1);
    along[axis] = extents[axis];
    along.back() = width / 2;
    const at::Tensor positions = at::arange(extents[axis], options) / scales[axis];
    parts.push_back((positions.unsqueeze(1) * frequencies).view(along).expand(whole));
  }
  const at::Tensor angles = at::cat(parts, -1).flatten(0, -2);
  return {.cos = angles.cos(), .sin = angles.sin()};
}

at::Tensor HalfRotaryComposed(const at::Tensor& x, int64_t axes, const RotaryTable& table) {
  Check(x, axes, table);
  const int64_t pairs = table.cos.size(1) / axes;
  const at::Tensor halves = x.view({x.size(0), x.size(1), -1, axes, 2, pairs});
  const auto angles = [&](const at::Tensor& of) { return of.view({x.size(1), 1, axes, pairs}); };
  const at::Tensor cos = angles(table.cos), sin = angles(table.sin);
  const at::Tensor first = halves.select(4, 0).to(at::kFloat),
                   second = halves.select(4, 1).to(at::kFloat);
  const at::Tensor out = at::empty_like(halves);
  out.select(4, 0).copy_(first * cos - second * sin);
  out.select(4, 1).copy_(second * cos + first * sin);
  return out.view(x.sizes());
}

at::Tensor HalfRotary(at::Tensor x, int64_t axes, const RotaryTable& table) {
  Check(x, axes, table);
  if (!cpu::FusesRows(x, x) || !cpu::FusesRows(table.cos, table.sin))
    return HalfRotaryComposed(x, axes, table);
  if (x.is_meta()) {
    CountKernel({x, table.cos, table.sin}, {x});
    return x;
  }
  const int64_t length = x.size(1), width = x.size(2), pairs = table.cos.size(1) / axes;
  const float *cos = table.cos.const_data_ptr<float>(), *sin = table.sin.const_data_ptr<float>();
  cpu::WithRowType(x, [&](auto zero) {
    using T = decltype(zero);
    T* rows = cpu::MutableData<T>(x);
    at::parallel_for(0, x.size(0) * length, cpu::RowsPerTask(2 * width),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t row = begin; row < end; ++row) {
                         const int64_t at = row % length * axes * pairs;
                         cpu::HalfRotaryRow(rows + row * width, cos + at, sin + at,
                                            width / (2 * pairs), axes, pairs);
                       }
                     });
  });
  return x;
}

}  // namespace kino::engine
