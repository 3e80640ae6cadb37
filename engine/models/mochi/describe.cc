#include "engine/models/mochi/describe.h"

#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/mochi/knobs.h"
#include "engine/models/mochi/transformer_config.h"
#include "engine/models/mochi/vae_config.h"
#include "engine/models/mochi/weight_map.h"
#include "engine/text/t5_config.h"

namespace kino::engine {
namespace {

constexpr double kThresholdNoise = 0.025;

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeMochi(const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(
      const MochiTransformerConfig transformer,
      MochiTransformerConfig::FromJson(source.transformer_config, source.transformer_config_path));
  KINO_ASSIGN_OR_RETURN(const MochiVaeConfig vae,
                        ReadConfig<MochiVaeConfig>(source.folder + "/vae/config.json"));
  // Nothing more is needed of it, but it must be such that the model can be loaded.
  KINO_RETURN_IF_ERROR(
      ReadConfig<T5EncoderConfig>(source.folder + "/text_encoder/config.json").status());
  KINO_ASSIGN_OR_RETURN(
      const FlowMatchEulerConfig sampler,
      ReadConfig<FlowMatchEulerConfig>(source.folder + "/scheduler/scheduler_config.json"));
  // Defaults of MochiPipeline.__call__ in diffusers 0.42.1.
  Request defaults;
  defaults.task = Task::kTextToVideo;
  defaults.negative_prompt = "";
  defaults.height = 480;
  defaults.width = 848;
  defaults.num_frames = 19;
  defaults.num_inference_steps = 64;
  defaults.guidance_scale = 4.5;
  defaults.fps = 30.0;
  defaults.output.quality = 75;
  return std::make_shared<SingleTaskDescription>(
      defaults, UsualLimits(vae.spatial_ratio() * transformer.patch_size, vae.temporal_ratio()),
      kMochiTiles,
      [sampler](const Request& request) { return MochiSchedule(sampler, request).status(); });
}

std::string MochiGeneration(const ModelSource& source) {
  const auto config =
      MochiTransformerConfig::FromJson(source.transformer_config, source.transformer_config_path);
  const bool is_published = config.ok() && config->num_layers == 48 &&
                            config->num_attention_heads == 24 && config->attention_head_dim == 128;
  return is_published ? "Mochi 1 preview" : "";
}

}  // namespace

absl::StatusOr<FlowMatchSchedule> MochiSchedule(const FlowMatchEulerConfig& sampler,
                                                const Request& request) {
  return MakeSchedule(
      sampler, {.sigmas = LinearQuadraticSchedule(*request.num_inference_steps, kThresholdNoise)});
}

FamilyDescriber MochiDescriber() {
  return {.family = "mochi",
          .pipeline_classes = {"MochiPipeline"},
          .describe = DescribeMochi,
          .generation = MochiGeneration,
          .find_original = {{"transformer", FindMochiTransformer}},
          .knobs = KnobInfos(kMochiKnobs)};
}

}  // namespace kino::engine
