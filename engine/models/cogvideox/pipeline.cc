#include "engine/models/cogvideox/pipeline.h"

#include "engine/core/status.h"
#include "engine/models/cogvideox/run.h"
#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadCogVideoXPipeline(const PipelineOptions& options,
                                                                EngineShared& shared) {
  auto components = std::make_shared<CogVideoXComponents>();
  KINO_RETURN_IF_ERROR(components->Load(options, shared, /*find=*/nullptr));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's text_embed_dim",
                                components->transformer->config().text_embed_dim,
                                "the text encoder's d_model", components->text_encoder->width()));
  return MakePipeline<CogVideoXRun>(std::shared_ptr<const CogVideoXComponents>(components),
                                    components->Moved(/*encodes=*/true), shared);
}

}  // namespace kino::engine
