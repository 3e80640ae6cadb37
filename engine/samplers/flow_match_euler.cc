#include "engine/samplers/flow_match_euler.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {
namespace {

constexpr int kMaxSteps = 10000;
constexpr int kMaxTrainTimesteps = 1000000;

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

// Noise levels while they are shifted: T is float for a caller's own numbers, double for the
// default table. numpy turns a Python scalar into the array's type before it computes; `T{...}`
// below is that.
template <typename T>
void Shift(const FlowMatchEulerConfig& config, double mu, std::vector<T>& sigmas) {
  using Type = FlowMatchEulerConfig::TimeShiftType;
  for (T& s : sigmas) {
    if (!config.use_dynamic_shifting) {
      s = static_cast<T>(config.shift) * s / (1 + static_cast<T>(config.shift - 1) * s);
    } else {
      const T scale =
          static_cast<T>(config.time_shift_type == Type::kExponential ? std::exp(mu) : mu);
      s = scale / (scale + (1 / s - 1));
    }
  }
}

// Stretches 1 - sigma so that the last sigma becomes shift_terminal.
template <typename T>
void StretchToTerminal(double shift_terminal, std::vector<T>& sigmas) {
  const T factor = (1 - sigmas.back()) / static_cast<T>(1 - shift_terminal);
  for (T& s : sigmas) s = 1 - (1 - s) / factor;
}

// Karras 2022 (arXiv 2206.00364) with rho 7, or evenly in log sigma; from the first to the last
// sigma, in double.
std::vector<double> Respace(FlowMatchEulerConfig::Spacing spacing, double first, double last,
                            size_t count) {
  const int n = static_cast<int>(count);
  if (spacing == FlowMatchEulerConfig::Spacing::kExponential) {
    std::vector<double> out = Linspace(std::log(first), std::log(last), n);
    for (double& s : out) s = std::exp(s);
    return out;
  }
  constexpr double kRho = 7.0;
  const double from = std::pow(first, 1 / kRho);
  const double to = std::pow(last, 1 / kRho);
  std::vector<double> out = Linspace(0, 1, n);
  for (double& s : out) s = std::pow(from + s * (to - from), kRho);
  return out;
}

template <typename T>
std::vector<float> ShiftedSigmas(const FlowMatchEulerConfig& config, double mu,
                                 std::vector<T> sigmas) {
  Shift(config, mu, sigmas);
  if (config.shift_terminal != 0) StretchToTerminal(config.shift_terminal, sigmas);
  if (config.spacing == FlowMatchEulerConfig::Spacing::kGiven)
    return {sigmas.begin(), sigmas.end()};
  const std::vector<double> spaced =
      Respace(config.spacing, sigmas.front(), sigmas.back(), sigmas.size());
  return {spaced.begin(), spaced.end()};
}

// The ends of the class's training table, which the default table runs between: float32 numbers.
std::pair<double, double> SigmaRange(const FlowMatchEulerConfig& config) {
  const float count = static_cast<float>(config.num_train_timesteps);
  std::vector<float> ends = {count / count, 1 / count};
  if (!config.use_dynamic_shifting) Shift(config, 0, ends);
  return {ends[0], ends[1]};
}

absl::Status CheckLists(const ScheduleRequest& request) {
  const std::pair<const char*, const std::vector<double>&> lists[] = {
      {"sigmas", request.sigmas}, {"timesteps", request.timesteps}};
  for (const auto& [name, list] : lists) {
    if (list.size() > kMaxSteps) {
      return Invalid(
          absl::StrCat(name, ": ", list.size(), " values, expected at most ", kMaxSteps));
    }
    for (size_t i = 0; i < list.size(); ++i) {
      if (!std::isfinite(list[i])) return Invalid(absl::StrCat(name, "[", i, "] is not finite"));
    }
  }
  const bool has_sigmas = !request.sigmas.empty();
  const bool has_timesteps = !request.timesteps.empty();
  if (has_sigmas && has_timesteps && request.sigmas.size() != request.timesteps.size()) {
    return Invalid(absl::StrCat("sigmas: ", request.sigmas.size(), " values, timesteps: ",
                                request.timesteps.size(), ", expected as many"));
  }
  const int steps = request.num_inference_steps;
  if (!has_sigmas && !has_timesteps && (steps < 1 || steps > kMaxSteps)) {
    return Invalid(absl::StrCat("num_inference_steps is ", steps, ", expected 1 to ", kMaxSteps));
  }
  return absl::OkStatus();
}

absl::Status CheckRanges(const FlowMatchEulerConfig& config, const std::string& where) {
  if (config.num_train_timesteps < 1 || config.num_train_timesteps > kMaxTrainTimesteps) {
    return Invalid(absl::StrCat(where, ": num_train_timesteps is ", config.num_train_timesteps,
                                ", expected 1 to ", kMaxTrainTimesteps));
  }
  if (config.shift <= 0)
    return Invalid(absl::StrCat(where, ": shift is ", config.shift, ", expected above 0"));
  if (config.shift_terminal < 0 || config.shift_terminal >= 1) {
    return Invalid(absl::StrCat(where, ": shift_terminal is ", config.shift_terminal,
                                ", expected 0 to below 1"));
  }
  if (config.base_image_seq_len == config.max_image_seq_len) {
    return Invalid(absl::StrCat(where, ": base_image_seq_len and max_image_seq_len are both ",
                                config.max_image_seq_len, ", expected two lengths"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<FlowMatchEulerConfig> FlowMatchEulerConfig::FromJson(const nlohmann::json& json,
                                                                    const std::string& where) {
  ConfigReader reader(json, where);
  FlowMatchEulerConfig c;
  const std::string class_name =
      reader.Get("_class_name", std::string("FlowMatchEulerDiscreteScheduler"));
  c.num_train_timesteps = reader.Get("num_train_timesteps", c.num_train_timesteps);
  c.shift = reader.Get("shift", c.shift);
  c.use_dynamic_shifting = reader.Get("use_dynamic_shifting", c.use_dynamic_shifting);
  c.base_shift = reader.Get("base_shift", c.base_shift);
  c.max_shift = reader.Get("max_shift", c.max_shift);
  c.base_image_seq_len = reader.Get("base_image_seq_len", c.base_image_seq_len);
  c.max_image_seq_len = reader.Get("max_image_seq_len", c.max_image_seq_len);
  c.invert_sigmas = reader.Get("invert_sigmas", c.invert_sigmas);
  c.shift_terminal = reader.Get("shift_terminal", c.shift_terminal);
  const std::string time_shift_type = reader.Get("time_shift_type", std::string("exponential"));
  const bool is_karras = reader.Get("use_karras_sigmas", false);
  const bool is_exponential = reader.Get("use_exponential_sigmas", false);
  for (const char* unsupported : {"use_beta_sigmas", "stochastic_sampling"}) {
    if (reader.Get(unsupported, false))
      return Invalid(absl::StrCat(where, ": ", unsupported, " is not supported"));
  }
  KINO_RETURN_IF_ERROR(reader.status());

  if (class_name != "FlowMatchEulerDiscreteScheduler") {
    return Invalid(absl::StrCat(where, ": _class_name is '", class_name,
                                "', expected 'FlowMatchEulerDiscreteScheduler'"));
  }
  if (is_karras && is_exponential) {
    return Invalid(absl::StrCat(
        where,
        ": use_karras_sigmas and use_exponential_sigmas are both set, expected one at most"));
  }
  if (is_karras) c.spacing = Spacing::kKarras;
  if (is_exponential) c.spacing = Spacing::kExponential;
  if (time_shift_type == "linear") {
    c.time_shift_type = TimeShiftType::kLinear;
  } else if (time_shift_type != "exponential") {
    return Invalid(absl::StrCat(where, ": time_shift_type is '", time_shift_type,
                                "', expected 'exponential' or 'linear'"));
  }
  KINO_RETURN_IF_ERROR(CheckRanges(c, where));
  return c;
}

absl::StatusOr<FlowMatchSchedule> MakeSchedule(const FlowMatchEulerConfig& config,
                                               const ScheduleRequest& request) {
  KINO_RETURN_IF_ERROR(CheckLists(request));
  if (config.use_dynamic_shifting && !(request.mu && std::isfinite(*request.mu))) {
    return Invalid("mu must be given, and finite, with use_dynamic_shifting");
  }
  const double mu = request.mu.value_or(0);
  const float train_timesteps = static_cast<float>(config.num_train_timesteps);

  FlowMatchSchedule out;
  out.timesteps.assign(request.timesteps.begin(), request.timesteps.end());
  if (!request.sigmas.empty()) {
    out.sigmas =
        ShiftedSigmas(config, mu, std::vector<float>(request.sigmas.begin(), request.sigmas.end()));
  } else if (!request.timesteps.empty()) {
    std::vector<float> sigmas = out.timesteps;
    for (float& s : sigmas) s /= train_timesteps;
    out.sigmas = ShiftedSigmas(config, mu, std::move(sigmas));
  } else {
    const auto [sigma_max, sigma_min] = SigmaRange(config);
    const double count = config.num_train_timesteps;
    std::vector<double> sigmas =
        Linspace(sigma_max * count, sigma_min * count, request.num_inference_steps);
    for (double& s : sigmas) s /= count;
    out.sigmas = ShiftedSigmas(config, mu, std::move(sigmas));
  }
  for (size_t i = 0; i < out.sigmas.size(); ++i) {
    if (!std::isfinite(out.sigmas[i]) && out.sigmas.size() == 1 && config.shift_terminal != 0) {
      // The first sigma is 1 and has to become the last one too.
      return Invalid("expected at least 2 steps, since the scheduler has shift_terminal, got 1");
    }
    if (!std::isfinite(out.sigmas[i])) {
      return Invalid(absl::StrCat("sigma ", i, " of ", out.sigmas.size(), " comes out as ",
                                  out.sigmas[i], " after shifting, expected a finite number"));
    }
  }

  if (config.invert_sigmas) {
    for (float& s : out.sigmas) s = 1 - s;
  }
  if (request.timesteps.empty() || config.invert_sigmas) {
    out.timesteps = out.sigmas;
    for (float& t : out.timesteps) t *= train_timesteps;
  }
  out.sigmas.push_back(config.invert_sigmas ? 1.0f : 0.0f);
  return out;
}

absl::StatusOr<int> FirstStep(const FlowMatchSchedule& schedule, float timestep) {
  const auto begin = schedule.timesteps.begin();
  const auto end = schedule.timesteps.end();
  const auto first = std::find(begin, end, timestep);
  if (first == end) return Invalid(absl::StrCat("timestep ", timestep, " is not in the schedule"));
  const auto second = std::find(first + 1, end, timestep);
  return static_cast<int>((second == end ? first : second) - begin);
}

float NextLowerSigma(const FlowMatchSchedule& schedule, float sigma) {
  float next = 0;
  for (const float each : schedule.sigmas) {
    if (each < sigma - 1e-6f) next = std::max(next, each);
  }
  return next;
}

std::vector<double> Linspace(double start, double stop, int count) {
  std::vector<double> out;
  const double span = stop - start;
  const double step = count > 1 ? span / (count - 1) : 0;
  for (int i = 0; i < count; ++i) {
    // A step that underflows to zero is avoided as numpy does it.
    const double offset = step != 0   ? i * step
                          : count > 1 ? static_cast<double>(i) / (count - 1) * span
                                      : i * span;
    out.push_back(offset + start);
  }
  if (count > 1) out.back() = stop;
  return out;
}

double CalculateShift(const FlowMatchEulerConfig& config, int64_t image_seq_len) {
  const double slope = (config.max_shift - config.base_shift) /
                       (config.max_image_seq_len - config.base_image_seq_len);
  const double intercept = config.base_shift - slope * config.base_image_seq_len;
  return static_cast<double>(image_seq_len) * slope + intercept;
}

std::vector<double> LinearQuadraticSchedule(int num_steps, double threshold_noise,
                                            std::optional<int> linear_steps) {
  if (num_steps < 2) return {1.0};
  const int linear_count = linear_steps.value_or(num_steps / 2);
  const double linear = linear_count;
  const double quadratic = num_steps - linear_count;
  const double difference = linear - threshold_noise * num_steps;
  const double quadratic_coef = difference / (linear * (quadratic * quadratic));
  const double linear_coef = threshold_noise / linear - 2 * difference / (quadratic * quadratic);
  const double constant = quadratic_coef * (linear * linear);
  std::vector<double> out;
  for (int i = 0; i < num_steps; ++i) {
    const double step = i;
    const double noise = i < linear_count
                             ? step * threshold_noise / linear
                             : quadratic_coef * (step * step) + linear_coef * step + constant;
    out.push_back(1.0 - noise);
  }
  return out;
}

}  // namespace kino::engine
