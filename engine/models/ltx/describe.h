// What an LTX-Video checkpoint can do, and the schedule a request gets from its sampler. No torch.
// Immutable, thread-safe.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/describe/families.h"
#include "engine/samplers/euler_ancestral_rf.h"
#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {

FamilyDescriber LtxDescriber();

// scheduler_config.json: either of the classes that the pipelines run with.
struct LtxSampler {
  FlowMatchEulerConfig table;
  std::optional<EulerAncestralRfConfig> ancestral = {};  // it steps so

  static absl::StatusOr<LtxSampler> FromJson(const nlohmann::json& json, const std::string& where);
};

// Whether an effective request runs as LTXI2VLongMultiPromptPipeline does it, in windows: a folder
// that names that class does so for every request, others where temporal_tile_size is given.
bool RunsLongPipeline(const Request& request);

// Whether an effective request runs as LTXConditionPipeline does it: a folder that names that class
// does so for every task, others for what their own pipelines cannot do.
bool RunsConditionPipeline(const Request& request);

// What each pass of an effective request is by itself: the request, or, where it asks for two
// passes, the first at half the height and width and the second with its own schedule and
// denoise_strength.
std::vector<Request> LtxPasses(const Request& request);

// Sigmas and timesteps of an effective request whose latents have so many tokens: the request's
// own, or diffusers' default. LTXPipeline's is linspace(1, 1 / steps, steps), shifted by the
// sampler; LTXConditionPipeline's is linear-quadratic, by the sampler's plain shift (where the
// sampler shifts by the number of tokens, diffusers refuses; here nothing is shifted).
// INVALID_ARGUMENT: they come out of no use (NaN, say).
absl::StatusOr<FlowMatchSchedule> LtxSchedule(const FlowMatchEulerConfig& sampler,
                                              const Request& request, int64_t tokens);

// The steps of each window of such a request.
absl::StatusOr<FlowMatchSchedule> LtxLongSchedule(const LtxSampler& sampler,
                                                  const Request& request);

}  // namespace kino::engine
