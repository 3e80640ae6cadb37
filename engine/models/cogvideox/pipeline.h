// CogVideoX's pipelines (diffusers 0.42.1 pipelines/cogvideo): text_to_video, image_to_video,
// video_to_video, and video_to_video under a control video. One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/cogvideox/transformer.h"
#include "engine/models/cogvideox/vae.h"
#include "engine/models/common/pipeline.h"
#include "engine/samplers/ddim.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct CogVideoXComponents {
  std::shared_ptr<const T5Tokenizer> tokenizer;  // on meta tensors perhaps none
  std::shared_ptr<T5Encoder> text_encoder;
  std::shared_ptr<CogVideoXTransformer> transformer;
  std::shared_ptr<CogVideoXVae> vae;
  DdimConfig sampler;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadCogVideoXPipeline(const PipelineOptions& options,
                                                                EngineShared& shared);

}  // namespace kino::engine
