#include "engine/models/allegro/describe.h"

#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/allegro/knobs.h"
#include "engine/models/allegro/transformer_config.h"
#include "engine/models/allegro/vae_config.h"
#include "engine/samplers/euler_ancestral.h"
#include "engine/text/t5_config.h"

namespace kino::engine {
namespace {

absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeAllegro(
    const ModelSource& source) {
  KINO_ASSIGN_OR_RETURN(const AllegroTransformerConfig transformer,
                        AllegroTransformerConfig::FromJson(source.transformer_config,
                                                           source.transformer_config_path));
  KINO_ASSIGN_OR_RETURN(const AllegroVaeConfig vae,
                        ReadConfig<AllegroVaeConfig>(source.folder + "/vae/config.json"));
  // Nothing more is needed of it, but it must be such that the model can be loaded.
  KINO_RETURN_IF_ERROR(
      ReadConfig<T5EncoderConfig>(source.folder + "/text_encoder/config.json").status());
  KINO_ASSIGN_OR_RETURN(
      const EulerAncestralConfig sampler,
      ReadConfig<EulerAncestralConfig>(source.folder + "/scheduler/scheduler_config.json"));
  // Defaults of AllegroPipeline.__call__ in diffusers 0.42.1; its sizes are the config's.
  Request defaults;
  defaults.task = Task::kTextToVideo;
  defaults.negative_prompt = "";
  defaults.height = transformer.sample_height * vae.spatial_ratio();
  defaults.width = transformer.sample_width * vae.spatial_ratio();
  defaults.num_frames = transformer.sample_frames * vae.temporal_compression_ratio;
  defaults.num_inference_steps = 100;
  defaults.guidance_scale = 7.5;
  defaults.fps = 15.0;
  defaults.output.quality = 75;
  const int multiple = vae.spatial_ratio() * transformer.patch_size;
  // Any number of frames: what the VAE gives beyond it is left out.
  const Limits limits = {.size_multiple = multiple,
                         .min_size = multiple,
                         .max_size = 4096,
                         .frames_multiple = 1,
                         .max_frames = 2048 * vae.temporal_compression_ratio,
                         .max_pixels = 1'000'000'000,
                         .max_steps = sampler.num_train_timesteps};
  return std::make_shared<SingleTaskDescription>(
      defaults, limits, vae.tiles(), [sampler](const Request& request) {
        return MakeSchedule(sampler, *request.num_inference_steps).status();
      });
}

std::string AllegroGeneration(const ModelSource& source) {
  const auto config =
      AllegroTransformerConfig::FromJson(source.transformer_config, source.transformer_config_path);
  const bool is_published = config.ok() && config->num_layers == 32 &&
                            config->num_attention_heads == 24 && config->attention_head_dim == 96;
  return is_published ? "Allegro" : "";
}

}  // namespace

FamilyDescriber AllegroDescriber() {
  return {.family = "allegro",
          .pipeline_classes = {"AllegroPipeline"},
          .describe = DescribeAllegro,
          .generation = AllegroGeneration,
          .find_original = {},
          .knobs = KnobInfos(kAllegroKnobs)};
}

}  // namespace kino::engine
