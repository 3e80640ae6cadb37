// What the operators need to call a row kernel on tensors. Only in builds with CUDA; one thread.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "engine/ops/cuda/row_kernels.h"
#include "engine/ops/norm_modulate.h"

namespace kino::engine::cuda {

// Nothing for a type the kernels do not have.
inline std::optional<Element> ElementOf(const at::Tensor& tensor) {
  switch (tensor.scalar_type()) {
    case at::kFloat:
      return Element::kFloat;
    case at::kHalf:
      return Element::kHalf;
    case at::kBFloat16:
      return Element::kBFloat16;
    default:
      return std::nullopt;
  }
}

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

inline cudaStream_t StreamOf(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream();
}

}  // namespace kino::engine::cuda
