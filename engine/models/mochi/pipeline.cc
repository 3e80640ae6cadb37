#include "engine/models/mochi/pipeline.h"

#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/mochi/run.h"
#include "engine/models/mochi/weight_map.h"

namespace kino::engine {

absl::StatusOr<std::unique_ptr<Pipeline>> LoadMochiPipeline(const PipelineOptions& options,
                                                            EngineShared& shared) {
  auto components = std::make_shared<MochiComponents>();
  const std::string index_path = options.folder + "/model_index.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(index_path));
  ConfigReader reader(index, index_path);
  components->force_zeros_for_empty_prompt = reader.Get("force_zeros_for_empty_prompt", false);
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_RETURN_IF_ERROR(components->Load(options, shared, FindMochiTransformer));
  const MochiTransformerConfig& transformer = components->transformer->config();
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's in_channels", transformer.in_channels,
                                "the VAE's latent_channels",
                                components->vae->config().latent_channels));
  KINO_RETURN_IF_ERROR(CheckFit(options, "the transformer's text_embed_dim",
                                transformer.text_embed_dim, "the text encoder's d_model",
                                components->text_encoder->width()));
  return MakePipeline<MochiRun>(std::shared_ptr<const MochiComponents>(components),
                                components->Moved(/*encodes=*/false), shared);
}

}  // namespace kino::engine
