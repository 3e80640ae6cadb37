// The random draws of a run, in the order and type diffusers makes them: a CPU generator seeded by
// the request, and a second one, seeded alike, for what diffusers draws from torch's global
// generator. One thread at a time.
#pragma once

#include <ATen/core/Generator.h>
#include <ATen/core/Tensor.h>

#include <utility>

namespace kino::engine {

class NoiseSource {
 public:
  explicit NoiseSource(uint64_t seed);
  // Standard normal, drawn on the CPU in `dtype`, then moved to `device`. The dtype is part of the
  // stream: a bfloat16 draw is another sequence than a float32 one.
  at::Tensor Randn(at::IntArrayRef shape, c10::ScalarType dtype, c10::Device device);
  // Draws the same from here on, by itself.
  NoiseSource Clone() const;
  // diffusers' global draws.
  const at::Generator& global() const { return global_; }

 private:
  NoiseSource(at::Generator generator, at::Generator global)
      : generator_(std::move(generator)), global_(std::move(global)) {}
  at::Generator generator_;
  at::Generator global_;
};

}  // namespace kino::engine
