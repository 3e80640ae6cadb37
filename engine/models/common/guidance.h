// Classifier-free guidance and what goes with it. Pure functions.
#pragma once

#include <ATen/core/Tensor.h>

namespace kino::engine {

// negative + scale * (positive - negative), all float32.
at::Tensor Guide(const at::Tensor& negative, const at::Tensor& positive, double scale);

// Mixes `guided` with itself brought to the standard deviation of `positive`, over all axes but the
// first (arXiv 2305.08891, section 3.4; diffusers' rescale_noise_cfg).
at::Tensor RescaleGuidance(const at::Tensor& guided, const at::Tensor& positive, double rescale);

}  // namespace kino::engine
