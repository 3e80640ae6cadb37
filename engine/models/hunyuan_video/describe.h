// What a HunyuanVideo checkpoint can do. No torch. Immutable, thread-safe.
#pragma once

#include "engine/describe/families.h"
#include "engine/models/hunyuan_video/transformer_config.h"
#include "engine/models/hunyuan_video/vae_config.h"
#include "engine/samplers/flow_match_euler.h"
#include "engine/text/image_reader.h"

namespace kino::engine {

// What the transformer is shown beside the latents, which decides the pipeline.
enum class HunyuanVideoKind {
  kText,          // nothing: HunyuanVideoPipeline
  kTokenReplace,  // an image in place of the first latent frame: HunyuanVideoImageToVideoPipeline
  kLatentConcat,  // an image in channels of its own, and a mask: the same pipeline
  kSkyReels,      // an image in channels of its own: HunyuanSkyreelsImageToVideoPipeline
  kFramePack,     // an image, and the video so far: HunyuanVideoFramepackPipeline
};

FamilyDescriber HunyuanVideoDescriber();

// UNIMPLEMENTED: the channels are those of none.
absl::StatusOr<HunyuanVideoKind> HunyuanVideoKindOf(
    const HunyuanVideoTransformerConfig& transformer, const HunyuanVideoVaeConfig& vae,
    const std::string& path);
// nullptr: such a model looks at no image for what it shows.
const ImageReader* ImageReaderOf(HunyuanVideoKind kind);
// LLaVA reads the prompt together with the image.
constexpr bool ReadsImage(HunyuanVideoKind kind) {
  return kind == HunyuanVideoKind::kTokenReplace || kind == HunyuanVideoKind::kLatentConcat;
}

// FramePack's sections of an effective request.
struct FramePackSections {
  int count = 0;
  int window = 0;   // latent frames that each adds
  int overlap = 0;  // frames in which two of them fade into each other
};
FramePackSections FramePackSectionsOf(const Request& request);

// Sigmas and timesteps of an effective request, of each of FramePack's sections. INVALID_ARGUMENT:
// they come out of no use.
absl::StatusOr<FlowMatchSchedule> HunyuanVideoSchedule(
    const FlowMatchEulerConfig& sampler, const HunyuanVideoTransformerConfig& transformer,
    const HunyuanVideoVaeConfig& vae, const Request& request);

}  // namespace kino::engine
