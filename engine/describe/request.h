// A request as the engine knows it: what GenerateRequest says, in plain structs. In an effective
// request every optional that the task uses is set. Values only; no torch, no protobuf.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "engine/describe/knobs.h"

namespace kino::engine {

enum class Task { kUnspecified, kTextToVideo, kImageToVideo, kVideoToVideo, kUpscale };
// "TEXT_TO_VIDEO", as the API spells it.
const char* TaskName(Task task);
// A task that does not takes no prompt, no steps and no guidance.
constexpr bool Denoises(Task task) { return task != Task::kUpscale; }

enum class ConditionKind { kImage, kVideo, kControlVideo };

// Of a video, in pixels and frames.
struct VideoSize {
  int height = 0, width = 0, num_frames = 0;
  bool operator==(const VideoSize&) const = default;
};

// Pixels travel beside the request (engine.h's MediaInput), in the same order.
struct Condition {
  ConditionKind kind = ConditionKind::kImage;
  int frame_index = 0;
  double strength = 1.0;
  // Of a video: how many of its first frames are used. Absent: all.
  std::optional<int> num_frames = {};
  // Of what it shows, where whoever resolves the request knows it.
  std::optional<VideoSize> size = {};
  // Frames per second of a video, likewise.
  std::optional<double> fps = {};
  bool operator==(const Condition&) const = default;
};

// Sizes in pixels and frames; absent means diffusers' default of the VAE class.
struct VaeTiling {
  std::optional<int> tile_sample_min_height, tile_sample_min_width, tile_sample_min_num_frames;
  std::optional<int> tile_sample_stride_height, tile_sample_stride_width,
      tile_sample_stride_num_frames;
  std::optional<bool> framewise = {};  // in time as well; absent: as the VAE's class does by itself
  bool operator==(const VaeTiling&) const = default;
};

// Memory and speed options. Absent means the model's configuration, and there the default; texts
// are those of describe/weight_plan.h.
struct Plan {
  // "auto": the fastest that fits; "fastest"; "smallest". Empty with explicit options only.
  std::optional<std::string> mode;
  std::optional<VaeTiling> vae_tiling;
  std::optional<std::string> offload;        // "none", "model", "sequential", "leaf", "block:N"
  std::optional<std::string> weights_home;   // "file", "pageable", "pinned"
  std::optional<int> prefetch;               // weight groups copied ahead, 0 to 8
  std::optional<std::string> storage_dtype;  // "float8_e4m3fn", "float8_e5m2", "none"
  std::optional<std::string> quantize;       // "nf4", "int8", ...
  std::vector<std::string> quantize_skip;    // names of layers that stay as they are
  std::optional<double> llm_int8_threshold;  // bitsandbytes int8's outliers, from 0 (none)
  std::optional<int> chunk_feed_forward;     // tokens at a time
  // Bytes; auto, fastest and smallest keep below them, and a run may not exceed them.
  std::optional<int64_t> max_device_memory, max_host_memory;
  bool operator==(const Plan&) const = default;
};

struct OutputOptions {
  std::optional<int> quality;  // 0..100
  bool lossless = false;
  bool operator==(const OutputOptions&) const = default;
};

struct Request {
  Task task = Task::kUnspecified;
  std::optional<std::string> prompt, negative_prompt;
  std::optional<int> height, width, num_frames, num_inference_steps;
  std::optional<double> guidance_scale;
  std::optional<uint64_t> seed;
  std::optional<double> fps;
  std::vector<Condition> conditions;
  OutputOptions output;
  Plan plan;
  Knobs knobs;
  bool operator==(const Request&) const = default;
};

// A field of the request that cannot be accepted. `field` is the API's path ("ltx.frame_rate",
// "conditions[0].strength").
struct FieldViolation {
  std::string field;
  std::string description;  // what was expected and what was got
};

// Appends to a list of them.
struct FailInto {
  std::vector<FieldViolation>& violations;
  void operator()(std::string field, std::string description) const {
    violations.push_back({std::move(field), std::move(description)});
  }
};

}  // namespace kino::engine
