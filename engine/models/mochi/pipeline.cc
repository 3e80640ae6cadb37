#include "engine/models/mochi/pipeline.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/mochi/run.h"
#include "engine/models/mochi/weight_map.h"

namespace kino::engine {
namespace {

class MochiPipeline final : public Pipeline {
 public:
  MochiPipeline(std::shared_ptr<const MochiComponents> components, EngineShared& shared)
      : components_(std::move(components)),
        shared_(shared),
        moved_({{"text_encoder", components_->text_encoder, {Stage::kEncodeText}, false},
                {"transformer", components_->transformer, {Stage::kDenoise}, false},
                {"vae", components_->vae, {Stage::kDecode}, true}}) {}

  const std::vector<PipelineComponent>& components() const override { return moved_; }
  std::unique_ptr<PipelineRun> Start(const Request& request, std::vector<MediaInput>,
                                     Tap tap) override {
    return std::make_unique<MochiRun>(components_, &shared_.embeddings, request, std::move(tap));
  }

 private:
  std::shared_ptr<const MochiComponents> components_;
  EngineShared& shared_;
  std::vector<PipelineComponent> moved_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> LoadMochiPipeline(const PipelineOptions& options,
                                                            EngineShared& shared) {
  auto components = std::make_shared<MochiComponents>();
  const std::string index_path = options.folder + "/model_index.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json index, ReadJsonFile(index_path));
  ConfigReader reader(index, index_path);
  components->force_zeros_for_empty_prompt = reader.Get("force_zeros_for_empty_prompt", false);
  KINO_RETURN_IF_ERROR(reader.status());
  KINO_ASSIGN_OR_RETURN(components->sampler, LoadFlowMatchEuler(options));
  KINO_ASSIGN_OR_RETURN(components->tokenizer, LoadT5Tokenizer(options));
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        FolderComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer, TransformerComponent<MochiTransformer>(
                                                     options, shared, FindMochiTransformer));
  KINO_ASSIGN_OR_RETURN(components->vae, FolderComponent<MochiVae>(options, shared, "vae"));
  const int channels = components->transformer->config().in_channels;
  if (channels != components->vae->config().latent_channels) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.folder, "': the transformer has ",
                                                   channels, " channels, the VAE ",
                                                   components->vae->config().latent_channels));
  }
  if (components->transformer->config().text_embed_dim != components->text_encoder->width()) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", options.folder, "': the transformer takes text states of ",
                     components->transformer->config().text_embed_dim,
                     " numbers, the text encoder gives ", components->text_encoder->width()));
  }
  return std::make_unique<MochiPipeline>(std::move(components), shared);
}

}  // namespace kino::engine
