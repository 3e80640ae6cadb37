#include "engine/samplers/euler_ancestral.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {
namespace {

constexpr int kMaxTrainTimesteps = 1000000;

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

// torch.linspace in float32: from both ends to the middle, each number rounded once.
std::vector<float> TorchLinspace(float start, float end, int count) {
  const float step = count > 1 ? (end - start) / static_cast<float>(count - 1) : 0;
  std::vector<float> out;
  for (int i = 0; i < count; ++i) {
    out.push_back(i < count / 2 || count == 1
                      ? std::fma(step, static_cast<float>(i), start)
                      : std::fma(-step, static_cast<float>(count - 1 - i), end));
  }
  return out;
}

// The noise level of each training timestep, in float32 where torch has it, with torch's products
// in double.
std::vector<float> TrainingSigmas(const EulerAncestralConfig& config) {
  const bool is_scaled = config.beta_schedule == EulerAncestralConfig::BetaSchedule::kScaledLinear;
  const auto end = [is_scaled](double beta) {
    return static_cast<float>(is_scaled ? std::sqrt(beta) : beta);
  };
  std::vector<float> betas =
      TorchLinspace(end(config.beta_start), end(config.beta_end), config.num_train_timesteps);
  double product = 1;
  std::vector<float> sigmas;
  for (const float beta : betas) {
    product *= 1.0f - (is_scaled ? beta * beta : beta);
    const float kept = static_cast<float>(product);
    sigmas.push_back(std::sqrt((1.0f - kept) / kept));
  }
  return sigmas;
}

std::vector<float> Timesteps(const EulerAncestralConfig& config, int count) {
  using Spacing = EulerAncestralConfig::Spacing;
  std::vector<float> out;
  if (config.spacing == Spacing::kLinspace) {
    const std::vector<double> rising = Linspace(0, config.num_train_timesteps - 1, count);
    out.assign(rising.rbegin(), rising.rend());
  } else if (config.spacing == Spacing::kLeading) {
    const int ratio = config.num_train_timesteps / count;
    for (int i = count - 1; i >= 0; --i)
      out.push_back(static_cast<float>(i * ratio) + static_cast<float>(config.steps_offset));
  } else {
    // numpy's arange: as many as there is room for, which rounding can make one more.
    const double first = config.num_train_timesteps, ratio = first / count;
    const double step = (first - ratio) - first;
    const int room = static_cast<int>(std::ceil(-first / -ratio));
    for (int i = 0; i < room; ++i)
      out.push_back(static_cast<float>(std::nearbyint(first + i * step)) - 1.0f);
  }
  return out;
}

// numpy.interp over whole numbers from 0, ends held.
float Interpolated(const std::vector<float>& table, float at) {
  const double last = static_cast<double>(table.size() - 1);
  if (at <= 0) return table.front();
  if (at >= last) return table.back();
  const size_t below = static_cast<size_t>(at);
  const double slope = static_cast<double>(table[below + 1]) - static_cast<double>(table[below]);
  return static_cast<float>(slope * (static_cast<double>(at) - static_cast<double>(below)) +
                            static_cast<double>(table[below]));
}

}  // namespace

absl::StatusOr<EulerAncestralConfig> EulerAncestralConfig::FromJson(const nlohmann::json& json,
                                                                    const std::string& where) {
  ConfigReader reader(json, where);
  EulerAncestralConfig c;
  const std::string class_name =
      reader.Get("_class_name", std::string("EulerAncestralDiscreteScheduler"));
  c.num_train_timesteps = reader.Get("num_train_timesteps", c.num_train_timesteps);
  c.beta_start = reader.Get("beta_start", c.beta_start);
  c.beta_end = reader.Get("beta_end", c.beta_end);
  c.steps_offset = reader.Get("steps_offset", c.steps_offset);
  const std::string beta_schedule = reader.Get("beta_schedule", std::string("linear"));
  const std::string spacing = reader.Get("timestep_spacing", std::string("linspace"));
  const std::string prediction = reader.Get("prediction_type", std::string("epsilon"));
  const bool rescales = reader.Get("rescale_betas_zero_snr", false);
  KINO_RETURN_IF_ERROR(reader.status());
  if (class_name != "EulerAncestralDiscreteScheduler") {
    return Invalid(absl::StrCat(where, ": _class_name is '", class_name,
                                "', expected 'EulerAncestralDiscreteScheduler'"));
  }
  if (json.contains("trained_betas") && !json["trained_betas"].is_null())
    return Invalid(absl::StrCat(where, ": trained_betas is not supported"));
  if (rescales) return Invalid(absl::StrCat(where, ": rescale_betas_zero_snr is not supported"));
  if (beta_schedule == "scaled_linear") {
    c.beta_schedule = BetaSchedule::kScaledLinear;
  } else if (beta_schedule != "linear") {
    return Invalid(absl::StrCat(where, ": beta_schedule is '", beta_schedule,
                                "', expected 'linear' or 'scaled_linear'"));
  }
  if (spacing == "leading" || spacing == "trailing") {
    c.spacing = spacing == "leading" ? Spacing::kLeading : Spacing::kTrailing;
  } else if (spacing != "linspace") {
    return Invalid(absl::StrCat(where, ": timestep_spacing is '", spacing,
                                "', expected 'linspace', 'leading' or 'trailing'"));
  }
  if (prediction == "v_prediction") {
    c.prediction = Prediction::kVelocity;
  } else if (prediction != "epsilon") {
    return Invalid(absl::StrCat(where, ": prediction_type is '", prediction,
                                "', expected 'epsilon' or 'v_prediction'"));
  }
  if (c.num_train_timesteps < 1 || c.num_train_timesteps > kMaxTrainTimesteps) {
    return Invalid(absl::StrCat(where, ": num_train_timesteps is ", c.num_train_timesteps,
                                ", expected 1 to ", kMaxTrainTimesteps));
  }
  // Every training timestep then has a noise level above 0, and a finite one.
  if (!(c.beta_start > 0) || !(c.beta_start <= c.beta_end) || !(c.beta_end < 1)) {
    return Invalid(absl::StrCat(where, ": beta_start is ", c.beta_start, ", beta_end ", c.beta_end,
                                ", expected 0 < beta_start <= beta_end < 1"));
  }
  return c;
}

absl::StatusOr<EulerAncestralSchedule> MakeSchedule(const EulerAncestralConfig& config,
                                                    int num_inference_steps) {
  if (num_inference_steps < 1 || num_inference_steps > config.num_train_timesteps) {
    return Invalid(absl::StrCat("num_inference_steps is ", num_inference_steps, ", expected 1 to ",
                                config.num_train_timesteps));
  }
  const std::vector<float> training = TrainingSigmas(config);
  EulerAncestralSchedule out;
  out.timesteps = Timesteps(config, num_inference_steps);
  for (const float timestep : out.timesteps) out.sigmas.push_back(Interpolated(training, timestep));
  for (size_t i = 0; i < out.sigmas.size(); ++i) {
    if (!std::isfinite(out.sigmas[i]) || out.sigmas[i] <= 0) {
      return Invalid(absl::StrCat("sigma ", i, " of ", out.sigmas.size(), " comes out as ",
                                  out.sigmas[i], ", expected a finite number above 0"));
    }
  }
  const float highest = *std::max_element(out.sigmas.begin(), out.sigmas.end());
  out.init_noise_sigma = config.spacing == EulerAncestralConfig::Spacing::kLeading
                             ? std::sqrt(highest * highest + 1)
                             : highest;
  out.sigmas.push_back(0.0f);
  return out;
}

}  // namespace kino::engine
