#include "engine/models/common/noise.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/ops/randn.h>

#include "engine/core/trace.h"

namespace kino::engine {

NoiseSource::NoiseSource(uint64_t seed)
    : generator_(at::make_generator<at::CPUGeneratorImpl>(seed)),
      global_(at::make_generator<at::CPUGeneratorImpl>(seed)) {}

NoiseSource NoiseSource::Clone() const { return {generator_.clone(), global_.clone()}; }

at::Tensor NoiseSource::Randn(at::IntArrayRef shape, c10::ScalarType dtype, c10::Device device) {
  if (device.is_meta()) return EmptyByHost(shape, dtype);
  return at::randn(shape, generator_, at::TensorOptions().dtype(dtype)).to(device);
}

}  // namespace kino::engine
