#include "engine/models/common/clip_tiles.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {
namespace {

class ClipTileStream final : public DecodeStream {
 public:
  ClipTileStream(DecodeTile decode, const at::Tensor& latents, const VaeTileSizes& sizes,
                 int64_t frames)
      : decode_(std::move(decode)),
        latents_(latents),
        time_ratio_(sizes.frames_unit),
        ratio_(sizes.unit),
        frames_(std::min(frames, latents.size(2) * sizes.frames_unit)),
        times_(
            Stretches(kLatentAxes.t, sizes.min_num_frames, sizes.stride_num_frames, time_ratio_)),
        rows_(Stretches(kLatentAxes.h, sizes.min_height, sizes.stride_height, ratio_)),
        columns_(Stretches(kLatentAxes.w, sizes.min_width, sizes.stride_width, ratio_)) {}

  bool done() const override { return given_ == frames_; }

  at::Tensor NextFrames(const RunContext& context) override {
    if (done()) return {};
    ThrowIfError(context.Advance());
    const size_t in_frame = rows_.size() * columns_.size();
    const TileStretch& time = times_[next_ / in_frame];
    const TileStretch& row = rows_[next_ % in_frame / columns_.size()];
    const TileStretch& column = columns_[next_ % columns_.size()];
    at::Tensor tile = decode_(
        TileSlice(TileSlice(TileSlice(latents_, kLatentAxes.t, time.begin, time.end - time.begin),
                            kLatentAxes.h, row.begin, row.end - row.begin),
                  kLatentAxes.w, column.begin, column.end - column.begin),
        context);
    if (next_ % in_frame == 0) MakeRoom(time.end * time_ratio_, tile.options());
    at::Tensor place = sum_;
    for (const auto& [axis, stretch, ratio, begin] :
         {std::tuple{kFrameAxes.t, time, time_ratio_, given_},
          std::tuple{kFrameAxes.h, row, ratio_, int64_t{0}},
          std::tuple{kFrameAxes.w, column, ratio_, int64_t{0}}}) {
      const int64_t cut = (stretch.from - stretch.begin) * ratio;
      tile = tile.narrow(axis, cut, tile.size(axis) - cut);
      place = place.narrow(axis, stretch.from * ratio - begin, tile.size(axis));
      Fade(tile, axis, stretch.fade_in * ratio, stretch.fade_out * ratio);
    }
    place.add_(tile);
    ++next_;
    if (next_ % in_frame != 0) return {};
    // What no later tile adds to.
    const size_t following = next_ / in_frame;
    const int64_t end =
        following < times_.size() ? times_[following].from * time_ratio_ : sum_.size(0) + given_;
    const int64_t count = std::min(end, frames_) - given_;
    const at::Tensor final_frames = sum_.narrow(0, 0, count);
    sum_ = sum_.narrow(0, count, sum_.size(0) - count);
    given_ += count;
    return final_frames;
  }

 private:
  std::vector<TileStretch> Stretches(int64_t axis, int64_t size, int64_t stride,
                                     int64_t ratio) const {
    return TileStretches(latents_.size(axis), size / ratio, stride / ratio);
  }

  // The sum then reaches to frame `end`.
  void MakeRoom(int64_t end, const at::TensorOptions& options) {
    const int64_t held = sum_.defined() ? sum_.size(0) : 0;
    at::Tensor room = at::zeros({end - given_, latents_.size(kLatentAxes.h) * ratio_,
                                 latents_.size(kLatentAxes.w) * ratio_, 3},
                                options);
    if (held > 0) room.narrow(0, 0, held).copy_(sum_);
    sum_ = std::move(room);
  }

  // In place, in diffusers' order of rounding.
  static void Fade(at::Tensor& tile, int64_t axis, int64_t fade_in, int64_t fade_out) {
    const auto scale = [&](int64_t begin, const at::Tensor& weights) {
      std::vector<int64_t> shape(static_cast<size_t>(tile.dim()), 1);
      shape[static_cast<size_t>(axis)] = weights.size(0);
      tile.narrow(axis, begin, weights.size(0)).mul_(weights.view(shape));
    };
    const auto rising = [&](int64_t count) {
      return at::arange(count, tile.options().dtype(at::kFloat)) / static_cast<double>(count);
    };
    if (fade_in > 0) scale(0, rising(fade_in));
    if (fade_out > 0) scale(tile.size(axis) - fade_out, 1 - rising(fade_out));
  }

  const DecodeTile decode_;
  const at::Tensor latents_;
  const int64_t time_ratio_, ratio_, frames_;
  const std::vector<TileStretch> times_, rows_, columns_;
  size_t next_ = 0;    // tile; columns fastest, times slowest
  int64_t given_ = 0;  // frames
  at::Tensor sum_;     // of tiles, the frames behind those given
};

}  // namespace

std::vector<TileStretch> TileStretches(int64_t length, int64_t size, int64_t stride) {
  TORCH_CHECK(length > 0 && 0 < stride && stride <= size, "tiles of ", size, ", ", stride,
              " apart, over ", length);
  std::vector<TileStretch> stretches = {
      {.begin = 0, .end = std::min(size, length), .from = 0, .fade_in = 0, .fade_out = 0}};
  const int64_t overlap = size - stride;
  while (stretches.back().end < length) {
    TileStretch& before = stretches.back();
    before.fade_out = overlap;
    const int64_t from = before.end - overlap, end = std::min(from + size, length);
    stretches.push_back(
        {.begin = end - size, .end = end, .from = from, .fade_in = overlap, .fade_out = 0});
  }
  return stretches;
}

std::unique_ptr<DecodeStream> DecodeInClipTiles(DecodeTile decode, const at::Tensor& latents,
                                                const VaeTileSizes& sizes, int64_t frames) {
  return std::make_unique<ClipTileStream>(std::move(decode), latents, sizes, frames);
}

}  // namespace kino::engine
