#include "engine/models/ltx/tokens.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>

#include <algorithm>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status_bridge.h"
#include "engine/nn/grid_positions.h"

namespace kino::engine {
namespace {

// Latent frames of a later video that become tokens of their own: the first of them stands for one
// pixel frame, the video's own latents there for eight (num_prefix_latent_frames).
constexpr int64_t kPrefixLatentFrames = 2;

at::Tensor Positions(const at::Tensor& seconds, int64_t height, int64_t width, double pixels) {
  const auto axis = [&](int64_t size) {
    return (at::arange(size, seconds.options()) * pixels).unsqueeze(1);
  };
  return OverGrid(seconds.unsqueeze(1), axis(height), axis(width));
}

}  // namespace

LtxTokens LayOutTokens(const LtxVaeConfig& vae, const Request& request,
                       const std::vector<MediaInput>& media) {
  const int64_t ratio = vae.temporal_compression_ratio;
  LtxTokens tokens;
  tokens.grid = {.frames = (*request.num_frames - 1) / ratio + 1,
                 .height = *request.height / vae.spatial_compression_ratio,
                 .width = *request.width / vae.spatial_compression_ratio};
  const int64_t frame_tokens = tokens.grid.height * tokens.grid.width;
  const auto hold = [&tokens](int64_t count, float strength) {
    const int64_t begin = tokens.held.empty() ? 0 : tokens.held.back().end;
    if (!tokens.held.empty() && tokens.held.back().strength == strength) {
      tokens.held.back().end += count;
    } else {
      tokens.held.push_back({begin, begin + count, strength});
    }
  };
  std::vector<float> strengths(static_cast<size_t>(tokens.grid.frames), 0.0f);
  for (size_t i = 0; i < media.size(); ++i) {
    const Condition& condition = request.conditions[i];
    const int64_t room = *request.num_frames - condition.frame_index;
    const int64_t frames =
        condition.kind == ConditionKind::kImage ? 1 : std::min<int64_t>(media[i].num_frames, room);
    if (frames < 1) {
      throw StatusError(absl::InvalidArgumentError(
          absl::StrCat("conditions[", i, "]: ", media[i].num_frames, " frames from frame ",
                       condition.frame_index, " on, in a video of ", *request.num_frames)));
    }
    const int64_t latents = (frames - 1) / ratio + 1;
    LtxConditionPlace place{.frames = (latents - 1) * ratio + 1, .mixed = latents};
    if (condition.frame_index > 0) {
      place.added = std::min(latents, kPrefixLatentFrames);
      place.mixed = latents - place.added;
      place.mixed_from = condition.frame_index / ratio + kPrefixLatentFrames;
    }
    const float strength = static_cast<float>(condition.strength);
    if (place.mixed > 0) std::fill_n(strengths.begin() + place.mixed_from, place.mixed, strength);
    if (place.added > 0) hold(place.added * frame_tokens, strength);
    tokens.added += place.added * frame_tokens;
    tokens.conditions.push_back(place);
  }
  for (const float strength : strengths) hold(frame_tokens, strength);
  return tokens;
}

at::Tensor GridPositions(const LatentGrid& grid, double seconds, double pixels,
                         c10::Device device) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(device);
  return Positions(at::arange(grid.frames, options) * seconds, grid.height, grid.width, pixels);
}

at::Tensor PixelPositionsFrom(const LatentGrid& grid, int64_t frame_index, const LtxVaeConfig& vae,
                              double frame_rate, c10::Device device) {
  const at::TensorOptions options = at::TensorOptions().dtype(at::kFloat).device(device);
  const int64_t ratio = vae.temporal_compression_ratio;
  const at::Tensor first = (at::arange(grid.frames, options) * ratio + (1 - ratio)).clamp_min(0);
  return Positions((first + frame_index) * (1.0 / frame_rate), grid.height, grid.width,
                   static_cast<double>(vae.spatial_compression_ratio));
}

at::Tensor PixelPositions(const LtxTokens& tokens, const LtxVaeConfig& vae,
                          const std::vector<Condition>& conditions, double frame_rate,
                          c10::Device device) {
  const auto from = [&](int64_t frames, int64_t frame_index) {
    return PixelPositionsFrom({frames, tokens.grid.height, tokens.grid.width}, frame_index, vae,
                              frame_rate, device);
  };
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < tokens.conditions.size(); ++i) {
    const int64_t added = tokens.conditions[i].added;
    if (added > 0) parts.push_back(from(added, conditions[i].frame_index));
  }
  parts.push_back(from(tokens.grid.frames, 0));
  return at::cat(parts);
}

}  // namespace kino::engine
