// torchao 0.18's weight formats with one scale to a row: Int8WeightOnlyConfig,
// Int8DynamicActivationInt8WeightConfig, Float8WeightOnlyConfig and
// Float8DynamicActivationFloat8WeightConfig(granularity=PerRow()). Values, scales and decoded
// weights are torchao's own, bit for bit: a row's scale is computed in the weight's dtype and kept
// in float32. One difference: a float8 row of zeros stays zeros, where torchao has NaN.
#pragma once

#include <memory>

#include "engine/quant/weight_format.h"

namespace kino::engine {

// Parts of all: values [out, in], scales float32 [out].

// x W^T in x's dtype on the integers, scaled after it.
std::shared_ptr<const WeightFormat> MakeTorchAoInt8WeightOnly();
// Activations in int8 with a scale for each token, the product in integers.
std::shared_ptr<const WeightFormat> MakeTorchAoInt8Dynamic();
// x W^T in x's dtype with the decoded weight.
std::shared_ptr<const WeightFormat> MakeTorchAoFloat8WeightOnly();
// Activations in float8_e4m3fn with a scale for each token. at::_scaled_mm on CUDA from compute
// capability 8.9 where x is bfloat16 and both sizes are multiples of 16 (its conditions), else the
// composed product: float32 sums of the float8 values, scaled after it.
std::shared_ptr<const WeightFormat> MakeTorchAoFloat8Dynamic();

}  // namespace kino::engine
