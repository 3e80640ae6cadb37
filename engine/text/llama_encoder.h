// LLaMA as a text encoder (transformers 5.23 models/llama/modeling_llama.py), with image features
// in place of image tokens where it is part of a LLaVA (models/llava/modeling_llava.py). Immutable
// once configured; one thread at a time.
//
// It gives hidden_states[-(skipped + 1)]: the last layers are neither run nor loaded, and neither
// is the norm behind them. There is no attention mask: a prompt that a pipeline pads and masks is
// passed without its padding, which gives the states of its own tokens (a masked key has weight 0,
// and position ids count the tokens that are not masked).
//
// Numerics: RMS norms in float32; rotary tables in float32, rounded to the encoder's dtype, in
// which they are applied; SiLU and its product each rounded. Weights are found under the names of a
// LlamaModel, a LlamaForCausalLM and a LLaVA of transformers 4 and 5.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/nn/block_stack.h"
#include "engine/text/llama_config.h"

namespace kino::engine {

struct LlamaPrompt {
  at::Tensor ids;  // [1, L] int64 on the host, L not 0
  // [1, tokens, D], any device and floating point dtype, taken in order by the positions whose id
  // is the image token's, of which there are as many; undefined: ids alone.
  at::Tensor images = {};
};

class LlamaEncoder final : public Component {
 public:
  using Config = LlamaEncoderConfig;
  // See MakeComponent.
  LlamaEncoder(const LlamaEncoderConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
               c10::Device device);
  // -> of each prompt, [1, L, D] in the encoder's dtype. All prompts go through each block while
  // its weights are there; each by itself, so that its states have the same bits whatever it goes
  // along with. INVALID_ARGUMENT (thrown as StatusError): an id outside the vocabulary, images that
  // do not fit the image tokens, or of an encoder that takes none.
  std::vector<at::Tensor> Forward(const std::vector<LlamaPrompt>& prompts,
                                  const RunContext& context) const;

  // Of the states.
  int64_t width() const { return config_.hidden_size; }
  const LlamaEncoderConfig& config() const { return config_; }

 private:
  struct Block {
    WeightRef input_norm, post_attention_norm;
    LinearWeight q, k, v, o, gate, up, down;
  };
  // Of the first L positions, [L, 1, head_dim / 2] in the encoder's dtype.
  struct Rotary {
    at::Tensor cos, sin;
  };

  Block MakeBlock(const WeightScope& scope) const;
  at::Tensor Embed(const LlamaPrompt& prompt) const;
  Rotary MakeRotary(int64_t length) const;
  at::Tensor Rotated(const at::Tensor& x, const Rotary& rotary) const;
  at::Tensor RunBlock(const Block& block, at::Tensor hidden, const Rotary& rotary) const;

  LlamaEncoderConfig config_;
  WeightRef embedding_;
  std::vector<Block> blocks_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
