#include "engine/quant/int8_matmul.h"

#include <ATen/ops/_int_mm.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "engine/core/trace.h"

namespace kino::engine {
namespace {

// 128 * 128 * 1024 = 2^24: float32 holds every partial sum.
constexpr int64_t kExactColumns = 1024;
// Rows of either side in one float32 product.
constexpr int64_t kSquare = 128;

// cuBLASLt takes more than 16 rows, and multiples of 8 of the rest.
constexpr int64_t kCudaMinRows = 17;
constexpr int64_t kCudaMultiple = 8;

}  // namespace

int64_t DynamicRowsPerChunk(const at::Tensor& x) {
  return RunsOnGpu(x) ? kGpuDynamicRowsPerChunk : kInt8RowsPerChunk;
}

at::Tensor Int8MatMulComposed(const at::Tensor& a, const at::Tensor& b) {
  TORCH_CHECK(a.dim() == 2 && b.dim() == 2 && a.size(1) == b.size(1), "int8 product of ", a.sizes(),
              " and ", b.sizes());
  const at::TensorOptions options = a.options().dtype(at::kInt);
  if (a.size(1) == 0) return at::zeros({a.size(0), b.size(0)}, options);
  at::Tensor sum = at::empty({a.size(0), b.size(0)}, options);
  // Square by square, so that the float32 copies are small beside what the integer product takes.
  for (int64_t column = 0; column < b.size(0); column += kSquare) {
    const int64_t columns = std::min(kSquare, b.size(0) - column);
    for (int64_t begin = 0; begin < a.size(1); begin += kExactColumns) {
      const int64_t count = std::min(kExactColumns, a.size(1) - begin);
      const at::Tensor right = b.narrow(0, column, columns).narrow(1, begin, count).to(at::kFloat);
      for (int64_t row = 0; row < a.size(0); row += kSquare) {
        const int64_t rows = std::min(kSquare, a.size(0) - row);
        const at::Tensor left = a.narrow(0, row, rows).narrow(1, begin, count).to(at::kFloat);
        const at::Tensor product = at::mm(left, right.t());
        at::Tensor square = sum.narrow(0, row, rows).narrow(1, column, columns);
        if (begin == 0) {
          square.copy_(product);
        } else {
          square.add_(product.to(at::kInt));
        }
      }
    }
  }
  return sum;
}

at::Tensor Int8MatMul(const at::Tensor& a, const at::Tensor& b) {
  if (a.is_cpu()) {
    // Without these instructions _int_mm is a scalar loop. Of one column it takes the transposed b
    // for what it is not, and is wrong (torch 2.11).
    if (CpuOf(a).int8 && a.size(0) > 0 && a.size(1) > 1) return at::_int_mm(a, b.t());
  } else if (a.is_cuda() && a.size(1) > 0 && a.size(1) % kCudaMultiple == 0 &&
             b.size(0) % kCudaMultiple == 0) {
    if (a.size(0) >= kCudaMinRows) return at::_int_mm(a, b.t());
    return at::_int_mm(at::constant_pad_nd(a, {0, 0, 0, kCudaMinRows - a.size(0)}), b.t())
        .narrow(0, 0, a.size(0));
  }
  return Int8MatMulComposed(a, b);
}

}  // namespace kino::engine
