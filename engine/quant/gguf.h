// GGUF's block types as weight formats: decoding of each, encoding of those that gguf 0.19 encodes
// (Q8_0, Q4_0, Q4_1, Q5_0, Q5_1), both bit-equal to its quants.py.
//
// A weight is one uint8 part [rows, bytes per row], its bytes as they lie in a GGUF file; a row is
// a run along the last dimension. Decoding computes in float32 whatever the result's type is, and
// rounds once to that type. (diffusers 0.42.1 computes in float16, which rounds at each step;
// where a type has no offset and one scale, Q8_0, Q4_0 and Q5_0, both give the same float16.)
#pragma once

#include <memory>

#include "engine/core/ggml_type.h"
#include "engine/quant/weight_format.h"

namespace kino::engine {

// REQUIRES: `type` is not kNone. The format throws StatusError INVALID_ARGUMENT for a shape whose
// last dimension blocks do not divide, and UNIMPLEMENTED when asked to encode a type that is only
// read.
std::shared_ptr<const WeightFormat> MakeGgufFormat(GgmlType type);

}  // namespace kino::engine
