// Mochi-1's pipeline: text_to_video with classifier-free guidance (diffusers 0.42.1
// pipelines/mochi/pipeline_mochi.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/common/t5_components.h"
#include "engine/models/mochi/transformer.h"
#include "engine/models/mochi/vae.h"
#include "engine/samplers/flow_match_euler.h"

namespace kino::engine {

// What a run reads. Runs share it.
struct MochiComponents : T5Components<MochiTransformer, MochiVae, FlowMatchEulerConfig> {
  // model_index.json: an empty prompt is none at all, as Genmo's own code has it.
  bool force_zeros_for_empty_prompt = false;
};

absl::StatusOr<std::unique_ptr<Pipeline>> LoadMochiPipeline(const PipelineOptions& options,
                                                            EngineShared& shared);

}  // namespace kino::engine
