// CLIP's text encoder (transformers 5.23 models/clip/modeling_clip.py CLIPTextModel), of which the
// pooled state is wanted. Immutable once configured; one thread at a time.
//
// There is no attention mask: diffusers passes none, so padding behind the text is attended to by
// nothing that is pooled (attention is causal). Weights are found under the names of transformers 4
// (text_model.embeddings...) and of 5 (embeddings...).
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/text/clip_config.h"
#include "engine/text/clip_layers.h"

namespace kino::engine {

class ClipTextEncoder final : public Component {
 public:
  using Config = ClipTextConfig;
  // See MakeComponent.
  ClipTextEncoder(const ClipTextConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
                  c10::Device device);
  // ids: of each prompt, [1, L] int64 on the host, L its own, 1 to max_position_embeddings -> of
  // each, pooled, [1, D] in the encoder's dtype: the state, behind the final norm, of the highest
  // id where the config's eos_token_id is 2, else of the first end of text; of the first token
  // where there is none. Each prompt by itself, as with T5Encoder. INVALID_ARGUMENT (thrown as
  // StatusError): an id outside the vocabulary, or a prompt of more tokens than there are
  // positions.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& ids,
                                  const RunContext& context) const;

  // Of the pooled state.
  int64_t width() const { return config_.layers.hidden_size; }
  // Of a prompt.
  int64_t max_tokens() const { return config_.max_position_embeddings; }

 private:
  ClipTextConfig config_;
  WeightRef token_embedding_, position_embedding_;
  std::unique_ptr<ClipLayers> layers_;
  WeightAndBias final_norm_;
};

}  // namespace kino::engine
