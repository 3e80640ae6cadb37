#include "engine/models/ltx/pipeline.h"

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
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

// The folder's transformer, or the original file that stands in for it.
absl::StatusOr<std::shared_ptr<LtxTransformer>> LoadTransformer(const PipelineOptions& options,
                                                                EngineShared& shared) {
  if (options.transformer_file.empty())
    return FolderComponent<LtxTransformer>(options, shared, "transformer");
  ComponentFiles files;
  nlohmann::json folder_config;
  const std::string config_path = options.folder + "/transformer/config.json";
  if (std::filesystem::exists(config_path)) {
    KINO_ASSIGN_OR_RETURN(folder_config, ReadJsonFile(config_path));
  }
  KINO_ASSIGN_OR_RETURN(const std::shared_ptr<const TensorFile> file,
                        TensorFile::Open(options.transformer_file));
  KINO_ASSIGN_OR_RETURN(
      const LtxFileComponent found,
      LtxTransformerInFile(*file, folder_config.is_null() ? nullptr : &folder_config));
  files.config = found.config;
  files.config_path = options.transformer_file;
  KINO_ASSIGN_OR_RETURN(files.checkpoint, Checkpoint::FromFile(file, found.map));
  return PooledComponent<LtxTransformer>(files, options, shared, "transformer");
}

}  // namespace

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared) {
  auto components = std::make_shared<LtxComponents>();
  const std::string sampler_path = options.folder + "/scheduler/scheduler_config.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json sampler, ReadJsonFile(sampler_path));
  KINO_ASSIGN_OR_RETURN(components->sampler, FlowMatchEulerConfig::FromJson(sampler, sampler_path));
  absl::StatusOr<std::unique_ptr<T5Tokenizer>> tokenizer =
      T5Tokenizer::Load(options.folder + "/tokenizer");
  // What a run needs can be told without one: of prompts only the length matters.
  if (tokenizer.ok()) {
    components->tokenizer = *std::move(tokenizer);
  } else if (!options.device.is_meta() || !absl::IsNotFound(tokenizer.status())) {
    return tokenizer.status();
  }
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        FolderComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer, LoadTransformer(options, shared));
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
