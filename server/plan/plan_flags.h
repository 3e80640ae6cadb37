// kino.v1.Plan's fields as command-line flags, alike in `kino` and kino-render. One thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "kino/v1/video.pb.h"
#include "server/command_line/command_line.h"

namespace kino::plan {

class PlanFlags {
 public:
  // `this` outlives the parsing.
  void Register(CLI::App& app);
  // Sets in `plan` what was given and leaves the rest. INVALID_ARGUMENT names the flag; what the
  // options' texts may be is the engine's to say.
  absl::Status Apply(v1::Plan* plan) const;

 private:
  absl::Status ApplyTiling(v1::Plan* plan) const;

  std::string mode_, tile_size_, tile_frames_;
  std::vector<std::string> offload_, weights_home_, storage_dtype_, quantize_, quantize_skip_;
  std::optional<int> prefetch_, chunk_feed_forward_;
  std::optional<double> llm_int8_threshold_;
  std::optional<int64_t> max_device_memory_, max_host_memory_;
  bool tile_ = false;
};

}  // namespace kino::plan
