// Tiles in space that are decoded by themselves and faded into each other by weights that fall to 0
// where a tile ends, for any decoder. Source: diffusers 0.42.1 pipelines/ltx/
// pipeline_ltx_i2v_long_multi_prompt.py (vae_decode_tiled). One thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "engine/models/common/vae_tiles.h"

namespace kino::engine {

struct FeatheredTiles {
  int64_t vertical, horizontal;
  int64_t overlap;  // latents
  int64_t ratio;    // pixels of a latent
};

// Advances through time with all tiles together, so that memory does not grow with the video.
class FeatheredStream final : public DecodeStream {
 public:
  using BeginTile = std::function<std::unique_ptr<DecodeStream>(const at::Tensor& latents)>;

  // latents: [1, C, F, h, w]. `begin` is called for one tile after the other, row by row, here.
  // Frames behind the first `frames` are left out. REQUIRES: describe has let the tiles pass.
  FeatheredStream(const BeginTile& begin, const at::Tensor& latents, const FeatheredTiles& tiles,
                  int64_t frames);

  bool done() const override { return frames_left_ == 0; }
  at::Tensor NextFrames(const RunContext& context) override;

 private:
  struct Tile {
    int64_t y, x;
    at::Tensor weights;  // [H, W, 1]
    std::unique_ptr<DecodeStream> stream;
    at::Tensor waiting;  // frames [t, H, W, 3]: tiles give runs of different lengths
  };

  std::vector<Tile> tiles_;
  at::Tensor weights_;  // of all, [H, W, 1]
  int64_t frames_left_;
};

}  // namespace kino::engine
