// Allegro's pipeline: text_to_video with classifier-free guidance (diffusers 0.42.1
// pipelines/allegro/pipeline_allegro.py). One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/allegro/transformer.h"
#include "engine/models/allegro/vae.h"
#include "engine/models/common/t5_components.h"
#include "engine/samplers/euler_ancestral.h"

namespace kino::engine {

using AllegroComponents = T5Components<AllegroTransformer, AllegroVae, EulerAncestralConfig>;

absl::StatusOr<std::unique_ptr<Pipeline>> LoadAllegroPipeline(const PipelineOptions& options,
                                                              EngineShared& shared);

}  // namespace kino::engine
