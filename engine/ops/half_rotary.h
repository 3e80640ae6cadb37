// Rotary position embedding whose pairs are a number of a stretch's first half and the one at the
// same place of its second half; a head has a stretch for each axis of positions. The composed form
// is the specification and runs on every device and dtype. Pure function. Source: diffusers 0.42.1
// models/embeddings.py apply_rotary_emb_allegro.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/ops/norm_rotary.h"

namespace kino::engine {

// x: [B, L, heads * axes * 2 * N]. table: float32 [L, axes * N] each, the same for all heads -> [B,
// L, D] in x's dtype, computed in float32.
at::Tensor HalfRotary(const at::Tensor& x, int64_t axes, const RotaryTable& table);

}  // namespace kino::engine
