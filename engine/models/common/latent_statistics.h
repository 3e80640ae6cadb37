// What makes the latents of one video, or of one part of it, like those of another. Pure functions.
// Source: diffusers 0.42.1 pipelines/ltx/{pipeline_ltx_latent_upsample,
// pipeline_ltx_i2v_long_multi_prompt}.py.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace kino::engine {

// Latents mixed, by `factor`, with themselves brought to the mean and the deviation that
// `reference` has in each channel (adain_filter_latent).  [B, C, F, h, w], reference of any size.
at::Tensor MatchStatistics(const at::Tensor& latents, const at::Tensor& reference, double factor);

// Brings each channel's mean and deviation nearer to the reference's, all the way with factor 1.
at::Tensor LikenStatistics(const at::Tensor& latents, const at::Tensor& reference, double factor);

// Large values made smaller, the more the nearer `compression` is to 1 (tone_map_latents).
at::Tensor ToneMap(const at::Tensor& latents, double compression);

// Goes over from the first clip's last `overlap` frames to the other's first, along a straight
// line; up to one frame they are just joined. Both: [1, C, F, h, w].
at::Tensor FuseOverlap(const at::Tensor& first, const at::Tensor& second, int64_t overlap);

}  // namespace kino::engine
