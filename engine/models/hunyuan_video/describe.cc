#include "engine/models/hunyuan_video/describe.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/describe/conditions.h"
#include "engine/models/hunyuan_video/knobs.h"
#include "engine/models/hunyuan_video/weight_map.h"
#include "engine/text/clip_config.h"
#include "engine/text/encoder_files.h"
#include "engine/text/llama_config.h"

namespace kino::engine {
namespace {

constexpr char kFramePackPipeline[] = "HunyuanVideoFramepackPipeline";
constexpr int kRatio = HunyuanVideoVaeConfig::kTemporalRatio;
// Largest shift of FramePack's schedule (exp_max in its pipeline).
constexpr double kMaxShift = 7.0;

class HunyuanVideoDescription final : public FamilyDescription {
 public:
  HunyuanVideoDescription(HunyuanVideoKind kind, const HunyuanVideoTransformerConfig& transformer,
                          const HunyuanVideoVaeConfig& vae, const FlowMatchEulerConfig& sampler)
      : kind_(kind),
        transformer_(transformer),
        vae_(vae),
        sampler_(sampler),
        tiles_(vae.tile_sizes()) {
    // Defaults of the pipelines' __call__ in diffusers 0.42.1; no negative prompt is among them.
    const bool is_skyreels = kind == HunyuanVideoKind::kSkyReels;
    Request defaults;
    defaults.task = kind == HunyuanVideoKind::kText ? Task::kTextToVideo : Task::kImageToVideo;
    defaults.height = is_skyreels ? 544 : 720;
    defaults.width = is_skyreels ? 960 : 1280;
    defaults.num_frames = is_skyreels ? 97 : 129;
    defaults.num_inference_steps = 50;
    defaults.guidance_scale = is_skyreels || ReadsImage(kind) ? 1.0 : 6.0;
    defaults.fps = is_framepack() ? 30.0 : 24.0;
    defaults.output.quality = 75;
    tasks_ = {{.task = defaults.task, .defaults = defaults}};
    const int multiple = vae.spatial_ratio * transformer.patch_size;
    limits_ = {.size_multiple = multiple,
               .min_size = multiple,
               .max_size = 4096,
               // FramePack makes whole sections of any number.
               .frames_multiple = is_framepack() ? 1 : kRatio,
               .max_frames = 2048 * kRatio + 1,
               .max_pixels = 1'000'000'000,
               .max_steps = 1000};
  }

  const std::vector<TaskDescription>& tasks() const override { return tasks_; }
  const Limits& limits() const override { return limits_; }
  const VaeTileSizes& vae_tiles() const override { return tiles_; }
  absl::Status CheckTiling(const Request& request, const VaeTiling& tiling) const override {
    if (request.conditions.empty()) return absl::OkStatus();
    return vae_.CheckEncodeTiling(/*frames=*/1, *request.height, *request.width, tiling);
  }
  VideoSize OutputOf(const Request& request) const override;
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  bool is_framepack() const { return kind_ == HunyuanVideoKind::kFramePack; }
  void ResolveKnobs(Request& request, const FailInto& fail) const;
  void CheckConditions(const Request& request, std::vector<FieldViolation>& violations) const;

  const HunyuanVideoKind kind_;
  const HunyuanVideoTransformerConfig transformer_;
  const HunyuanVideoVaeConfig vae_;
  const FlowMatchEulerConfig sampler_;
  const VaeTileSizes tiles_;
  std::vector<TaskDescription> tasks_;
  Limits limits_;
};

VideoSize HunyuanVideoDescription::OutputOf(const Request& request) const {
  VideoSize size = FamilyDescription::OutputOf(request);
  if (is_framepack()) {
    const FramePackSections sections = FramePackSectionsOf(request);
    size.num_frames = sections.count * sections.window * kRatio + 1;
  } else if (kind_ == HunyuanVideoKind::kLatentConcat) {
    // Those that show the image itself.
    size.num_frames -= kRatio;
  }
  return size;
}

void HunyuanVideoDescription::ResolveKnobs(Request& request, const FailInto& fail) const {
  auto& values = request.knobs.values;
  const auto only_of = [&](const char* knob, bool is_of, const char* what, int64_t fallback) {
    if (is_of) {
      values.emplace(knob, fallback);
    } else if (values.contains(knob) && request.task == Task::kImageToVideo) {
      fail(absl::StrCat("hunyuan_video.", knob), absl::StrCat("only ", what, "; leave it out"));
    }
  };
  values.emplace("true_cfg_scale", kind_ == HunyuanVideoKind::kSkyReels ? 6.0 : 1.0);
  only_of("image_embed_interleave", ReadsImage(kind_),
          "checkpoints whose text encoder reads the image have it",
          kind_ == HunyuanVideoKind::kTokenReplace ? 4 : 2);
  only_of("sampling_type", is_framepack(), "FramePack has it", kInvertedAntiDrifting);
  only_of("latent_window_size", is_framepack(), "FramePack has it", 9);
}

void HunyuanVideoDescription::CheckConditions(const Request& request,
                                              std::vector<FieldViolation>& violations) const {
  if (kind_ == HunyuanVideoKind::kText) return;
  if (!is_framepack() || request.conditions.size() != 2)
    return ExpectOneCondition(request, ConditionKind::kImage, /*fully=*/true, violations);
  // The image that the video ends with.
  Request first = request;
  first.conditions.pop_back();
  ExpectOneCondition(first, ConditionKind::kImage, /*fully=*/true, violations);
  const Condition& last = request.conditions.back();
  const FailInto fail{violations};
  if (last.kind != ConditionKind::kImage || last.strength != 1.0 ||
      last.frame_index != *request.num_frames - 1) {
    fail("conditions[1]",
         absl::StrCat("expected an image of strength 1 at the last frame, ",
                      *request.num_frames - 1, "; got ", ConditionKindName(last.kind),
                      " of strength ", last.strength, " at frame ", last.frame_index));
  }
  if (*ReadKnobs(kHunyuanVideoKnobs, request.knobs).sampling_type == kVanilla) {
    fail("conditions[1]",
         "a video that is made from its start (sampling_type 1) takes no last image");
  }
}

void HunyuanVideoDescription::Resolve(Request& request,
                                      std::vector<FieldViolation>& violations) const {
  const FailInto fail{violations};
  ResolveKnobs(request, fail);
  if (!violations.empty()) return;
  CheckConditions(request, violations);
  if (kind_ == HunyuanVideoKind::kLatentConcat && *request.num_frames <= kRatio) {
    fail("num_frames",
         absl::StrCat("the first ", kRatio, " frames do not come out, expected more, got ",
                      *request.num_frames));
  }
  if (!violations.empty()) return;
  const absl::Status schedule =
      HunyuanVideoSchedule(sampler_, transformer_, vae_, request).status();
  if (!schedule.ok())
    fail("num_inference_steps", absl::StrCat("no schedule: ", std::string(schedule.message())));
}

// Nothing more is needed of them, but they must be such that the model can be loaded.
absl::Status CheckEncoders(const ModelSource& source, HunyuanVideoKind kind) {
  const auto check = [&source](const char* component, auto config) {
    if (source.original_files.contains(component)) return absl::OkStatus();
    return ReadConfig<decltype(config)>(absl::StrCat(source.folder, "/", component, "/config.json"))
        .status();
  };
  KINO_RETURN_IF_ERROR(check("text_encoder", LlamaEncoderConfig()));
  KINO_RETURN_IF_ERROR(check("text_encoder_2", ClipTextConfig()));
  if (ReadsImage(kind)) return check("text_encoder", VisionEncoderConfig());
  if (kind == HunyuanVideoKind::kFramePack) return check("image_encoder", VisionEncoderConfig());
  return absl::OkStatus();
}

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeHunyuanVideo(
    const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(const HunyuanVideoTransformerConfig transformer,
                        HunyuanVideoTransformerConfig::FromJson(source.transformer_config,
                                                                source.transformer_config_path));
  KINO_ASSIGN_OR_RETURN(const HunyuanVideoVaeConfig vae,
                        ReadConfig<HunyuanVideoVaeConfig>(source.folder + "/vae/config.json"));
  KINO_ASSIGN_OR_RETURN(
      const FlowMatchEulerConfig sampler,
      ReadConfig<FlowMatchEulerConfig>(source.folder + "/scheduler/scheduler_config.json"));
  absl::StatusOr<HunyuanVideoKind> kind = HunyuanVideoKindOf(transformer, vae);
  if (!kind.ok()) {
    return absl::UnimplementedError(
        absl::StrCat(source.transformer_config_path, ": ", std::string(kind.status().message())));
  }
  if (source.pipeline_class == kFramePackPipeline && *kind != HunyuanVideoKind::kFramePack) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.transformer_config_path, ": the folder names ", kFramePackPipeline,
                     ", expected FramePack's transformer (has_clean_x_embedder)"));
  }
  KINO_RETURN_IF_ERROR(CheckEncoders(source, *kind));
  return std::make_shared<HunyuanVideoDescription>(*kind, transformer, vae, sampler);
}

std::string HunyuanVideoGeneration(const ModelSource& source) {
  const auto config = HunyuanVideoTransformerConfig::FromJson(source.transformer_config,
                                                              source.transformer_config_path);
  const auto vae = ReadConfig<HunyuanVideoVaeConfig>(source.folder + "/vae/config.json");
  if (!config.ok() || !vae.ok() || config->num_layers != 20 || config->num_single_layers != 40 ||
      config->num_attention_heads != 24 || config->attention_head_dim != 128)
    return "";
  const auto kind = HunyuanVideoKindOf(*config, *vae);
  if (!kind.ok()) return "";
  switch (*kind) {
    case HunyuanVideoKind::kText:
      return "HunyuanVideo";
    case HunyuanVideoKind::kTokenReplace:
      return "HunyuanVideo-I2V";
    case HunyuanVideoKind::kLatentConcat:
      return "HunyuanVideo-I2V-33ch";
    case HunyuanVideoKind::kSkyReels:
      return "SkyReels-V1-Hunyuan-I2V";
    case HunyuanVideoKind::kFramePack:
      return "FramePack";
  }
  return "";
}

}  // namespace

absl::StatusOr<HunyuanVideoKind> HunyuanVideoKindOf(
    const HunyuanVideoTransformerConfig& transformer, const HunyuanVideoVaeConfig& vae) {
  const int64_t own = vae.latent_channels, seen = transformer.in_channels;
  const auto& type = transformer.image_condition_type;
  if (transformer.out_channels == own) {
    if (transformer.is_framepack) {
      if (seen == own) return HunyuanVideoKind::kFramePack;
    } else if (type == HunyuanVideoTransformerConfig::ImageCondition::kTokenReplace) {
      if (seen == own) return HunyuanVideoKind::kTokenReplace;
    } else if (seen == 2 * own + 1) {
      return HunyuanVideoKind::kLatentConcat;
    } else if (seen == 2 * own) {
      return HunyuanVideoKind::kSkyReels;
    } else if (seen == own) {
      return HunyuanVideoKind::kText;
    }
  }
  return absl::UnimplementedError(
      absl::StrCat("in_channels is ", seen, " and out_channels ", transformer.out_channels,
                   ", expected the VAE's ", own, " for both, or for in_channels ", 2 * own, " or ",
                   2 * own + 1, " where the transformer is shown an image"));
}

FramePackSections FramePackSectionsOf(const Request& request) {
  const int window = *ReadKnobs(kHunyuanVideoKnobs, request.knobs).latent_window_size;
  const int frames = (window - 1) * kRatio + 1;
  return {.count = std::max(1, (*request.num_frames + frames - 1) / frames),
          .window = window,
          .overlap = frames};
}

absl::StatusOr<FlowMatchSchedule> HunyuanVideoSchedule(
    const FlowMatchEulerConfig& sampler, const HunyuanVideoTransformerConfig& transformer,
    const HunyuanVideoVaeConfig& vae, const Request& request) {
  ScheduleRequest schedule{.sigmas = Linspace(1, 0, *request.num_inference_steps + 1)};
  schedule.sigmas.pop_back();
  if (transformer.is_framepack) {
    const int64_t tokens =
        int64_t{FramePackSectionsOf(request).window} * (*request.height / vae.spatial_ratio) *
        (*request.width / vae.spatial_ratio) / (transformer.patch_size * transformer.patch_size);
    schedule.mu = std::min(CalculateShift(sampler, tokens), std::log(kMaxShift));
  }
  return MakeSchedule(sampler, schedule);
}

FamilyDescriber HunyuanVideoDescriber() {
  return {.family = "hunyuan_video",
          .pipeline_classes = {"HunyuanVideoPipeline", "HunyuanVideoImageToVideoPipeline",
                               "HunyuanSkyreelsImageToVideoPipeline", kFramePackPipeline},
          .describe = DescribeHunyuanVideo,
          .generation = HunyuanVideoGeneration,
          .find_original = {{"transformer", FindHunyuanVideoTransformer},
                            {"text_encoder", FindLlamaEncoder},
                            {"text_encoder_2", FindClipTextEncoder}},
          .knobs = KnobInfos(kHunyuanVideoKnobs),
          // FramePack's folder is made of HunyuanVideo's.
          .optional_components = {"image_encoder"}};
}

}  // namespace kino::engine
