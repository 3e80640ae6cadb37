#include "engine/models/common/feathered_tiles.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/tensor.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>

namespace kino::engine {
namespace {

using ::testing::ElementsAre;

// Gives each latent's value for all its pixels, a frame for each latent frame, in runs of `run`.
class FakeDecode final : public DecodeStream {
 public:
  FakeDecode(at::Tensor latents, int64_t run) : latents_(std::move(latents)), run_(run) {}
  bool done() const override { return next_ == latents_.size(2); }
  at::Tensor NextFrames(const RunContext&) override {
    if (!waited_) {  // as a decoder that looks ahead does
      waited_ = true;
      return {};
    }
    const int64_t count = std::min(run_, latents_.size(2) - next_);
    const at::Tensor frames = latents_.narrow(2, next_, count);
    next_ += count;
    return frames.repeat_interleave(2, 3).repeat_interleave(2, 4).squeeze(0).permute({1, 2, 3, 0});
  }

 private:
  at::Tensor latents_;
  int64_t run_, next_ = 0;
  bool waited_ = false;
};

struct Joined {
  at::Tensor frames;
  std::vector<std::vector<int64_t>> tiles;
};

Joined Decode(const at::Tensor& latents, const FeatheredTiles& tiles, int64_t frames) {
  Joined joined;
  FeatheredStream stream(
      [&](const at::Tensor& tile) {
        joined.tiles.push_back({tile.size(3), tile.size(4)});
        // Runs of different lengths, so tiles are never abreast.
        return std::make_unique<FakeDecode>(tile, 1 + joined.tiles.size() % 3);
      },
      latents, tiles, frames);
  std::vector<at::Tensor> parts;
  while (!stream.done()) parts.push_back(stream.NextFrames(RunContext{}));
  joined.frames = at::cat(parts);
  return joined;
}

TEST(FeatheredStreamTest, TilesThatAgreeGiveTheWholePicture) {
  const at::Tensor latents = at::randn({1, 3, 7, 5, 6}).clamp(-0.9, 0.9);
  const at::Tensor whole =
      Decode(latents, {.vertical = 1, .horizontal = 1, .overlap = 3, .ratio = 2}, 6).frames;
  EXPECT_THAT(whole.sizes().vec(), ElementsAre(6, 10, 12, 3));
  const Joined tiled =
      Decode(latents, {.vertical = 3, .horizontal = 2, .overlap = 1, .ratio = 2}, 6);
  EXPECT_THAT(tiled.tiles, ElementsAre(ElementsAre(2, 3), ElementsAre(2, 4), ElementsAre(2, 3),
                                       ElementsAre(2, 4), ElementsAre(3, 3), ElementsAre(3, 4)));
  EXPECT_TRUE(tiled.frames.allclose(whole, 1e-5, 1e-6));
  // As many shared as a tile has: every tile but the last is the same.
  EXPECT_TRUE(Decode(latents, {.vertical = 4, .horizontal = 1, .overlap = 4, .ratio = 2}, 6)
                  .frames.allclose(whole, 1e-5, 1e-6));
  EXPECT_TRUE(Decode(latents, {.vertical = 2, .horizontal = 3, .overlap = 0, .ratio = 2}, 6)
                  .frames.allclose(whole, 1e-5, 1e-6));
}

TEST(FeatheredStreamTest, FadesAndClamps) {
  const at::Tensor latents = at::full({1, 3, 1, 1, 4}, 0.5);
  int tile = 0;
  FeatheredStream stream(
      [&](const at::Tensor& part) {
        return std::make_unique<FakeDecode>(at::full(part.sizes(), tile++ == 0 ? -1.5 : 0.6), 1);
      },
      latents, {.vertical = 1, .horizontal = 2, .overlap = 2, .ratio = 2}, 1);
  // Tiles of 3 latents share 2, or four columns: weights 1, 2/3, 1/3 and 0.
  const at::Tensor row = stream.NextFrames(RunContext{}).select(3, 0).select(1, 0).flatten();
  EXPECT_TRUE(row.allclose(at::tensor({-1.0, -1.0, -1.0, -0.8, -0.1, 0.6, 0.6, 0.6}, at::kFloat),
                           1e-5, 1e-6))
      << row;
}

}  // namespace
}  // namespace kino::engine
