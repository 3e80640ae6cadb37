// The ancestral Euler sampler for flow-match models (rectified flow): the table of noise levels (no
// torch in it) and the step on tensors. Pure functions, state in, state out; thread-safe.
//
// Source: diffusers 0.42.1 schedulers/scheduling_ltx_euler_ancestral_rf.py. Tables and steps come
// out bit for bit the same. It shares nothing with euler_ancestral.h: there noise is added to the
// picture, here the two are mixed.
#pragma once

#include <string>

#include "absl/status/statusor.h"
#include "engine/samplers/flow_match_euler.h"
#include "nlohmann/json_fwd.hpp"

namespace at {
class Tensor;
}

namespace kino::engine {

// scheduler_config.json, with the class's defaults; beside these it may hold a
// FlowMatchEulerConfig's.
struct EulerAncestralRfConfig {
  double eta = 1.0;      // how far below its end a step goes, to come up again by noise; 0: not
  double s_noise = 1.0;  // scales that noise

  // Unknown keys are ignored. INVALID_ARGUMENT names `where` (the file) and the key: of the wrong
  // type, or of another sampler.
  static absl::StatusOr<EulerAncestralRfConfig> FromJson(const nlohmann::json& json,
                                                         const std::string& where);
};

// Sigmas that are given stand as they are, and with no other behind them: as many timesteps as
// sigmas, the last of which is no step's. Without them it is the flow-match sampler's own table.
// INVALID_ARGUMENT: as MakeSchedule.
absl::StatusOr<FlowMatchSchedule> MakeAncestralRfSchedule(const FlowMatchEulerConfig& table,
                                                          const ScheduleRequest& request);

// Whether a step to `sigma_next` adds noise.
bool DrawsNoise(const EulerAncestralRfConfig& config, float sigma_next);

// A step from `sigma` to `sigma_next`. sample, model_output: one shape, and that of noise, standard
// normal in float32 where the step DrawsNoise -> the same in the sample's dtype, computed in
// float32.
at::Tensor EulerAncestralRfStep(const EulerAncestralRfConfig& config, const at::Tensor& sample,
                                const at::Tensor& model_output, const at::Tensor& noise,
                                float sigma, float sigma_next);

}  // namespace kino::engine
