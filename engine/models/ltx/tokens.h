// The tokens that LTX-Video's transformer sees: those of the video, and what conditions make of
// them or put in front of them. Pure functions; the positions are tensors. Source: diffusers 0.42.1
// pipelines/ltx/pipeline_ltx_condition.py (prepare_latents).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "engine/models/common/latents.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/ltx/vae_config.h"

namespace kino::engine {

// What becomes of one condition. Its latent frames are mixed into those of the video, but for the
// first `added`, which become tokens in front of the video's.
struct LtxConditionPlace {
  int64_t frames = 1;      // of its media, from the first on, that are encoded
  int64_t added = 0;       // latent frames
  int64_t mixed = 0;       // latent frames
  int64_t mixed_from = 0;  // the video's latent frame that the first of them is mixed into
};

// Tokens [begin, end) that hold their latents with such a strength: 0 is pure noise at first, 1 is
// given and stays.
struct LtxHeldTokens {
  int64_t begin, end;
  float strength;
};

struct LtxTokens {
  LatentGrid grid;                            // of the video
  std::vector<LtxConditionPlace> conditions;  // as the request has them
  std::vector<LtxHeldTokens> held;            // all tokens in order
  int64_t added = 0;                          // tokens in front of the video's
  int64_t count() const { return held.back().end; }
};

// media: of each of the request's conditions. Throws StatusError INVALID_ARGUMENT: a condition's
// video has no frame for the place it is to have.
LtxTokens LayOutTokens(const LtxVaeConfig& vae, const Request& request,
                       const std::vector<MediaInput>& media);

// Second, pixel row and pixel column of each token, [S, 3] float32. LTXPipeline's: latent frame f
// is at f * `seconds`, and `pixels` are those of a latent.
at::Tensor GridPositions(const LatentGrid& grid, double seconds, double pixels, c10::Device device);
// LTXConditionPipeline's: a latent frame is at the first pixel frame that it holds, and a
// condition's own tokens begin at its frame_index.
at::Tensor PixelPositions(const LtxTokens& tokens, const LtxVaeConfig& vae,
                          const std::vector<Condition>& conditions, double frame_rate,
                          c10::Device device);
// Of latents that begin with the pixel frame `frame_index`.
at::Tensor PixelPositionsFrom(const LatentGrid& grid, int64_t frame_index, const LtxVaeConfig& vae,
                              double frame_rate, c10::Device device);

}  // namespace kino::engine
