// What the LTX-Video VAE holds while it encodes or decodes: its layers, chains and tiles
// (vae_layers, vae_chain, vae_encoder, vae_decoder, vae_tiling) replayed on shapes. Line for line
// what those allocate and free, so a change there is a change here;
// tests/parity/plan_accuracy_test.py holds the two together. Pure functions, no torch.
#pragma once

#include <cstdint>

#include "engine/models/ltx/vae_config.h"

namespace kino::engine {

struct LtxVaeWalkOptions {
  int64_t element_bytes = 4;  // of the dtype of computation
  // The norm and SiLU in one pass over the rows (vae_kernels.h): the CPU, but in float16.
  bool norm_is_fused = true;
  // Convolutions put their weight in oneDNN's order for each call.
  bool packs_weights = true;
  bool on_gpu = false;
};

// As LtxVaeTiling; sizes in pixels and frames.
struct LtxTileSizes {
  bool in_space = false;
  bool in_time = false;
  int64_t min_height = 512, min_width = 512, min_frames = 16;
  int64_t stride_height = 448, stride_width = 448, stride_frames = 8;
};

struct LtxVaePeak {
  int64_t bytes = 0;   // weights, latents and what the caller holds apart
  double flops = 0;    // of convolutions, all tiles and frames together
  int64_t passes = 0;  // how often the weights are gone through
};

// A decode of [frames, height, width] latents, and what becomes of its frames: floats on the host.
LtxVaePeak LtxDecodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options);

// An encode of a video of `frames` frames of height x width pixels, which come as bytes.
LtxVaePeak LtxEncodePeak(const LtxVaeConfig& config, int64_t frames, int64_t height, int64_t width,
                         const LtxTileSizes& tiles, const LtxVaeWalkOptions& options);

}  // namespace kino::engine
