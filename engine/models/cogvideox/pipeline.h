// CogVideoX's pipelines (diffusers 0.42.1 pipelines/cogvideo): text_to_video, image_to_video,
// video_to_video, and video_to_video under a control video. One thread at a time.
#pragma once

#include <memory>

#include "absl/status/statusor.h"
#include "engine/models/cogvideox/transformer.h"
#include "engine/models/cogvideox/vae.h"
#include "engine/models/common/t5_components.h"
#include "engine/samplers/ddim.h"

namespace kino::engine {

using CogVideoXComponents = T5Components<CogVideoXTransformer, CogVideoXVae, DdimConfig>;

absl::StatusOr<std::unique_ptr<Pipeline>> LoadCogVideoXPipeline(const PipelineOptions& options,
                                                                EngineShared& shared);

}  // namespace kino::engine
