#include "engine/samplers/flow_match_euler.h"

#include <ATen/TensorOperators.h>

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<FlowMatchEulerConfig> FlowMatchEulerConfig::FromJson(const nlohmann::json& json,
                                                                    const std::string& where) {
  ConfigReader reader(json, where);
  FlowMatchEulerConfig config;
  const std::string class_name =
      reader.Get("_class_name", std::string("FlowMatchEulerDiscreteScheduler"));
  config.num_train_timesteps = reader.Get("num_train_timesteps", config.num_train_timesteps);
  config.shift = reader.Get("shift", config.shift);
  config.use_dynamic_shifting = reader.Get("use_dynamic_shifting", config.use_dynamic_shifting);
  config.base_shift = reader.Get("base_shift", config.base_shift);
  config.max_shift = reader.Get("max_shift", config.max_shift);
  config.base_image_seq_len = reader.Get("base_image_seq_len", config.base_image_seq_len);
  config.max_image_seq_len = reader.Get("max_image_seq_len", config.max_image_seq_len);
  config.invert_sigmas = reader.Get("invert_sigmas", config.invert_sigmas);
  config.shift_terminal = reader.Get("shift_terminal", config.shift_terminal);
  const std::string type = reader.Get("time_shift_type", std::string("exponential"));
  for (const char* option :
       {"use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "stochastic_sampling"}) {
    if (reader.Get(option, false)) {
      return absl::UnimplementedError(absl::StrCat(where, ": ", option, " true, expected false"));
    }
  }
  KINO_RETURN_IF_ERROR(reader.status());
  if (class_name != "FlowMatchEulerDiscreteScheduler") {
    return absl::UnimplementedError(absl::StrCat(where, ": _class_name '", class_name,
                                                 "', expected 'FlowMatchEulerDiscreteScheduler'"));
  }
  if (type != "exponential" && type != "linear") {
    return absl::InvalidArgumentError(
        absl::StrCat(where, ": time_shift_type '", type, "', expected 'exponential' or 'linear'"));
  }
  config.linear_time_shift = type == "linear";
  return config;
}

absl::StatusOr<FlowMatchSchedule> MakeSchedule(const FlowMatchEulerConfig& config,
                                               const ScheduleRequest& request) {
  if (config.use_dynamic_shifting && !request.mu) {
    return absl::InvalidArgumentError("the sampler shifts dynamically, but no mu was given");
  }
  if (request.sigmas.empty() == request.timesteps.empty()) {
    return absl::InvalidArgumentError("expected either sigmas or timesteps");
  }
  const float train = static_cast<float>(config.num_train_timesteps);
  FlowMatchSchedule schedule;
  std::vector<float>& sigmas = schedule.sigmas;
  for (const double sigma : request.sigmas) sigmas.push_back(static_cast<float>(sigma));
  for (const double timestep : request.timesteps)
    sigmas.push_back(static_cast<float>(timestep) / train);

  for (float& sigma : sigmas) {
    if (config.use_dynamic_shifting) {
      const float shift =
          static_cast<float>(config.linear_time_shift ? *request.mu : std::exp(*request.mu));
      sigma = shift / (shift + (1.0f / sigma - 1.0f));
    } else {
      const float shift = static_cast<float>(config.shift);
      sigma = shift * sigma / (1.0f + static_cast<float>(config.shift - 1.0) * sigma);
    }
  }
  if (config.shift_terminal != 0) {
    const float factor = (1.0f - sigmas.back()) / static_cast<float>(1.0 - config.shift_terminal);
    for (float& sigma : sigmas) sigma = 1.0f - (1.0f - sigma) / factor;
  }
  for (size_t i = 0; i < sigmas.size(); ++i) {
    if (config.invert_sigmas) sigmas[i] = 1.0f - sigmas[i];
    schedule.timesteps.push_back(request.timesteps.empty() || config.invert_sigmas
                                     ? sigmas[i] * train
                                     : static_cast<float>(request.timesteps[i]));
  }
  sigmas.push_back(config.invert_sigmas ? 1.0f : 0.0f);
  return schedule;
}

double CalculateShift(const FlowMatchEulerConfig& config, int64_t tokens) {
  const double slope = (config.max_shift - config.base_shift) /
                       (config.max_image_seq_len - config.base_image_seq_len);
  return static_cast<double>(tokens) * slope +
         (config.base_shift - slope * config.base_image_seq_len);
}

at::Tensor EulerStep(const at::Tensor& sample, const at::Tensor& model_output, float sigma,
                     float sigma_next) {
  return (sample.to(at::kFloat) + model_output * (sigma_next - sigma))
      .to(model_output.scalar_type());
}

}  // namespace kino::engine
