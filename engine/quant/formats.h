// The weight format a quantization scheme stands for.
#pragma once

#include <memory>

#include "engine/describe/weight_plan.h"
#include "engine/quant/weight_format.h"

namespace kino::engine {

// int8_threshold: of QuantScheme::kInt8. compute: what weights come in and layers compute in.
// Throws StatusError INVALID_ARGUMENT for kNone, a negative threshold, and a compute dtype that is
// none of float32, float16 and bfloat16.
std::shared_ptr<const WeightFormat> MakeWeightFormat(QuantScheme scheme, double int8_threshold,
                                                     c10::ScalarType compute);

}  // namespace kino::engine
