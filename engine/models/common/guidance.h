// Classifier-free guidance and what goes with it. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// negative + scale * (positive - negative) of a pair in that order, [2, ...] float32 -> [1, ...].
at::Tensor Guide(const at::Tensor& pair, double scale);

// A guidance scale that turns from 1 up to 1 + scale along the steps (CogVideo's use_dynamic_cfg).
// timestep: of the step, which upstream counts back from the number of steps, whatever its own
// range.
double DynamicGuidance(double scale, int timestep, int num_inference_steps);

// Mixes `guided` with itself brought to the standard deviation of `positive`, over all axes but the
// first (arXiv 2305.08891, section 3.4; diffusers' rescale_noise_cfg).
at::Tensor RescaleGuidance(const at::Tensor& guided, const at::Tensor& positive, double rescale);

}  // namespace kino::engine
