#include "engine/models/ltx/pipeline.h"

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/ltx/run.h"
#include "engine/models/ltx/weight_map.h"

namespace kino::engine {
namespace {

class LtxPipeline final : public Pipeline {
 public:
  LtxPipeline(std::shared_ptr<const LtxComponents> components, EngineShared& shared)
      : components_(std::move(components)),
        shared_(shared),
        moved_({{"text_encoder", components_->text_encoder, {Stage::kEncodeText}, false},
                {"transformer", components_->transformer, {Stage::kDenoise}, false},
                {"vae", components_->vae, {Stage::kEncodeMedia, Stage::kDecode}, true}}) {}

  const std::vector<PipelineComponent>& components() const override { return moved_; }
  std::unique_ptr<PipelineRun> Start(const Request& request, std::vector<MediaInput> media,
                                     Tap tap) override {
    return std::make_unique<LtxRun>(components_, &shared_.embeddings, request, std::move(media),
                                    std::move(tap));
  }

 private:
  std::shared_ptr<const LtxComponents> components_;
  EngineShared& shared_;
  std::vector<PipelineComponent> moved_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared) {
  auto components = std::make_shared<LtxComponents>();
  KINO_ASSIGN_OR_RETURN(components->sampler, LoadFlowMatchEuler(options));
  KINO_ASSIGN_OR_RETURN(components->tokenizer, LoadT5Tokenizer(options));
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        FolderComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer,
                        TransformerComponent<LtxTransformer>(options, shared, FindLtxTransformer));
  KINO_ASSIGN_OR_RETURN(components->vae, FolderComponent<LtxVae>(options, shared, "vae"));
  if (components->transformer->config().in_channels != components->vae->config().latent_channels) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.folder, "': the transformer has ",
                                                   components->transformer->config().in_channels,
                                                   " channels, the VAE ",
                                                   components->vae->config().latent_channels));
  }
  return std::make_unique<LtxPipeline>(std::move(components), shared);
}

}  // namespace kino::engine
