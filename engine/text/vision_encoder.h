// Encoders of images for text: SigLIP (transformers 5.23 models/siglip/modeling_siglip.py
// SiglipVisionModel; the last hidden state, behind its norm), and the CLIP tower of a LLaVA with
// its projector (models/llava/modeling_llava.py get_image_features). Immutable once configured; one
// thread at a time.
//
// A LLaVA's folder is two components over the same files, this one and a LlamaEncoder; each leaves
// the other's weights alone. Weights are found under the names of transformers 4 and 5. Pooling
// heads are not loaded, and neither are the tower's layers behind the features.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <string>
#include <vector>

#include "engine/core/run_context.h"
#include "engine/memory/component.h"
#include "engine/nn/mlp.h"
#include "engine/text/clip_config.h"
#include "engine/text/clip_layers.h"

namespace kino::engine {

class VisionEncoder final : public Component {
 public:
  using Config = VisionEncoderConfig;
  // See MakeComponent.
  VisionEncoder(const VisionEncoderConfig& config, const ComponentFiles& files,
                c10::ScalarType dtype, c10::Device device);
  // pixels: of each image, [1, 3, image_size, image_size], any device and floating point dtype, as
  // ImageProcessor gives them -> of each, [1, tokens, D] in the encoder's dtype. Each image by
  // itself, as with T5Encoder. INVALID_ARGUMENT (thrown as StatusError): an image of another size.
  std::vector<at::Tensor> Forward(const std::vector<at::Tensor>& pixels,
                                  const RunContext& context) const;

  // Of the features.
  int64_t width() const { return config_.width(); }
  int64_t tokens() const { return config_.tokens(); }
  // Of the images, in both directions.

 private:
  at::Tensor Embed(const at::Tensor& pixels) const;

  VisionEncoderConfig config_;
  WeightRef patch_weight_, patch_bias_, class_embedding_, position_embedding_;
  WeightAndBias pre_norm_, post_norm_;
  std::unique_ptr<ClipLayers> layers_;
  std::unique_ptr<Mlp> projector_;
};

}  // namespace kino::engine
