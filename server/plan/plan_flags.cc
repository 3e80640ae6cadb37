#include "server/plan/plan_flags.h"

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "server/command_line/byte_size.h"

namespace kino::plan {
namespace {

using command_line::AddOption;
using command_line::BadValue;

// Whole numbers above 0 with commas between; empty when one is not.
std::vector<int> Sizes(const std::string& text) {
  std::vector<int> sizes;
  for (const std::string& item : std::vector<std::string>(absl::StrSplit(text, ','))) {
    int size = 0;
    if (!absl::SimpleAtoi(item, &size) || size < 1) return {};
    sizes.push_back(size);
  }
  return sizes;
}

void AddByteSize(CLI::App& app, const std::string& name, std::optional<int64_t>* value,
                 const std::string& help) {
  const auto set = [value](const std::string& text) -> std::string {
    const absl::StatusOr<int64_t> bytes = command_line::ParseByteSize(text);
    if (!bytes.ok()) return command_line::kByteSizeForm;
    *value = *bytes;
    return "";
  };
  AddOption(app, name, set, "SIZE", help);
}

}  // namespace

void PlanFlags::Register(CLI::App& app) {
  AddOption(app, "--plan", &mode_, "MODE",
            "Chooses what the flags below leave open: auto (the fastest that fits), fastest or "
            "smallest.");
  AddOption(app, "--offload", &offload_, "POLICY",
            "When weights are on the device: none, model, block:N, leaf or sequential. This and "
            "the next three take COMPONENT=VALUE as well and may be repeated.");
  AddOption(app, "--weights-home", &weights_home_, "HOME",
            "Where they are else: file, pageable or pinned.");
  AddOption(app, "--storage-dtype", &storage_dtype_, "TYPE",
            "Lossy: weights stored as float8_e4m3fn or float8_e5m2.");
  AddOption(app, "--quantize", &quantize_, "SCHEME",
            "Lossy: nf4, nf4_dq, fp4, fp4_dq, int8, int8wo, int8dyn, fp8wo, fp8dyn, q8_0, q4_0, "
            "q4_1, q5_0 or q5_1.");
  AddOption(app, "--quantize-skip", &quantize_skip_, "NAME",
            "Layers whose name holds this are not quantized; repeatable.");
  AddOption(app, "--llm-int8-threshold", &llm_int8_threshold_, "X",
            "int8: outliers' threshold; 0 for none. Default 6.");
  AddOption(app, "--prefetch", &prefetch_, "N",
            "Groups of weights copied ahead, 0 to 8. Default 1.");
  AddOption(app, "--chunk-feed-forward", &chunk_feed_forward_, "N",
            "Tokens at a time in feed-forward.");
  app.add_flag("--vae-tiling", tile_, "Tiles in the VAE, of the model's own sizes.");
  AddOption(app, "--vae-tile-size", &tile_size_, "SIZES",
            "H,W or H,W,STRIDE_H,STRIDE_W in pixels.");
  AddOption(app, "--vae-tile-frames", &tile_frames_, "FRAMES",
            "FRAMES or FRAMES,STRIDE: tiles in time as well; none: not in time, whatever the model "
            "does by itself.");
  AddByteSize(app, "--max-device-memory", &max_device_memory_,
              "Limit of the device's memory: 8GiB, 5.5GiB, 6G.");
  AddByteSize(app, "--max-host-memory", &max_host_memory_, "The same of the host's.");
}

absl::Status PlanFlags::ApplyTiling(v1::Plan* plan) const {
  if (tile_) plan->mutable_vae_tiling();
  if (!tile_size_.empty()) {
    const std::vector<int> sizes = Sizes(tile_size_);
    if (sizes.size() != 2 && sizes.size() != 4) {
      return BadValue("--vae-tile-size", "H,W or H,W,STRIDE_H,STRIDE_W in pixels", tile_size_);
    }
    v1::VaeTiling* tiling = plan->mutable_vae_tiling();
    tiling->set_tile_sample_min_height(sizes[0]);
    tiling->set_tile_sample_min_width(sizes[1]);
    if (sizes.size() == 4) {
      tiling->set_tile_sample_stride_height(sizes[2]);
      tiling->set_tile_sample_stride_width(sizes[3]);
    }
  }
  if (tile_frames_ == "none") {
    plan->mutable_vae_tiling()->set_framewise(false);
  } else if (!tile_frames_.empty()) {
    const std::vector<int> sizes = Sizes(tile_frames_);
    if (sizes.size() != 1 && sizes.size() != 2) {
      return BadValue("--vae-tile-frames", "FRAMES, FRAMES,STRIDE or none", tile_frames_);
    }
    v1::VaeTiling* tiling = plan->mutable_vae_tiling();
    tiling->set_framewise(true);
    tiling->set_tile_sample_min_num_frames(sizes[0]);
    if (sizes.size() == 2) tiling->set_tile_sample_stride_num_frames(sizes[1]);
  }
  return absl::OkStatus();
}

absl::Status PlanFlags::Apply(v1::Plan* plan) const {
  if (!mode_.empty()) {
    v1::PlanMode mode;
    // Only in lower case, as the help says.
    if (mode_ != absl::AsciiStrToLower(mode_) ||
        !v1::PlanMode_Parse(absl::AsciiStrToUpper(mode_), &mode) ||
        mode == v1::PLAN_MODE_UNSPECIFIED) {
      return BadValue("--plan", "auto, fastest or smallest", mode_);
    }
    plan->set_mode(mode);
  }
  if (!offload_.empty()) plan->set_offload(absl::StrJoin(offload_, ","));
  if (!weights_home_.empty()) plan->set_weights_home(absl::StrJoin(weights_home_, ","));
  if (!storage_dtype_.empty()) plan->set_storage_dtype(absl::StrJoin(storage_dtype_, ","));
  if (!quantize_.empty()) plan->set_quantize(absl::StrJoin(quantize_, ","));
  if (!quantize_skip_.empty()) {
    plan->mutable_quantize_skip()->Assign(quantize_skip_.begin(), quantize_skip_.end());
  }
  if (llm_int8_threshold_) plan->set_llm_int8_threshold(*llm_int8_threshold_);
  if (prefetch_) plan->set_prefetch(*prefetch_);
  if (chunk_feed_forward_) plan->set_chunk_feed_forward(*chunk_feed_forward_);
  if (max_device_memory_) plan->set_max_device_memory(*max_device_memory_);
  if (max_host_memory_) plan->set_max_host_memory(*max_host_memory_);
  return ApplyTiling(plan);
}

}  // namespace kino::plan
