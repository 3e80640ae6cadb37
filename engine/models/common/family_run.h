// What the runs of all families have beside their stages. One thread at a time.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_format.h"
#include "engine/models/common/staged_run.h"
#include "engine/models/common/text_stage.h"

namespace kino::engine {

// Components: a family's, of one model; its runs share them.
template <typename Components>
class FamilyRun : public StagedRun {
 public:
  // What a pipeline starts a run with.
  struct Inputs {
    std::shared_ptr<const Components> components;
    EmbeddingCache* embeddings;     // outlives the run
    const Request& request;         // effective
    std::vector<MediaInput> media;  // of each of the request's conditions
    Tap tap;                        // may be empty
  };

 protected:
  explicit FamilyRun(Inputs inputs)
      : StagedRun(inputs.request, inputs.components),
        components_(inputs.components.get()),
        media_(std::move(inputs.media)),
        tap_(std::move(inputs.tap)),
        embeddings_(inputs.embeddings) {}

  // EncodePrompts by the model's own tokenizer and T5, for its transformer.
  std::vector<at::Tensor> EncodeTexts(const std::vector<std::optional<std::string>>& prompts,
                                      PromptPadding padding, int max_length,
                                      const RunContext& context) const {
    return EncodePrompts({.tokenizer = components_->tokenizer.get(),
                          .encoder = components_->text_encoder.get(),
                          .cache = embeddings_,
                          .padding = padding,
                          .max_length = max_length,
                          .device = components_->transformer->device()},
                         prompts, tap_, context);
  }
  // What a denoise step has made of the latents.
  void TapStep(int step, const at::Tensor& latents) const {
    if (tap_) TapTensor(tap_, absl::StrFormat("denoise_%03d", step), latents);
  }

  const Components* const components_;
  const std::vector<MediaInput> media_;
  const Tap tap_;
  EmbeddingCache* const embeddings_;
};

}  // namespace kino::engine
