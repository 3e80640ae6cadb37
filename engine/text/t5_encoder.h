// T5 v1.1 encoder (transformers 5.23 models/t5/modeling_t5.py). Immutable once configured; one
// thread at a time.
//
// There is no attention mask: a pipeline that masks the padding leaves it out, which gives the
// states of the other tokens exactly (a masked key has weight 0). One that does not mask it passes
// the pad ids as well.
//
// Numerics: RMS norms take their variance in float32; attention is not scaled by 1/sqrt(K); the
// relative position bias of the first block serves all. In float16 the second feed-forward matrix
// (`wo`) stays float32, and with it the residual stream; transformers 5.23 does so for float16
// only, not for bfloat16.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/nn/block_stack.h"
#include "engine/text/t5_config.h"

namespace kino::engine {

// As transformers clamps float16 states, which overflow in deep encoders: just below the largest
// value, further below once one of them is infinite. In place, without the host waiting for the
// device; other dtypes stay as they are.
at::Tensor ClampHalf(at::Tensor hidden);

class T5Encoder final : public Component {
 public:
  using Config = T5EncoderConfig;
  // See MakeComponent.
  T5Encoder(const T5EncoderConfig& config, const ComponentFiles& files, c10::ScalarType dtype,
            c10::Device device);
  // ids: of each prompt, [1, L] int64 on the host, L its own and not 0 -> [1, L, d_model] in the
  // encoder's dtype. INVALID_ARGUMENT (thrown as StatusError): an id outside the vocabulary. All
  // prompts go through each block while its weights are there; each by itself, so that its states
  // have the same bits whatever it goes along with.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& ids,
                                  const RunContext& context) const;

  // Of the states.
  int64_t width() const { return config_.d_model; }

 private:
  struct Block {
    WeightRef attention_norm, feed_forward_norm;
    LinearWeight q, k, v, o, wi_0, wi_1, wo;
  };

  at::Tensor RunBlock(const Block& block, at::Tensor hidden, const at::Tensor& bias) const;
  at::Tensor PositionBias(int64_t length) const;

  T5EncoderConfig config_;
  WeightRef embedding_, position_bias_, final_norm_;
  std::vector<Block> blocks_;
  std::unique_ptr<BlockStack> stack_;
};

}  // namespace kino::engine
