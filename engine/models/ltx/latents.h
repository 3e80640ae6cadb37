// What LTX-Video's pipelines do to latents beside their networks: from a video, between the passes
// of a generation, before the decode. Functions without state; noise is drawn where one says so.
// Source: diffusers 0.42.1 pipelines/ltx/{pipeline_ltx_latent_upsample,pipeline_ltx}.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>
#include <optional>

#include "engine/models/common/latents.h"
#include "engine/models/common/pipeline.h"
#include "engine/models/ltx/knobs.h"
#include "engine/models/ltx/latent_upsampler.h"
#include "engine/models/ltx/vae.h"

namespace kino::engine {

// Latents of the first frames of `media`, resized to `size`, drawn from the VAE's distribution ->
// [1, C, F, h, w], normalised, float32.
at::Tensor SampleLtxVideo(const LtxVae& vae, const MediaInput& media, const VideoSize& size,
                          const LtxVaeTiling& tiling, NoiseSource& noise,
                          const RunContext& context);

// Normalised latents as the VAE has them, and back.  [1, C, F, h, w] -> float32.
at::Tensor DenormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents);
at::Tensor NormalizeLtxLatents(const LtxVae& vae, const at::Tensor& latents);

// Latents mixed, by `factor`, with themselves brought to the mean and the deviation that
// `reference` has in each channel (adain_filter_latent).  [B, C, F, h, w], reference of any size.
at::Tensor MatchStatistics(const at::Tensor& latents, const at::Tensor& reference, double factor);

// Latents made larger, with what the knobs say of their statistics and range.  latents: normalised,
// float32 -> denormalised, in the upsampler's dtype. Taps
// "video_latents", denormalised, and "upsampled".
at::Tensor UpsampleLtxLatents(const LtxVae& vae, const LtxLatentUpsampler& upsampler,
                              const LtxKnobs& knobs, const at::Tensor& latents, const Tap& tap,
                              const RunContext& context);

// Large values made smaller, the more the nearer `compression` is to 1 (tone_map_latents).
at::Tensor ToneMap(const at::Tensor& latents, double compression);

// Starts the decode of denormalised latents, whose dtype is the pipeline's. For a VAE that is
// conditioned on a timestep it draws and adds the noise of the knobs. `latents` become what is
// decoded.
std::unique_ptr<DecodeStream> StartLtxDecode(const LtxVae& vae, const LtxKnobs& knobs,
                                             const std::optional<VaeTiling>& tiling,
                                             at::Tensor& latents, NoiseSource& noise,
                                             const Tap& tap);

}  // namespace kino::engine
