// What the operators need to call a row kernel on tensors. Only in builds with CUDA; one thread.
#pragma once

#include "engine/core/cuda_tensors.h"
#include "engine/ops/cuda/row_kernels.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine::cuda {

// REQUIRES: there are at most kMaxSpans.
inline Spans SpansOf(const TokenSpans& spans) {
  Spans out;
  for (const TokenSpan& span : spans) {
    out.end[out.count] = span.end;
    out.row[out.count] = span.row;
    ++out.count;
  }
  return out;
}

// All on one CUDA device, contiguous, of one type.
template <typename... Tensors>
bool CanLaunch(const at::Tensor& first, const Tensors&... others) {
  return first.is_cuda() && first.is_contiguous() &&
         ((others.device() == first.device() && others.is_contiguous() &&
           others.scalar_type() == first.scalar_type()) &&
          ...);
}

}  // namespace kino::engine::cuda
