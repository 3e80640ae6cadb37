#include "engine/models/ltx/pipeline.h"

#include "absl/strings/str_cat.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/core/status_bridge.h"
#include "engine/models/ltx/run.h"

namespace kino::engine {
namespace {

class LtxPipeline final : public Pipeline {
 public:
  LtxPipeline(std::shared_ptr<const LtxComponents> components, EngineShared& shared)
      : components_(std::move(components)), shared_(shared) {}

  std::unique_ptr<PipelineRun> Start(const Request& request, std::vector<MediaInput> media,
                                     Tap tap) override {
    return std::make_unique<LtxRun>(components_, &shared_.embeddings, request, std::move(media),
                                    std::move(tap));
  }

 private:
  std::shared_ptr<const LtxComponents> components_;
  EngineShared& shared_;
};

// One component from the pool, or from its folder.
template <typename T>
absl::StatusOr<std::shared_ptr<const T>> LoadComponent(const PipelineOptions& options,
                                                       EngineShared& shared, const char* name) {
  const std::string folder = absl::StrCat(options.folder, "/", name);
  KINO_ASSIGN_OR_RETURN(const std::shared_ptr<const Checkpoint> files,
                        Checkpoint::Open(folder, options.variant));
  KINO_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(folder + "/config.json"));
  const std::string key = absl::StrCat(name, "|", files->identity(), "|", config.dump(), "|",
                                       c10::toString(options.dtype), "|", options.device.str(), "|",
                                       options.residency.ToString());
  return shared.components.Get<const T>(key, [&] {
    return T::Load(folder, options.variant, options.dtype, options.device, options.residency);
  });
}

}  // namespace

absl::StatusOr<std::shared_ptr<const LtxVaeComponent>> LtxVaeComponent::Load(
    const std::string& folder, const std::string& variant, c10::ScalarType dtype,
    c10::Device device, const ResidencyPolicy& policy) {
  const std::string path = folder + "/config.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json json, ReadJsonFile(path));
  KINO_ASSIGN_OR_RETURN(const LtxVaeConfig config, LtxVaeConfig::FromJson(json, path));
  KINO_ASSIGN_OR_RETURN(std::shared_ptr<const Checkpoint> checkpoint,
                        Checkpoint::Open(folder, variant));
  auto component = std::make_shared<LtxVaeComponent>();
  component->weights = std::make_unique<WeightSet>(std::move(checkpoint), dtype, device);
  component->residency = std::make_unique<Residency>(*component->weights, policy);
  component->vae = std::make_unique<LtxVae>(config, *component->weights);
  KINO_RETURN_IF_ERROR(component->weights->Finish());
  KINO_RETURN_IF_ERROR(RunGuarded([&] {
    component->residency->LoadAll();
    return absl::OkStatus();
  }));
  return component;
}

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared) {
  auto components = std::make_shared<LtxComponents>();
  const std::string sampler_path = options.folder + "/scheduler/scheduler_config.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json sampler, ReadJsonFile(sampler_path));
  KINO_ASSIGN_OR_RETURN(components->sampler, FlowMatchEulerConfig::FromJson(sampler, sampler_path));
  KINO_ASSIGN_OR_RETURN(components->tokenizer, T5Tokenizer::Load(options.folder + "/tokenizer"));
  KINO_ASSIGN_OR_RETURN(components->text_encoder,
                        LoadComponent<T5Encoder>(options, shared, "text_encoder"));
  KINO_ASSIGN_OR_RETURN(components->transformer,
                        LoadComponent<LtxTransformer>(options, shared, "transformer"));
  KINO_ASSIGN_OR_RETURN(components->vae, LoadComponent<LtxVaeComponent>(options, shared, "vae"));
  if (components->transformer->config().in_channels !=
      components->vae->vae->config().latent_channels) {
    return absl::InvalidArgumentError(absl::StrCat("'", options.folder, "': the transformer has ",
                                                   components->transformer->config().in_channels,
                                                   " channels, the VAE ",
                                                   components->vae->vae->config().latent_channels));
  }
  return std::make_unique<LtxPipeline>(std::move(components), shared);
}

}  // namespace kino::engine
