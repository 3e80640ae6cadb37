#include "engine/models/hunyuan_video/describe.h"

#include <algorithm>
#include <array>
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

struct Configs {
  HunyuanVideoTransformerConfig transformer;
  HunyuanVideoVaeConfig vae;
  FlowMatchEulerConfig sampler;
  HunyuanVideoKind kind = HunyuanVideoKind::kText;
};

class HunyuanVideoDescription final : public FixedDescription {
 public:
  explicit HunyuanVideoDescription(const Configs& configs)
      : FixedDescription(configs.vae.tile_sizes()), configs_(configs), kind_(configs.kind) {
    // Defaults of the pipelines' __call__ in diffusers 0.42.1; no negative prompt is among them.
    const bool is_skyreels = kind_ == HunyuanVideoKind::kSkyReels;
    Request defaults;
    defaults.task = kind_ == HunyuanVideoKind::kText ? Task::kTextToVideo : Task::kImageToVideo;
    defaults.height = is_skyreels ? 544 : 720;
    defaults.width = is_skyreels ? 960 : 1280;
    defaults.num_frames = is_skyreels ? 97 : 129;
    defaults.num_inference_steps = 50;
    const bool is_guided = configs.transformer.guidance_embeds && !is_skyreels;
    defaults.guidance_scale = is_guided && !ReadsImage(kind_) ? 6.0 : 1.0;
    defaults.fps = is_framepack() ? 30.0 : 24.0;
    defaults.output.quality = 75;
    tasks_ = {{.task = defaults.task, .defaults = defaults}};
    limits_ = UsualLimits(configs.vae.spatial_ratio * configs.transformer.patch_size, kRatio);
    // FramePack makes whole sections of any number.
    if (is_framepack()) limits_.frames_multiple = 1;
  }

  bool Uses(const ComponentDescription& component) const override {
    return component.name != "image_encoder" ||
           (ImageReaderOf(kind_) != nullptr && component.part_of.empty() == is_framepack());
  }
  absl::Status CheckTiling(const Request& request, const VaeTiling& tiling) const override {
    if (request.conditions.empty()) return absl::OkStatus();
    return configs_.vae.CheckEncodeTiling(/*frames=*/1, *request.height, *request.width, tiling);
  }
  VideoSize OutputOf(const Request& request) const override;
  void Resolve(Request& request, std::vector<FieldViolation>& violations) const override;

 private:
  bool is_framepack() const { return kind_ == HunyuanVideoKind::kFramePack; }
  void ResolveKnobs(Request& request, const FailInto& fail) const;
  void CheckConditions(const Request& request, std::vector<FieldViolation>& violations) const;

  const Configs configs_;
  const HunyuanVideoKind kind_;
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
  ExpectFirstAndLastImage(request, violations);
  if (*ReadKnobs(kHunyuanVideoKnobs, request.knobs).sampling_type == kVanilla) {
    FailInto{violations}(
        "conditions[1]",
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
  if (!configs_.transformer.guidance_embeds && *request.guidance_scale > 1) {
    fail("guidance_scale",
         absl::StrCat("the transformer takes none, expected 1, got ", *request.guidance_scale,
                      "; hunyuan_video.true_cfg_scale guides by a negative prompt"));
  }
  if (!violations.empty()) return;
  const absl::Status schedule =
      HunyuanVideoSchedule(configs_.sampler, configs_.transformer, configs_.vae, request).status();
  if (!schedule.ok())
    fail("num_inference_steps", absl::StrCat("no schedule: ", std::string(schedule.message())));
}

absl::StatusOr<Configs> ReadConfigs(const ModelSource& source) {
  Configs configs;
  KINO_ASSIGN_OR_RETURN(configs.transformer,
                        HunyuanVideoTransformerConfig::FromJson(source.transformer_config,
                                                                source.transformer_config_path));
  KINO_ASSIGN_OR_RETURN(configs.vae,
                        ReadConfig<HunyuanVideoVaeConfig>(source.folder + "/vae/config.json"));
  KINO_ASSIGN_OR_RETURN(configs.sampler, ReadConfig<FlowMatchEulerConfig>(
                                             source.folder + "/scheduler/scheduler_config.json"));
  KINO_ASSIGN_OR_RETURN(configs.kind, HunyuanVideoKindOf(configs.transformer, configs.vae,
                                                         source.transformer_config_path));
  return configs;
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
  const ImageReader* const reader = ImageReaderOf(kind);
  return reader == nullptr ? absl::OkStatus() : reader->Check(source.folder);
}

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeHunyuanVideo(
    const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(const Configs configs, ReadConfigs(source));
  if (source.pipeline_class == kFramePackPipeline && configs.kind != HunyuanVideoKind::kFramePack) {
    return absl::InvalidArgumentError(
        absl::StrCat(source.transformer_config_path, ": the folder names ", kFramePackPipeline,
                     ", expected FramePack's transformer (has_clean_x_embedder)"));
  }
  KINO_RETURN_IF_ERROR(CheckEncoders(source, configs.kind));
  return std::make_shared<HunyuanVideoDescription>(configs);
}

std::string HunyuanVideoGeneration(const ModelSource& source) {
  // By kind.
  constexpr std::array kGenerations = {"HunyuanVideo", "HunyuanVideo-I2V", "HunyuanVideo-I2V-33ch",
                                       "SkyReels-V1-Hunyuan-I2V", "FramePack"};
  const absl::StatusOr<Configs> configs = ReadConfigs(source);
  if (!configs.ok()) return "";
  const HunyuanVideoTransformerConfig& transformer = configs->transformer;
  const bool is_published = transformer.num_layers == 20 && transformer.num_single_layers == 40 &&
                            transformer.num_attention_heads == 24 &&
                            transformer.attention_head_dim == 128;
  return is_published ? kGenerations[static_cast<size_t>(configs->kind)] : "";
}

}  // namespace

absl::StatusOr<HunyuanVideoKind> HunyuanVideoKindOf(
    const HunyuanVideoTransformerConfig& transformer, const HunyuanVideoVaeConfig& vae,
    const std::string& path) {
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
      absl::StrCat(path, ": in_channels is ", seen, " and out_channels ", transformer.out_channels,
                   ", expected the VAE's ", own, " for both, or for in_channels ", 2 * own, " or ",
                   2 * own + 1, " where the transformer is shown an image"));
}

const ImageReader* ImageReaderOf(HunyuanVideoKind kind) {
  static constexpr ImageReader kLlava = {"llava", "text_encoder", "image_processor"};
  static constexpr ImageReader kSiglip = {"siglip_vision_model", "image_encoder",
                                          "feature_extractor"};
  if (ReadsImage(kind)) return &kLlava;
  return kind == HunyuanVideoKind::kFramePack ? &kSiglip : nullptr;
}

FramePackSections FramePackSectionsOf(const Request& request) {
  const int window = *ReadKnobs(kHunyuanVideoKnobs, request.knobs).latent_window_size;
  const int frames = (window - 1) * kRatio + 1;
  return {
      .count = (*request.num_frames + frames - 1) / frames, .window = window, .overlap = frames};
}

absl::StatusOr<FlowMatchSchedule> HunyuanVideoSchedule(
    const FlowMatchEulerConfig& sampler, const HunyuanVideoTransformerConfig& transformer,
    const HunyuanVideoVaeConfig& vae, const Request& request) {
  ScheduleRequest schedule{.sigmas = Linspace(1, 0, *request.num_inference_steps + 1)};
  schedule.sigmas.pop_back();
  if (transformer.is_framepack) {
    const int64_t patch = transformer.patch_size;
    const int64_t tokens = int64_t{FramePackSectionsOf(request).window} *
                           (*request.height / vae.spatial_ratio) *
                           (*request.width / vae.spatial_ratio) / (patch * patch);
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
