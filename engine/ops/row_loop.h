// What operators need to run the row functions of cpu_rows.h over tensors: which tensors they take,
// their data, how many rows a thread takes at a time.
#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>

#include "engine/core/trace.h"
#include "engine/ops/row_math.h"

namespace kino::engine::cpu {

// Both are contiguous and of one dtype, which the row functions know, on a CPU.
inline bool FusesRows(const at::Tensor& x, const at::Tensor& other) {
  return RunsOnCpu(x) && x.is_contiguous() && other.is_contiguous() &&
         x.scalar_type() == other.scalar_type() &&
         (x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16);
}

// Calls body(T{}) with the rows' type. REQUIRES: FusesRows.
template <typename Body>
void WithRowType(const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) return body(float{});
  body(BFloat16{});
}

template <typename T>
const T* Data(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}
template <typename T>
T* MutableData(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// Rows a thread takes at a time: enough work to pay for waking it.
inline int64_t RowsPerTask(int64_t width) {
  constexpr int64_t kElementsPerTask = 32768;
  return std::max<int64_t>(1, kElementsPerTask / std::max<int64_t>(1, width));
}

}  // namespace kino::engine::cpu
