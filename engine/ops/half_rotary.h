// Rotary position embedding whose pairs are a number of a stretch's first half and the one at the
// same place of its second half; a head has a stretch for each axis of positions. The composed form
// is the specification and runs on every device and dtype; float32 and bfloat16 on the CPU have a
// fused one, which gives the same bits. Source: diffusers 0.42.1 models/embeddings.py
// apply_rotary_emb_allegro.
#pragma once

#include <ATen/core/Tensor.h>

#include "engine/ops/norm_rotary.h"

namespace kino::engine {

// Angles of the tokens of a grid, the last axis fastest: each axis has an equal part of the head,
// positions are divided by the axis's scale. head % (2 * axes) is 0. On `device`.
RotaryTable HalfRotaryTable(at::IntArrayRef extents, at::ArrayRef<double> scales, int64_t head,
                            c10::Device device);

// x: [B, L, heads * axes * 2 * N]. table: float32 [L, axes * N] each, the same for all heads -> [B,
// L, D] in x's dtype, computed in float32. May use x's memory.
at::Tensor HalfRotary(at::Tensor x, int64_t axes, const RotaryTable& table);
at::Tensor HalfRotaryComposed(const at::Tensor& x, int64_t axes, const RotaryTable& table);

}  // namespace kino::engine
