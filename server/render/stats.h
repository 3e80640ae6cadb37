// --stats: seconds and peak memory by stage, the plan that ran and the effective request, as JSON.
// Free functions.
#pragma once

#include <string>

#include "absl/status/status.h"
#include "engine/engine.h"
#include "kino/v1/video.pb.h"

namespace kino::render {

struct Stats {
  std::string model, device, dtype;
  engine::StageStats load;
  engine::RunResult result;
  v1::GenerateRequest effective_request;
};

// Memory in bytes, time in seconds; the process's peak resident size up to now is added. One
// object, indented.
absl::Status WriteStats(const std::string& path, const Stats& stats);

}  // namespace kino::render
