#include "engine/samplers/euler_ancestral_rf.h"

#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"

namespace kino::engine {

absl::StatusOr<EulerAncestralRfConfig> EulerAncestralRfConfig::FromJson(const nlohmann::json& json,
                                                                        const std::string& where) {
  ConfigReader reader(json, where);
  EulerAncestralRfConfig c;
  const std::string class_name =
      reader.Get("_class_name", std::string("LTXEulerAncestralRFScheduler"));
  c.eta = reader.Get("eta", c.eta);
  c.s_noise = reader.Get("s_noise", c.s_noise);
  KINO_RETURN_IF_ERROR(reader.status());
  if (class_name != "LTXEulerAncestralRFScheduler") {
    return absl::InvalidArgumentError(absl::StrCat(where, ": _class_name is '", class_name,
                                                   "', expected 'LTXEulerAncestralRFScheduler'"));
  }
  return c;
}

absl::StatusOr<FlowMatchSchedule> MakeAncestralRfSchedule(const FlowMatchEulerConfig& table,
                                                          const ScheduleRequest& request) {
  if (request.sigmas.empty()) return MakeSchedule(table, request);
  FlowMatchSchedule out;
  out.sigmas.assign(request.sigmas.begin(), request.sigmas.end());
  for (const float sigma : out.sigmas) {
    if (!std::isfinite(sigma)) return absl::InvalidArgumentError("sigmas are not all finite");
    out.timesteps.push_back(sigma * static_cast<float>(table.num_train_timesteps));
  }
  return out;
}

bool DrawsNoise(const EulerAncestralRfConfig& config, float sigma_next) {
  return config.eta > 0 && config.s_noise > 0 && !(std::abs(sigma_next) < 1e-8);
}

}  // namespace kino::engine
