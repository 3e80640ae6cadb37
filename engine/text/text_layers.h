// What the text encoders share. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/memory/component.h"

namespace kino::engine {

// The table's rows of these ids. ids: [1, L] int64 on the host, L not 0; table: [vocabulary, D] ->
// [1, L, D] in the encoder's dtype on its device. INVALID_ARGUMENT (thrown as StatusError), naming
// the encoder's folder: an id outside the vocabulary.
at::Tensor EmbedTokens(const Component& encoder, const WeightRef& table, int64_t vocabulary,
                       const at::Tensor& ids);

// x / sqrt(mean(x^2) + eps) in float32, rounded to the weight's dtype, times the weight. x: [...,
// D]; weight: [D] -> [..., D] in the weight's dtype. Source: transformers 5.23 LlamaRMSNorm,
// T5LayerNorm.
at::Tensor RmsNorm(const at::Tensor& x, const WeightRef& weight, double eps);

}  // namespace kino::engine
