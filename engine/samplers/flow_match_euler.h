// Flow-match Euler (diffusers 0.42.1 schedulers/scheduling_flow_match_euler_discrete.py): tables as
// plain values, a step as a pure function. Tables are computed in float32 in the reference's order
// of operations.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json.hpp"

namespace kino::engine {

struct FlowMatchEulerConfig {
  int num_train_timesteps = 1000;
  double shift = 1.0;
  bool use_dynamic_shifting = false;
  double base_shift = 0.5;
  double max_shift = 1.15;
  int base_image_seq_len = 256;
  int max_image_seq_len = 4096;
  bool invert_sigmas = false;
  double shift_terminal = 0;       // 0: off
  bool linear_time_shift = false;  // time_shift_type "linear"; else "exponential"

  // UNIMPLEMENTED names an option Kino does not have.
  static absl::StatusOr<FlowMatchEulerConfig> FromJson(const nlohmann::json& json,
                                                       const std::string& where);
};

// Exactly one of sigmas and timesteps is given. mu: needed when the config shifts dynamically.
struct ScheduleRequest {
  std::vector<double> sigmas;
  std::vector<double> timesteps;
  std::optional<double> mu;
};

struct FlowMatchSchedule {
  std::vector<float> sigmas;     // one more than timesteps: the last is where the last step arrives
  std::vector<float> timesteps;  // what the model is told, 0..1000
};

absl::StatusOr<FlowMatchSchedule> MakeSchedule(const FlowMatchEulerConfig& config,
                                               const ScheduleRequest& request);

// mu for a sequence of so many tokens: a straight line, not clamped.
double CalculateShift(const FlowMatchEulerConfig& config, int64_t tokens);

// sample + (sigma_next - sigma) * model_output, computed in float32, in model_output's dtype.
at::Tensor EulerStep(const at::Tensor& sample, const at::Tensor& model_output, float sigma,
                     float sigma_next);

}  // namespace kino::engine
