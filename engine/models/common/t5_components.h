// The components of a family whose prompts one T5 encodes. One thread at a time.
#pragma once

#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/core/json.h"
#include "engine/core/status.h"
#include "engine/models/common/component_loading.h"
#include "engine/models/common/pipeline.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What a run reads. Runs share it.
template <typename Transformer, typename Vae, typename Sampler>
struct T5Components {
  std::shared_ptr<const T5Tokenizer> tokenizer;  // on meta tensors perhaps none
  std::shared_ptr<T5Encoder> text_encoder;
  std::shared_ptr<Transformer> transformer;
  std::shared_ptr<Vae> vae;
  Sampler sampler;

  // Fills them from the model's folder. find: the transformer's; nullptr where no original
  // files are known, which describe refuses.
  absl::Status Load(const PipelineOptions& options, EngineShared& shared, FindComponent find) {
    KINO_ASSIGN_OR_RETURN(sampler,
                          ReadConfig<Sampler>(options.folder + "/scheduler/scheduler_config.json"));
    KINO_ASSIGN_OR_RETURN(tokenizer, FolderTokenizer(options, "tokenizer", &T5Tokenizer::Load));
    KINO_ASSIGN_OR_RETURN(text_encoder,
                          FolderComponent<T5Encoder>(options, shared, "text_encoder"));
    KINO_ASSIGN_OR_RETURN(transformer,
                          FolderComponent<Transformer>(options, shared, "transformer", find));
    KINO_ASSIGN_OR_RETURN(vae, FolderComponent<Vae>(options, shared, "vae"));
    return absl::OkStatus();
  }
  // Those that have weights. encodes: the VAE encodes conditions as well.
  std::vector<PipelineComponent> Moved(bool encodes) const {
    std::vector<Stage> of_vae = {Stage::kDecode};
    if (encodes) of_vae.insert(of_vae.begin(), Stage::kEncodeMedia);
    return {{"text_encoder", text_encoder, {Stage::kEncodeText}, false},
            {"transformer", transformer, {Stage::kDenoise}, false},
            {"vae", vae, std::move(of_vae), true}};
  }
};

}  // namespace kino::engine
