#include "engine/samplers/ddim.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/samplers/first_step.h"

namespace kino::engine {
namespace {

constexpr int kMaxTrainTimesteps = 1'000'000;

absl::Status Invalid(const std::string& what) { return absl::InvalidArgumentError(what); }

// alphas_cumprod of every timestep. Betas lie on a line between the roots of their ends
// (scaled_linear).
std::vector<double> AlphasCumprod(const DdimConfig& config) {
  const int count = config.num_train_timesteps;
  const double first = std::sqrt(config.beta_start), last = std::sqrt(config.beta_end);
  const double step = count > 1 ? (last - first) / (count - 1) : 0;
  std::vector<double> alphas;
  double product = 1;
  for (int i = 0; i < count; ++i) {
    // From the nearer end, as torch.linspace does it.
    const double root =
        i < count / 2 || count == 1 ? first + step * i : last - step * (count - 1 - i);
    product *= 1 - root * root;
    alphas.push_back(product);
  }
  const double shift = config.snr_shift_scale;
  for (double& alpha : alphas) alpha = alpha / (shift + (1 - shift) * alpha);
  if (!config.rescale_betas_zero_snr) return alphas;
  // The last timestep becomes noise alone (arXiv 2305.08891, algorithm 1).
  const double root_first = std::sqrt(alphas.front()), root_last = std::sqrt(alphas.back());
  const double stretch = root_first / (root_first - root_last);
  for (double& alpha : alphas) {
    const double root = (std::sqrt(alpha) - root_last) * stretch;
    alpha = root * root;
  }
  return alphas;
}

// numpy rounds halves to even, as nearbyint does.
std::vector<int> Timesteps(const DdimConfig& config, int steps) {
  const int count = config.num_train_timesteps;
  std::vector<int> timesteps;
  switch (config.spacing) {
    case DdimConfig::Spacing::kLinspace: {
      const double span = count - 1, step = steps > 1 ? span / (steps - 1) : 0;
      for (int i = 0; i < steps; ++i) {
        const double value = steps > 1 && i + 1 == steps ? span : i * step;
        timesteps.push_back(static_cast<int>(std::nearbyint(value)));
      }
      std::reverse(timesteps.begin(), timesteps.end());
      break;
    }
    case DdimConfig::Spacing::kLeading:
      for (int i = steps - 1; i >= 0; --i)
        timesteps.push_back(i * (count / steps) + config.steps_offset);
      break;
    case DdimConfig::Spacing::kTrailing: {
      // numpy.arange(count, 0, -count / steps): its length, and the step as it comes out between
      // the first two values. By a rounding some counts (61 of 1000) have one value more, close to
      // 0, and so a last timestep of -1; to upstream that is the table's last one.
      const double ratio = static_cast<double>(count) / steps;
      const int length = static_cast<int>(std::ceil(count / ratio));
      const double step = (count - ratio) - count;
      for (int i = 0; i < length; ++i)
        timesteps.push_back(static_cast<int>(std::nearbyint(count + i * step)) - 1);
      break;
    }
  }
  return timesteps;
}

}  // namespace

absl::StatusOr<DdimConfig> DdimConfig::FromJson(const nlohmann::json& json,
                                                const std::string& where) {
  ConfigReader reader(json, where);
  DdimConfig c;
  const std::string class_name = reader.Get("_class_name", std::string("CogVideoXDDIMScheduler"));
  c.num_train_timesteps = reader.Get("num_train_timesteps", c.num_train_timesteps);
  c.beta_start = reader.Get("beta_start", c.beta_start);
  c.beta_end = reader.Get("beta_end", c.beta_end);
  c.set_alpha_to_one = reader.Get("set_alpha_to_one", c.set_alpha_to_one);
  c.steps_offset = reader.Get("steps_offset", c.steps_offset);
  c.rescale_betas_zero_snr = reader.Get("rescale_betas_zero_snr", c.rescale_betas_zero_snr);
  c.snr_shift_scale = reader.Get("snr_shift_scale", c.snr_shift_scale);
  const std::string beta_schedule = reader.Get("beta_schedule", std::string("scaled_linear"));
  const std::string prediction = reader.Get("prediction_type", std::string("epsilon"));
  const std::string spacing = reader.Get("timestep_spacing", std::string("leading"));
  KINO_RETURN_IF_ERROR(reader.status());
  const auto refuse = [&where](const char* key, const std::string& got, const char* expected) {
    return Invalid(absl::StrCat(where, ": ", key, " is '", got, "', expected ", expected));
  };
  if (class_name == "CogVideoXDPMScheduler") {
    c.solver = DdimSolver::kDpm;
  } else if (class_name != "CogVideoXDDIMScheduler") {
    return refuse("_class_name", class_name, "'CogVideoXDDIMScheduler' or 'CogVideoXDPMScheduler'");
  }
  if (beta_schedule != "scaled_linear")
    return refuse("beta_schedule", beta_schedule, "'scaled_linear'");
  if (json.contains("trained_betas") && !json["trained_betas"].is_null())
    return Invalid(absl::StrCat(where, ": trained_betas are not supported"));
  if (prediction != "v_prediction") return refuse("prediction_type", prediction, "'v_prediction'");
  if (spacing == "linspace") {
    c.spacing = Spacing::kLinspace;
  } else if (spacing == "trailing") {
    c.spacing = Spacing::kTrailing;
  } else if (spacing != "leading") {
    return refuse("timestep_spacing", spacing, "'leading', 'trailing' or 'linspace'");
  }
  if (c.num_train_timesteps < 2 || c.num_train_timesteps > kMaxTrainTimesteps) {
    return Invalid(absl::StrCat(where, ": num_train_timesteps is ", c.num_train_timesteps,
                                ", expected 2 to ", kMaxTrainTimesteps));
  }
  if (!(c.beta_start > 0 && c.beta_end > c.beta_start && c.beta_end < 1)) {
    return Invalid(absl::StrCat(where, ": beta_start is ", c.beta_start, " and beta_end ",
                                c.beta_end, ", expected rising between 0 and 1"));
  }
  if (!(c.snr_shift_scale > 0) || !std::isfinite(c.snr_shift_scale)) {
    return Invalid(
        absl::StrCat(where, ": snr_shift_scale is ", c.snr_shift_scale, ", expected above 0"));
  }
  if (c.steps_offset < 0 || c.steps_offset >= c.num_train_timesteps) {
    return Invalid(absl::StrCat(where, ": steps_offset is ", c.steps_offset, ", expected 0 to ",
                                c.num_train_timesteps - 1));
  }
  return c;
}

absl::StatusOr<DdimSchedule> MakeDdimSchedule(const DdimConfig& config, int num_inference_steps,
                                              double strength) {
  const int count = config.num_train_timesteps;
  if (num_inference_steps < 1 || num_inference_steps > count) {
    return Invalid(
        absl::StrCat("num_inference_steps is ", num_inference_steps, ", expected 1 to ", count));
  }
  const std::vector<double> alphas = AlphasCumprod(config);
  DdimSchedule schedule;
  for (const int timestep : Timesteps(config, num_inference_steps)) {
    if (timestep >= count) {
      return Invalid(absl::StrCat(num_inference_steps, " steps have timestep ", timestep,
                                  ", expected at most ", count - 1));
    }
    const int next = timestep - count / num_inference_steps;
    const double end = config.set_alpha_to_one ? 1.0 : alphas.front();
    schedule.push_back(
        {.timestep = timestep,
         .alpha = alphas[static_cast<size_t>(timestep < 0 ? timestep + count : timestep)],
         .next_alpha = next >= 0 ? alphas[static_cast<size_t>(next)] : end,
         .reaches_end = next < 0});
  }
  const int first = FirstStepAt(num_inference_steps, strength);
  if (first == num_inference_steps) {
    return Invalid(
        absl::StrCat(num_inference_steps, " steps at strength ", strength, " leave none to run"));
  }
  schedule.erase(schedule.begin(), schedule.begin() + first);
  return schedule;
}

}  // namespace kino::engine
