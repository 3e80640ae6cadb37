#include "engine/trace/meta_kernels.h"

#include <ATen/ExpandUtils.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/result_type.h>
#include <torch/library.h>

#include <algorithm>
#include <mutex>
#include <tuple>
#include <vector>

namespace kino::engine {
namespace {

// Each allocates what the CPU's and CUDA's kernels allocate.

std::tuple<at::Tensor, at::Tensor, at::Tensor> LayerNorm(const at::Tensor& input,
                                                         c10::SymIntArrayRef normalized_shape,
                                                         const std::optional<at::Tensor>&,
                                                         const std::optional<at::Tensor>&, double) {
  std::vector<int64_t> statistics = input.sizes().vec();
  for (size_t i = 0; i < normalized_shape.size(); ++i) statistics[statistics.size() - 1 - i] = 1;
  const at::TensorOptions options = input.options().dtype(
      input.is_floating_point() && input.scalar_type() != at::kDouble ? at::kFloat
                                                                      : input.scalar_type());
  return {at::empty_like(input), at::empty(statistics, options), at::empty(statistics, options)};
}

at::Tensor Abs(const at::Tensor& self) { return at::empty_like(self); }

at::Tensor IndexSelect(const at::Tensor& self, int64_t dim, const at::Tensor& index) {
  std::vector<int64_t> shape = self.sizes().vec();
  if (!shape.empty()) shape[static_cast<size_t>(dim < 0 ? dim + self.dim() : dim)] = index.numel();
  return at::empty(shape, self.options());
}

at::Tensor Where(const at::Tensor& condition, const at::Tensor& a, const at::Tensor& b) {
  const std::vector<int64_t> shape =
      at::infer_size(condition.sizes(), at::infer_size(a.sizes(), b.sizes()));
  return at::empty(shape, a.options().dtype(at::result_type(a, b)));
}

at::Tensor Std(const at::Tensor& self, at::OptionalIntArrayRef dim,
               const std::optional<at::Scalar>&, bool keepdim) {
  std::vector<int64_t> shape;
  for (int64_t axis = 0; axis < self.dim(); ++axis) {
    const bool reduced = !dim || std::any_of(dim->begin(), dim->end(), [&](int64_t each) {
      return (each < 0 ? each + self.dim() : each) == axis;
    });
    if (!reduced) shape.push_back(self.size(axis));
    if (reduced && keepdim) shape.push_back(1);
  }
  return at::empty(shape, self.options());
}

}  // namespace

void InstallMetaKernels() {
  static std::once_flag once;
  std::call_once(once, [] {
    // Kernels stay for as long as the library object.
    static auto library = MAKE_TORCH_LIBRARY_IMPL(aten, Meta);
    library.impl("abs", Abs);
    library.impl("native_layer_norm", LayerNorm);
    library.impl("index_select", IndexSelect);
    library.impl("where.self", Where);
    library.impl("std.correction", Std);
  });
}

}  // namespace kino::engine
