#include "engine/models/allegro/pipeline.h"

#include "engine/core/status.h"
#include "engine/models/allegro/run.h"
#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadAllegroPipeline(const PipelineOptions& options,
                                                              EngineShared& shared) {
  auto components = std::make_shared<AllegroComponents>();
  KINO_RETURN_IF_ERROR(components->Load(options, shared, /*find=*/nullptr));
  const AllegroTransformerConfig& transformer = components->transformer->config();
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's in_channels", transformer.in_channels,
                                "the VAE's latent_channels",
                                components->vae->config().latent_channels));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's caption_channels",
                                transformer.caption_channels, "the text encoder's d_model",
                                components->text_encoder->width()));
  return MakePipeline<AllegroRun>(std::shared_ptr<const AllegroComponents>(components),
                                  components->Moved(/*encodes=*/false), shared);
}

}  // namespace kino::engine
