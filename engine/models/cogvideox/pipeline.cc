#include "engine/models/cogvideox/pipeline.h"

#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/cogvideox/run.h"
#include "engine/models/common/component_loading.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadCogVideoXPipeline(const PipelineOptions& options,
                                                                EngineShared& shared) {
  auto components = std::make_shared<CogVideoXComponents>();
  KINO_ASSIGN_OR_RETURN(
      components->sampler,
      ReadConfig<DdimConfig>(options.folder + "/scheduler/scheduler_config.json"));
  KINO_ASSIGN_OR_RETURN(components->tokenizer, LoadT5Tokenizer(options));
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        FolderComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer,
                        FolderComponent<CogVideoXTransformer>(options, shared, "transformer"));
  KINO_ASSIGN_OR_RETURN(components->vae, FolderComponent<CogVideoXVae>(options, shared, "vae"));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's text_embed_dim",
                                components->transformer->config().text_embed_dim,
                                "the text encoder's d_model", components->text_encoder->width()));
  return MakePipeline<CogVideoXRun>(
      std::shared_ptr<const CogVideoXComponents>(components),
      {{"text_encoder", components->text_encoder, {Stage::kEncodeText}, false},
       {"transformer", components->transformer, {Stage::kDenoise}, false},
       {"vae", components->vae, {Stage::kEncodeMedia, Stage::kDecode}, true}},
      shared);
}

}  // namespace kino::engine
