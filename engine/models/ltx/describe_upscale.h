// What LTX-Video's latent upsampler can do: a folder of a VAE and the upsampler alone. No torch.
// Immutable, thread-safe.
#pragma once

#include "absl/status/statusor.h"
#include "engine/describe/families.h"

namespace kino::engine {

// Of model_index.json.
inline constexpr char kLtxUpscaleClass[] = "LTXLatentUpsamplePipeline";

// The task UPSCALE. A request's height, width and num_frames are those of the video that goes in,
// as diffusers' are; by default its own, rounded down to what the VAE takes.
absl::StatusOr<std::shared_ptr<const FamilyDescription>> DescribeLtxUpscale(
    const ModelSource& source);

}  // namespace kino::engine
