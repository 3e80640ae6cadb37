// Allegro's pipeline: text_to_video with classifier-free guidance (diffusers 0.42.1
// pipelines/allegro/pipeline_allegro.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/allegro/transformer.h"
#include "engine/models/allegro/vae.h"
#include "engine/models/common/pipeline.h"
#include "engine/samplers/euler_ancestral.h"
#include "engine/text/t5_encoder.h"
#include "engine/text/t5_tokenizer.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct AllegroComponents {
  std::shared_ptr<const T5Tokenizer> tokenizer;  // on meta tensors perhaps none
  std::shared_ptr<T5Encoder> text_encoder;
  std::shared_ptr<AllegroTransformer> transformer;
  std::shared_ptr<AllegroVae> vae;
  EulerAncestralConfig sampler;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadAllegroPipeline(const PipelineOptions& options,
                                                              EngineShared& shared);

}  // namespace kino::engine
