#include "engine/models/ltx/describe_upscale.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/conditions.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/latent_upsampler_config.h"
#include "engine/models/ltx/vae_config.h"

namespace kino::engine {
namespace {

// Of the video that comes out.
constexpr int kMaxSize = 8192;
constexpr int64_t kMaxPixels = 1'000'000'000;

class LtxUpscaleDescription final : public FixedDescription {
 public:
  LtxUpscaleDescription(const LtxVaeConfig& vae, const LtxLatentUpsamplerConfig& upsampler)
      : FixedDescription(kLtxTiles),
        spatial_ratio_(static_cast<int>(vae.spatial_compression_ratio)),
        temporal_ratio_(static_cast<int>(vae.temporal_compression_ratio)),
        upsampler_(upsampler) {
    const Stride3d by = upsampler.factors();
    // Sizes of LTXLatentUpsamplePipeline.__call__ in diffusers 0.42.1, which takes all frames.
    Request defaults;
    defaults.task = Task::kUpscale;
    defaults.height = 512;
    defaults.width = 704;
    defaults.num_frames = 161;
    defaults.fps = 25.0 * static_cast<double>(by.t);
    defaults.output.quality = 75;
    tasks_ = {{.task = Task::kUpscale, .defaults = defaults}};
    limits_ = {.size_multiple = spatial_ratio_,
               .min_size = spatial_ratio_,
               .max_size = kMaxSize / static_cast<int>(by.h),
               .frames_multiple = temporal_ratio_,
               .max_frames = 2048 * temporal_ratio_ + 1,
               .max_pixels = kMaxPixels / by.product(),
               .max_steps = 0};
  }

  absl::Status CheckTiling(const Request&, const VaeTiling& tiling) const override {
    return CheckWholeTiles(tiling, spatial_ratio_, temporal_ratio_);
  }
  VideoSize OutputOf(const Request& request) const override {
    return upsampler_.Upsampled(FamilyDescription::OutputOf(request));
  }
  void FillFromConditions(const Request& configured, Request& request) const override;
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  // As many frames as fit. diffusers goes wrong where `frames` is a multiple of the ratio: it asks
  // for one more than there are.
  int WholeFrames(int frames) const { return (frames - 1) / temporal_ratio_ * temporal_ratio_ + 1; }

  int spatial_ratio_;
  int temporal_ratio_;
  LtxLatentUpsamplerConfig upsampler_;
};

void LtxUpscaleDescription::FillFromConditions(const Request& configured, Request& request) const {
  if (request.conditions.size() != 1) return;
  const Condition& video = request.conditions[0];
  if (!request.fps && !configured.fps && video.fps)
    request.fps = *video.fps * static_cast<double>(upsampler_.factors().t);
  if (!video.size) return;
  const VideoSize& size = *video.size;
  const auto whole = [this](int pixels) {
    return std::max(pixels / spatial_ratio_, 1) * spatial_ratio_;
  };
  if (!request.height && !configured.height) request.height = whole(size.height);
  if (!request.width && !configured.width) request.width = whole(size.width);
  if (!request.num_frames && !configured.num_frames)
    request.num_frames = WholeFrames(size.num_frames);
}

void LtxUpscaleDescription::Resolve(Request& request,
                                    std::vector<FieldViolation>& violations) const {
  const LtxKnobs knobs = ReadKnobs(kLtxKnobs, request.knobs);
  if (!knobs.decode_noise_scale && knobs.decode_timestep)
    request.knobs.values.emplace("decode_noise_scale", *knobs.decode_timestep);
  for (const char* const knob : {"adain_factor", "tone_map_compression_ratio"})
    request.knobs.values.emplace(knob, 0.0);
  ExpectOneCondition(request, ConditionKind::kVideo, /*fully=*/true, violations);
  if (!violations.empty() || !request.conditions[0].size) return;
  const int frames = request.conditions[0].size->num_frames;
  if (*request.num_frames > frames) {
    FailInto{violations}("num_frames",
                         absl::StrCat("the video has ", frames, " frames, expected at most ",
                                      WholeFrames(frames), ", got ", *request.num_frames));
  }
}

}  // namespace

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeLtxUpscale(
    const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(const LtxVaeConfig vae,
                        ReadConfig<LtxVaeConfig>(source.folder + "/vae/config.json"));
  KINO_ASSIGN_OR_RETURN(
      const LtxLatentUpsamplerConfig upsampler,
      ReadConfig<LtxLatentUpsamplerConfig>(source.folder + "/latent_upsampler/config.json"));
  return std::make_shared<LtxUpscaleDescription>(vae, upsampler);
}

}  // namespace kino::engine
