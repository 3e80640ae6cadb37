// Where a loop begins that changes what is there already, for every sampler. Pure function; no
// torch.
#pragma once

#include <algorithm>

namespace kino::engine {

// The first step that runs where what is there already is changed by no more than `strength`, 0..1
// (get_timesteps of diffusers' video-to-video pipelines). num_inference_steps: none does.
inline int FirstStepAt(int num_inference_steps, double strength) {
  const int run = std::min(static_cast<int>(num_inference_steps * strength), num_inference_steps);
  return num_inference_steps - run;
}

}  // namespace kino::engine
