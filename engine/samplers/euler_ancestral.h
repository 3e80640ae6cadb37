// The ancestral Euler sampler for models that predict noise: the table of noise levels (no torch in
// it) and the step on tensors. Pure functions, state in, state out; thread-safe.
//
// Source: diffusers 0.42.1 schedulers/scheduling_euler_ancestral_discrete.py. Steps come out bit
// for bit the same; of the table the timesteps do, and noise levels to the last bit of a float32,
// since torch's square root is not the nearest float32 everywhere.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace at {
class Tensor;
}

namespace kino::engine {

// scheduler_config.json, with the class's defaults.
struct EulerAncestralConfig {
  enum class BetaSchedule { kLinear, kScaledLinear };
  enum class Spacing { kLinspace, kLeading, kTrailing };
  enum class Prediction { kEpsilon, kVelocity };

  int num_train_timesteps = 1000;
  double beta_start = 0.0001;
  double beta_end = 0.02;
  BetaSchedule beta_schedule = BetaSchedule::kLinear;
  Spacing spacing = Spacing::kLinspace;
  int steps_offset = 0;  // added to timesteps spaced kLeading
  Prediction prediction = Prediction::kEpsilon;

  // Unknown keys are ignored. INVALID_ARGUMENT names `where` (the file) and the key: of the wrong
  // type, out of range, of another sampler, or asking for what is not supported (trained_betas,
  // rescale_betas_zero_snr, other values of beta_schedule and prediction_type).
  static absl::StatusOr<EulerAncestralConfig> FromJson(const nlohmann::json& json,
                                                       const std::string& where);
};

struct EulerAncestralSchedule {
  std::vector<float> sigmas;     // one more than steps: step i goes from sigmas[i] to sigmas[i + 1]
  std::vector<float> timesteps;  // what the model is told at each step
  float init_noise_sigma = 1;    // the standard deviation of what the first step starts from
};

// INVALID_ARGUMENT: num_inference_steps is not 1 to num_train_timesteps.
absl::StatusOr<EulerAncestralSchedule> MakeSchedule(const EulerAncestralConfig& config,
                                                    int num_inference_steps);

// What the first step starts from: so much noise as the schedule begins with, in the noise's dtype.
at::Tensor ScaleNoise(const at::Tensor& noise, const EulerAncestralSchedule& schedule);

// What the model is given of a sample at noise level `sigma`: sample / sqrt(sigma^2 + 1), in the
// sample's dtype.
at::Tensor ScaleModelInput(const at::Tensor& sample, float sigma);

// A step down to less noise than `sigma_next`, then so much of `noise` that it is sigma_next again;
// at the last step, where sigma_next is 0, none. sample, model_output, noise: one shape; noise is
// standard normal in model_output's dtype -> the same in that dtype, computed in float32.
at::Tensor EulerAncestralStep(EulerAncestralConfig::Prediction prediction, const at::Tensor& sample,
                              const at::Tensor& model_output, const at::Tensor& noise, float sigma,
                              float sigma_next);

}  // namespace kino::engine
