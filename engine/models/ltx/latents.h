// What LTX-Video's pipelines do to latents beside their networks: from a video, between the passes
// of a generation, before the decode. Functions without state; noise is drawn where one says so.
// Source: diffusers 0.42.1 pipelines/ltx/{pipeline_ltx_latent_upsample,pipeline_ltx}.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>
#include <vector>

#include "engine/models/common/latents.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/latent_upsampler.h"
#include "engine/models/ltx/transformer.h"
#include "engine/models/ltx/vae.h"

namespace kino::engine {

// Latents drawn from the VAE's moments of a video -> [1, C, F, h, w], normalised, float32.
at::Tensor SampleLtxVideo(const LtxVae& vae, const VideoSource& video,
                          const std::optional<VaeTiling>& tiling, NoiseSource& noise,
                          const RunContext& context);

// Normalised latents as the VAE has them, and back.  [1, C, F, h, w] -> float32.
at::Tensor DenormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents);
at::Tensor NormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents);

struct LtxGuidance {
  double scale;    // above 1 there are two prompts, the negative one first
  double rescale;  // 0: none
};
// What the transformer predicts for tokens [1, S, C] -> [1, S, C] float32, guided. prepared: of
// each prompt.
at::Tensor PredictLtx(const LtxTransformer& transformer,
                      const std::vector<LtxTransformer::Prepared>& prepared,
                      const TokenSpans& spans, const at::Tensor& latents,
                      const LtxGuidance& guidance, const RunContext& context);

// Latents made larger, with what the knobs say of their statistics and range.  latents: normalised,
// float32 -> denormalised, in the upsampler's dtype. Taps
// "video_latents", denormalised, and "upsampled".
at::Tensor UpsampleLtxLatents(const LtxVae& vae, const LtxLatentUpsampler& upsampler,
                              const LtxKnobs& knobs, const at::Tensor& latents, const Tap& tap,
                              const RunContext& context);

// For a VAE that is conditioned on a timestep: mixes the noise of the knobs, drawn in the latents'
// dtype, into denormalised latents and returns the timestep. Of another VAE nothing, and undefined.
at::Tensor AddDecodeNoise(const LtxVae& vae, const LtxKnobs& knobs, at::Tensor& latents,
                          NoiseSource& noise);
// Starts the decode of denormalised latents, whose dtype is the pipeline's, behind AddDecodeNoise.
// `latents` become what is decoded.
std::unique_ptr<DecodeStream> StartLtxDecode(const LtxVae& vae, const LtxKnobs& knobs,
                                             const std::optional<VaeTiling>& tiling,
                                             at::Tensor& latents, NoiseSource& noise,
                                             const Tap& tap);

}  // namespace kino::engine
