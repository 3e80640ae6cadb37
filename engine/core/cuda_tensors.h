// What it takes to call one of our CUDA kernels on tensors. Only in builds with CUDA; thread-safe.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <optional>

#include "engine/core/cuda_element.h"

namespace kino::engine::cuda {

// Nothing for a type the kernels do not have.
inline std::optional<Element> ElementOf(c10::ScalarType dtype) {
  switch (dtype) {
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

inline cudaStream_t StreamOf(const at::Tensor& tensor) {
  return c10::cuda::getCurrentCUDAStream(tensor.device().index()).stream();
}

// 89 for 8.9.
inline int ComputeCapability(c10::Device device) {
  int major = 0, minor = 0;
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()));
  C10_CUDA_CHECK(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index()));
  return 10 * major + minor;
}

}  // namespace kino::engine::cuda
