// Weights held as small values with one float32 scale to a row: what int8 and float8 formats share.
// Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include "absl/functional/function_ref.h"

namespace kino::engine {

struct QuantizedRows {
  at::Tensor values;  // [rows, columns]
  at::Tensor scales;  // float32 [rows]
};

// quantize(some rows of x) for all of x, so few at a time that what it computes by the way stays
// small beside x. x: [rows, columns]; `dtype` is of the values.
QuantizedRows QuantizeInChunks(const at::Tensor& x, c10::ScalarType dtype,
                               absl::FunctionRef<QuantizedRows(const at::Tensor&)> quantize);

// values: [rows, columns] int8 or float8_e4m3fn; scales: float32 [rows] -> value * scale * factor,
// [rows, columns] in `dtype` (float32, float16, bfloat16), each product rounded to float32.
at::Tensor DecodeRows(const at::Tensor& values, const at::Tensor& scales, float factor,
                      c10::ScalarType dtype);
// The specification, on torch's operators and on any device.
at::Tensor DecodeRowsComposed(const at::Tensor& values, const at::Tensor& scales, float factor,
                              c10::ScalarType dtype);

}  // namespace kino::engine
