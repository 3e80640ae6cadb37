#include "engine/models/allegro/pipeline.h"

#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/allegro/run.h"
#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadAllegroPipeline(const PipelineOptions& options,
                                                              EngineShared& shared) {
  auto components = std::make_shared<AllegroComponents>();
  KINO_ASSIGN_OR_RETURN(
      components->sampler,
      ReadConfig<EulerAncestralConfig>(options.folder + "/scheduler/scheduler_config.json"));
  KINO_ASSIGN_OR_RETURN(components->tokenizer, LoadT5Tokenizer(options));
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        FolderComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer,
                        FolderComponent<AllegroTransformer>(options, shared, "transformer"));
  KINO_ASSIGN_OR_RETURN(components->vae, FolderComponent<AllegroVae>(options, shared, "vae"));
  const AllegroTransformerConfig& transformer = components->transformer->config();
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's in_channels", transformer.in_channels,
                                "the VAE's latent_channels",
                                components->vae->config().latent_channels));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's caption_channels",
                                transformer.caption_channels, "the text encoder's d_model",
                                components->text_encoder->width()));
  return MakePipeline<AllegroRun>(
      std::shared_ptr<const AllegroComponents>(components),
      {{"text_encoder", components->text_encoder, {Stage::kEncodeText}, false},
       {"transformer", components->transformer, {Stage::kDenoise}, false},
       {"vae", components->vae, {Stage::kDecode}, true}},
      shared);
}

}  // namespace kino::engine
