// Modulation of a transformer's blocks: what a linear layer makes of the conditions of all steps at
// once. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// The parts (shift, scale, gate, ...) apart: [T, B, parts * D] -> [T, parts, B, D].
at::Tensor ByPart(const at::Tensor& modulation, int64_t parts);

// What of it a step uses: [parts, B, 1, D]. has_apart: it is [T + 1, parts, B, D], the last that of
// tokens that do not change with the step, and what is used [parts, B, 2, D] with theirs behind.
at::Tensor OfStep(const at::Tensor& modulation, int step, bool has_apart = false);

}  // namespace kino::engine
