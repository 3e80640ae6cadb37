// LTX-Video's pipelines, with classifier-free guidance and guidance rescale: text_to_video
// (diffusers 0.42.1 pipelines/ltx/pipeline_ltx.py), image_to_video (pipeline_ltx_image2video.py),
// conditions of any kind (pipeline_ltx_condition.py), and long videos in windows
// (pipeline_ltx_i2v_long_multi_prompt.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/latent_upsampler.h"
#include "engine/models/ltx/transformer.h"
#include "engine/models/ltx/vae.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What a run of any LTX pipeline reads. Runs share it.
struct LtxComponents {
  std::shared_ptr<const T5Tokenizer> tokenizer;  // on meta tensors perhaps none
  std::shared_ptr<T5Encoder> text_encoder;
  std::shared_ptr<LtxTransformer> transformer;
  std::shared_ptr<LtxVae> vae;
  std::shared_ptr<LtxLatentUpsampler> latent_upsampler;  // nullptr: the folder has none
  LtxSampler sampler;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared);

}  // namespace kino::engine
