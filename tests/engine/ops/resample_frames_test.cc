#include "engine/ops/resample_frames.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/avg_pool3d.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/full.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/upsample_nearest3d.h>
#include <gtest/gtest.h>

namespace kino::engine {
namespace {

at::Tensor Video(int64_t frames) {
  return at::randn({frames, 3, 5, 4}, at::make_generator<at::CPUGeneratorImpl>(1),
                   at::TensorOptions());
}
// [T, H, W, C] -> [1, C, T, H, W] and back.
at::Tensor Planes(const at::Tensor& x) { return x.permute({3, 0, 1, 2}).unsqueeze(0).contiguous(); }
at::Tensor Frames(const at::Tensor& x) { return x.squeeze(0).permute({1, 2, 3, 0}); }

TEST(ResampleFramesTest, DoubledIsTorchsNearestButForAFirstFrameAlone) {
  for (const int64_t frames : {1, 2, 3, 5, 8}) {
    const at::Tensor x = Video(frames);
    const auto torchs = [](const at::Tensor& part, int64_t times) {
      return Frames(at::upsample_nearest3d(Planes(part), {part.size(0) * times, 6, 10}));
    };
    EXPECT_TRUE(DoubleNearest(x, false).equal(torchs(x, 1))) << frames;
    const int64_t alone = frames % 2;
    at::Tensor expected =
        torchs(x.narrow(0, 0, frames - alone).size(0) > 0 ? x.narrow(0, alone, frames - alone) : x,
               frames > alone ? 2 : 1);
    if (alone == 1 && frames > 1) expected = at::cat({torchs(x.narrow(0, 0, 1), 1), expected});
    EXPECT_TRUE(DoubleNearest(x, true).equal(expected)) << frames;
  }
}

TEST(ResampleFramesTest, DoubledIntoThePartOfABuffer) {
  const at::Tensor x = Video(5);
  const at::Tensor buffer = at::full({17, 8, 12, 4}, 7.0);
  DoubleNearestInto(x, 3, buffer.narrow(0, 1, 15).narrow(1, 1, 6).narrow(2, 1, 10));
  const at::Tensor expected = Frames(at::upsample_nearest3d(Planes(x), {15, 6, 10}));
  EXPECT_TRUE(buffer.narrow(0, 1, 15).narrow(1, 1, 6).narrow(2, 1, 10).equal(expected));
  for (const int64_t axis : {0, 1, 2}) {
    EXPECT_TRUE((buffer.select(axis, 0) == 7).all().item<bool>());
    EXPECT_TRUE((buffer.select(axis, buffer.size(axis) - 1) == 7).all().item<bool>());
  }
}

TEST(ResampleFramesTest, PairsAreTorchsAveragesButForAFirstFrameAlone) {
  for (const int64_t frames : {1, 2, 3, 8, 9}) {
    const at::Tensor x = Video(frames);
    const int64_t alone = frames % 2;
    at::Tensor expected = x.narrow(0, 0, alone);
    if (frames > 1) {
      const at::Tensor rest = x.narrow(0, alone, frames - alone);
      expected = at::cat({expected, Frames(at::avg_pool3d(Planes(rest), {2, 1, 1}, {2, 1, 1}))});
    }
    EXPECT_TRUE(MeanOfFramePairs(x).equal(expected)) << frames;
  }
}

}  // namespace
}  // namespace kino::engine
