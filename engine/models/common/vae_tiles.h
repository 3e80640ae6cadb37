// Overlapping tiles of a video, decoded or encoded by themselves and blended along straight lines,
// as diffusers' VAEs tile (tiled_decode, tiled_encode, blend_v, blend_h, blend_t). It changes the
// picture slightly; a decode by runs of frames is exact and needs tiles only where one frame is too
// large for the device. One thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/core/run_context.h"
#include "engine/describe/vae_tile_sizes.h"
#include "engine/nn/frame_chain.h"

namespace kino::engine {

// Axes of a tensor that is tiled.
struct TileAxes {
  int64_t t, h, w;
};
inline constexpr TileAxes kFrameAxes = {.t = 0, .h = 1, .w = 2};   // frames [T, H, W, C]
inline constexpr TileAxes kLatentAxes = {.t = 2, .h = 3, .w = 4};  // latents [1, C, F, h, w]

// b[i] = a[i - extent] * (1 - i / extent) + b[i] * (i / extent) along `axis`, in place, for the
// first `extent` lines of b, in diffusers' order of rounding.
void BlendTiles(const at::Tensor& a, at::Tensor& b, int64_t axis, int64_t extent);

// x[begin : begin + count] along `axis`, cut at the end.
at::Tensor TileSlice(const at::Tensor& x, int64_t axis, int64_t begin, int64_t count);

// Blends each tile with the one above and the one to the left, as they are after their own
// blending, and joins the tiles' first strides; the result is cut to height x width. Uses up the
// tiles.
at::Tensor JoinTiles(std::vector<std::vector<at::Tensor>>& rows, const TileGrid& grid,
                     const TileAxes& axes, int64_t height, int64_t width);

// The moments, [1, 2 * C, F, h, w], of a part of a video's pixels.
using EncodePart =
    absl::FunctionRef<at::Tensor(int64_t y, int64_t height, int64_t x, int64_t width)>;
// Of a whole video of height x width pixels, `ratio` of them a latent, in tiles if one does not
// hold it. pixels: where they lie in the video; latents: how they are joined. Throws StatusError
// INVALID_ARGUMENT: the tiles give more or fewer latents than the video has.
at::Tensor EncodeInTiles(EncodePart encode, int64_t height, int64_t width, const TileGrid& pixels,
                         const TileGrid& latents, int64_t ratio,
                         PartLatent part = PartLatent::kNothing);

// A decode driven from outside. The VAE outlives it.
class DecodeStream {
 public:
  virtual ~DecodeStream() = default;
  virtual bool done() const = 0;
  // Decodes until some frames are final: [t, H, W, 3] in about -1..1, not clamped, and not to be
  // written to. Undefined when none is left, or (tiles in time) not yet. Throws what torch throws,
  // and StatusError when the run is cancelled.
  virtual at::Tensor NextFrames(const RunContext& context) = 0;
  // As NextFrames, but [1, 3, t, H, W], channels last in memory.
  at::Tensor Next(const RunContext& context);
};

// Of a whole video of so many frames, `ratio` of them a latent frame but for the first, which is
// one by itself: the moments of its tiles, each with a frame in front whose latent frame is that of
// the one before, joined along straight lines (diffusers' _temporal_tiled_encode). `encode` gives
// [1, 2 * C, f, h, w]. A video that one tile holds is encoded whole. Throws StatusError
// INVALID_ARGUMENT: the tiles give fewer latent frames than the video has.
using EncodeFrames = absl::FunctionRef<at::Tensor(int64_t first, int64_t count)>;
at::Tensor EncodeInTimeTiles(EncodeFrames encode, int64_t frames,
                             const std::optional<TimeTiles>& tiles, int64_t ratio);

// A tile's latents are decoded to a frame more than it counts for: which one all tiles but the
// first leave out.
enum class SurplusFrame { kFirst, kLast };
// The same for a decode (_temporal_tiled_decode): `begin` decodes some of the latents, [1, C, F, h,
// w], as a video of its own. One tile is at work at a time; its frames are final once it is joined
// to the one before.
using BeginClip = std::function<std::unique_ptr<DecodeStream>(const at::Tensor& latents)>;
std::unique_ptr<DecodeStream> DecodeInTimeTiles(BeginClip begin, const at::Tensor& latents,
                                                const std::optional<TimeTiles>& tiles,
                                                int64_t ratio, SurplusFrame surplus);

// Makes a decoder's layers for frames of height x width latents. Runs are cut for frames of
// `run_positions` latents: tiles that advance together need the same.
using BeginDecode = std::function<FrameChain(int64_t height, int64_t width, int64_t run_positions)>;

// latents: [1, C, F, h, w], denormalised, in the weights' dtype. Tiles in space, where there are
// any and one does not hold the whole frame, advance through time together and are blended frame by
// frame, so that memory does not grow with the video. `grid` is in pixels, `ratio` of them a
// latent.
std::unique_ptr<DecodeStream> DecodeInTiles(const BeginDecode& begin, const at::Tensor& latents,
                                            const std::optional<TileGrid>& grid, int64_t ratio);

}  // namespace kino::engine
