// LTX-Video's pipelines, with classifier-free guidance and guidance rescale: text_to_video
// (diffusers 0.42.1 pipelines/ltx/pipeline_ltx.py), image_to_video (pipeline_ltx_image2video.py),
// conditions of any kind (pipeline_ltx_condition.py), and long videos in windows
// (pipeline_ltx_i2v_long_multi_prompt.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/common/t5_components.h"
#include "engine/models/ltx/describe.h"
#include "engine/models/ltx/latent_upsampler.h"
#include "engine/models/ltx/transformer.h"
#include "engine/models/ltx/vae.h"

namespace kino::engine {

// What a run of any LTX pipeline reads. Runs share it.
struct LtxComponents : T5Components<LtxTransformer, LtxVae, LtxSampler> {
  std::shared_ptr<LtxLatentUpsampler> latent_upsampler;  // nullptr: the folder has none
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadLtxPipeline(const PipelineOptions& options,
                                                          EngineShared& shared);

}  // namespace kino::engine
