#include "engine/models/common/component_loading.h"

#include "engine/core/json.h"

namespace kino::engine {

absl::StatusOr<std::shared_ptr<const T5Tokenizer>> LoadT5Tokenizer(const PipelineOptions& options) {
  absl::StatusOr<std::unique_ptr<T5Tokenizer>> tokenizer =
      T5Tokenizer::Load(options.folder + "/tokenizer");
  if (tokenizer.ok()) return *std::move(tokenizer);
  if (options.device.is_meta() && absl::IsNotFound(tokenizer.status())) return nullptr;
  return tokenizer.status();
}

absl::StatusOr<FlowMatchEulerConfig> LoadFlowMatchEuler(const PipelineOptions& options) {
  const std::string path = options.folder + "/scheduler/scheduler_config.json";
  KINO_ASSIGN_OR_RETURN(const nlohmann::json config, ReadJsonFile(path));
  return FlowMatchEulerConfig::FromJson(config, path);
}

}  // namespace kino::engine
