#include "engine/models/common/joined_decode.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/equal.h>
#include <ATen/ops/linspace.h>
#include <ATen/ops/randn.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

namespace kino::engine {
namespace {

// Frames that are there already, so many at a time; before each piece nothing is final once.
class Given final : public DecodeStream {
 public:
  Given(at::Tensor frames, int64_t piece) : frames_(std::move(frames)), piece_(piece) {}
  bool done() const override { return next_ == frames_.size(0); }
  at::Tensor NextFrames(const RunContext&) override {
    is_waiting_ = !is_waiting_;
    if (is_waiting_) return {};
    const int64_t count = std::min(piece_, frames_.size(0) - next_);
    next_ += count;
    return frames_.narrow(0, next_ - count, count);
  }

 private:
  const at::Tensor frames_;
  const int64_t piece_;
  int64_t next_ = 0;
  bool is_waiting_ = false;
};

at::Tensor All(DecodeStream& stream) {
  std::vector<at::Tensor> frames;
  while (!stream.done()) {
    const at::Tensor next = stream.NextFrames({});
    if (next.defined()) frames.push_back(next);
  }
  return at::cat(frames);
}

// diffusers' _soft_append.
at::Tensor SoftAppend(const at::Tensor& history, const at::Tensor& current, int64_t overlap) {
  const at::Tensor weights = at::linspace(1, 0, overlap).view({overlap, 1, 1, 1});
  const int64_t kept = history.size(0) - overlap;
  const at::Tensor blended =
      weights * history.narrow(0, kept, overlap) + (1 - weights) * current.narrow(0, 0, overlap);
  return at::cat(
      {history.narrow(0, 0, kept), blended, current.narrow(0, overlap, current.size(0) - overlap)});
}

TEST(JoinedDecodeTest, PartsFadeIntoEachOtherHoweverTheyAreDecoded) {
  constexpr int64_t kOverlap = 5;
  const std::vector<at::Tensor> parts = {at::randn({13, 2, 3, 3}), at::randn({13, 2, 3, 3}),
                                         at::randn({10, 2, 3, 3}), at::randn({5, 2, 3, 3})};
  at::Tensor expected = parts[0];
  for (size_t i = 1; i < parts.size(); ++i) expected = SoftAppend(expected, parts[i], kOverlap);
  for (const int64_t piece : {1, 3, 4, 5, 100}) {
    at::Tensor tail;
    std::vector<at::Tensor> frames;
    for (size_t i = 0; i < parts.size(); ++i) {
      const bool is_last = i + 1 == parts.size();
      JoinedDecode joined(std::make_unique<Given>(parts[i], piece),
                          {.frames = parts[i].size(0), .held = is_last ? 0 : kOverlap}, tail,
                          &tail);
      frames.push_back(All(joined));
      EXPECT_EQ(frames.back().size(0), parts[i].size(0) - (is_last ? 0 : kOverlap));
      EXPECT_EQ(tail.defined(), !is_last);
    }
    const at::Tensor joined = at::cat(frames);
    ASSERT_EQ(joined.sizes(), expected.sizes()) << piece << " frames at a time";
    EXPECT_TRUE(at::equal(joined, expected)) << piece << " frames at a time";
  }
}

TEST(JoinedDecodeTest, DropsItsFirstFrames) {
  const at::Tensor frames = at::randn({9, 2, 2, 3});
  for (const int64_t piece : {1, 3, 4, 9}) {
    JoinedDecode joined(std::make_unique<Given>(frames, piece), {.frames = 9, .dropped = 4}, {},
                        nullptr);
    EXPECT_TRUE(at::equal(All(joined), frames.narrow(0, 4, 5))) << piece << " frames at a time";
  }
}

}  // namespace
}  // namespace kino::engine
