// Mochi-1's pipeline: text_to_video with classifier-free guidance (diffusers 0.42.1
// pipelines/mochi/pipeline_mochi.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/mochi/transformer.h"
#include "engine/models/mochi/vae.h"
#include "engine/samplers/flow_match_euler.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct MochiComponents {
  std::shared_ptr<const T5Tokenizer> tokenizer;  // on meta tensors perhaps none
  std::shared_ptr<T5Encoder> text_encoder;
  std::shared_ptr<MochiTransformer> transformer;
  std::shared_ptr<MochiVae> vae;
  FlowMatchEulerConfig sampler;
  // model_index.json: an empty prompt is none at all, as Genmo's own code has it.
  bool force_zeros_for_empty_prompt = false;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadMochiPipeline(const PipelineOptions& options,
                                                            EngineShared& shared);

}  // namespace kino::engine
