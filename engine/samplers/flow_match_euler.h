// The flow-match Euler sampler: the table of noise levels (no torch in it) and the step on tensors.
// Pure functions, state in, state out; thread-safe.
//
// Source: diffusers 0.42.1 schedulers/scheduling_flow_match_euler_discrete.py (set_timesteps,
// step), and linear_quadratic_schedule and calculate_shift of pipelines/ltx. Tables come out bit
// for bit the same, so arithmetic is float32 exactly where numpy's is: from the caller's sigmas or
// timesteps on, but double for the default table.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "nlohmann/json_fwd.hpp"

namespace at {
class Tensor;
}

namespace kino::engine {

// scheduler_config.json, with the class's defaults.
struct FlowMatchEulerConfig {
  enum class TimeShiftType { kExponential, kLinear };
  enum class Spacing { kGiven, kKarras, kExponential };

  int num_train_timesteps = 1000;
  double shift = 1.0;
  bool use_dynamic_shifting =
      false;  // shift by `mu`, which the request brings, in place of `shift`
  double base_shift = 0.5;
  double max_shift = 1.15;
  int base_image_seq_len = 256;
  int max_image_seq_len = 4096;
  bool invert_sigmas = false;
  double shift_terminal = 0.0;  // the last sigma before the appended one; 0: as it comes
  Spacing spacing = Spacing::kGiven;
  TimeShiftType time_shift_type = TimeShiftType::kExponential;

  // Unknown keys are ignored. INVALID_ARGUMENT names `where` (the file) and the key: of the wrong
  // type, out of range, of another sampler, or asking for what is not supported (use_beta_sigmas,
  // stochastic_sampling).
  static absl::StatusOr<FlowMatchEulerConfig> FromJson(const nlohmann::json& json,
                                                       const std::string& where);
};

// What set_timesteps takes. An empty list is not given; where one is given, its length is the
// number of steps.
struct ScheduleRequest {
  int num_inference_steps = 0;  // used when neither list is given
  std::vector<double> sigmas = {};
  std::vector<double> timesteps = {};
  std::optional<double> mu = std::nullopt;  // needed with use_dynamic_shifting
};

struct FlowMatchSchedule {
  std::vector<float> sigmas;     // one more than steps: step i goes from sigmas[i] to sigmas[i + 1]
  std::vector<float> timesteps;  // what the model is told at each step
};

// INVALID_ARGUMENT: no steps or too many, lists of different lengths, mu missing, or numbers that
// make the table NaN or infinite (one step with shift_terminal does, which the message says).
absl::StatusOr<FlowMatchSchedule> MakeSchedule(const FlowMatchEulerConfig& config,
                                               const ScheduleRequest& request);

// The step at which a loop that begins with `timestep` begins: where it stands, or its second place
// when it stands twice, as the reference has it. INVALID_ARGUMENT: it is not in the schedule.
absl::StatusOr<int> FirstStep(const FlowMatchSchedule& schedule, float timestep);

// numpy's linspace, both ends included. LTXPipeline's default sigmas are Linspace(1, 1.0 / steps,
// steps).
std::vector<double> Linspace(double start, double stop, int count);

// mu for a latent of `image_seq_len` tokens: the straight line through (base_image_seq_len,
// base_shift) and (max_image_seq_len, max_shift). REQUIRES: the two lengths differ (FromJson sees
// to it).
double CalculateShift(const FlowMatchEulerConfig& config, int64_t image_seq_len);

// Sigmas from 1 down, without the final 0: the first linear_steps fall slowly and linearly to 1 -
// threshold_noise, the rest quadratically. linear_steps defaults to half. LTXConditionPipeline
// passes float32(sigma) * 1000 as timesteps. REQUIRES: num_steps >= 1; 0 < linear_steps < num_steps
// when given.
std::vector<double> LinearQuadraticSchedule(int num_steps, double threshold_noise = 0.025,
                                            std::optional<int> linear_steps = std::nullopt);

// sample + (sigma_next - sigma) * model_output, the sample taken to float32 first and the result to
// model_output's type. sample, model_output: one shape.
at::Tensor EulerStep(const at::Tensor& sample, const at::Tensor& model_output, float sigma,
                     float sigma_next);

// The noise level that a token at `sigma` goes to where tokens have levels of their own
// (LTXConditionPipeline): the largest of the schedule below it, 0 where there is none.
float NextLowerSigma(const FlowMatchSchedule& schedule, float sigma);

}  // namespace kino::engine
