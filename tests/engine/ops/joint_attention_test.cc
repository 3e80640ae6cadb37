#include "engine/ops/joint_attention.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/softmax.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace kino::engine {
namespace {

at::Tensor Random(at::IntArrayRef shape, uint64_t seed) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(seed), at::TensorOptions());
}

// Attention written out, one head at a time.
at::Tensor Plain(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t heads) {
  const int64_t head = q.size(2) / heads;
  std::vector<at::Tensor> out;
  for (int64_t i = 0; i < heads; ++i) {
    const auto of = [&](const at::Tensor& x) { return x.narrow(2, i * head, head); };
    const at::Tensor scores =
        of(q).matmul(of(k).transpose(1, 2)) / std::sqrt(static_cast<double>(head));
    out.push_back(at::softmax(scores, 2).matmul(of(v)));
  }
  return at::cat(out, 2);
}

constexpr int64_t kVideo = 7, kHeads = 2, kWidth = 8;

TEST(JointAttentionTest, EachRowSeesItsVideoAndItsText) {
  for (const std::vector<int64_t>& text : {std::vector<int64_t>{3, 5}, {0, 4}, {4, 0}, {2}}) {
    const JointLayout layout(kVideo, text);
    const int64_t rows = layout.rows();
    const at::Tensor video_q = Random({rows, kVideo, kWidth}, 1);
    const at::Tensor text_q = Random({1, layout.text_tokens(), kWidth}, 2);
    const at::Tensor k = Random({1, layout.tokens(), kWidth}, 3);
    const at::Tensor v = Random({1, layout.tokens(), kWidth}, 4);
    const JointAttended got = JointAttention(layout, video_q, text_q, k, v, kHeads, true);
    int64_t token = 0, text_token = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t count = text[static_cast<size_t>(row)];
      const at::Tensor keys = k.narrow(1, token, kVideo + count);
      const at::Tensor values = v.narrow(1, token, kVideo + count);
      const at::Tensor video = Plain(video_q.narrow(0, row, 1), keys, values, kHeads);
      EXPECT_LT((got.video.narrow(0, row, 1) - video).abs().max().item<float>(), 1e-6);
      if (count > 0) {
        const at::Tensor expected =
            Plain(text_q.narrow(1, text_token, count), keys, values, kHeads);
        EXPECT_LT((got.text.narrow(1, text_token, count) - expected).abs().max().item<float>(),
                  1e-6);
      }
      token += kVideo + count;
      text_token += count;
    }
    EXPECT_EQ(got.text.size(1), text_token);
  }
}

TEST(JointAttentionTest, WithoutTextTheVideoAttendsToItself) {
  const JointLayout layout(kVideo, {0, 0});
  EXPECT_EQ(layout.tokens(), 2 * kVideo);
  const at::Tensor q = Random({2, kVideo, kWidth}, 1);
  const at::Tensor k = Random({1, layout.tokens(), kWidth}, 3);
  const JointAttended got =
      JointAttention(layout, q, at::empty({1, 0, kWidth}), k, k, kHeads, true);
  EXPECT_FALSE(got.text.defined());
  const at::Tensor keys = k.view({2, kVideo, kWidth});
  EXPECT_LT((got.video - Plain(q, keys, keys, kHeads)).abs().max().item<float>(), 1e-6);
}

TEST(JointAttentionTest, ALastBlockLeavesTheTextOut) {
  const JointLayout layout(kVideo, {3});
  const at::Tensor q = Random({1, kVideo, kWidth}, 1);
  const at::Tensor k = Random({1, layout.tokens(), kWidth}, 3);
  EXPECT_FALSE(JointAttention(layout, q, {}, k, k, kHeads, false).text.defined());
}

TEST(JointLayoutTest, PartsOfARowAreViewsOfIt) {
  const JointLayout layout(kVideo, {3, 0, 2});
  const at::Tensor joined = Random({1, layout.tokens(), kWidth}, 1);
  EXPECT_EQ(layout.tokens(), 3 * kVideo + 5);
  EXPECT_TRUE(layout.Video(joined, 2).is_alias_of(joined));
  EXPECT_TRUE(layout.Video(joined, 1).equal(joined.narrow(1, kVideo + 3, kVideo)));
  EXPECT_TRUE(layout.Text(joined, 2).equal(joined.narrow(1, 3 * kVideo + 3, 2)));
  EXPECT_EQ(layout.Text(joined, 1).size(1), 0);
  const TokenSpans spans = layout.TextSpans();
  ASSERT_EQ(spans.size(), 3u);
  EXPECT_EQ(spans[2].begin, 3);
  EXPECT_EQ(spans[2].end, 5);
  EXPECT_EQ(spans[2].row, 2);
}

TEST(JointLayoutTest, JoinsEachRowsVideoAndText) {
  const JointLayout layout(kVideo, {3, 0, 2});
  const at::Tensor video = Random({3, kVideo, kWidth}, 1), text = Random({1, 5, kWidth}, 2);
  const at::Tensor joined = layout.Join(video, text);
  EXPECT_TRUE(
      joined.equal(at::cat({video.narrow(0, 0, 1), text.narrow(1, 0, 3), video.narrow(0, 1, 1),
                            video.narrow(0, 2, 1), text.narrow(1, 3, 2)},
                           1)));
  EXPECT_TRUE(JointLayout(kVideo, {0, 0, 0}).Join(video, {}).equal(video.view({1, -1, kWidth})));
}

// {begin, end, row} of each.
std::vector<std::vector<int64_t>> Listed(const TokenSpans& spans) {
  std::vector<std::vector<int64_t>> listed;
  for (const TokenSpan& span : spans) listed.push_back({span.begin, span.end, span.row});
  return listed;
}

TEST(JointLayoutTest, SpansOfVideoAndOfJoinedTokensMaySetTheFirstApart) {
  const JointLayout layout(kVideo, {3, 0});
  using Spans = std::vector<std::vector<int64_t>>;
  EXPECT_EQ(Listed(layout.VideoSpans()), (Spans{{0, 7, 0}}));
  EXPECT_EQ(Listed(layout.VideoSpans(2)), (Spans{{0, 2, 1}, {2, 7, 0}}));
  EXPECT_EQ(Listed(layout.JoinedSpans()), (Spans{{0, 10, 0}, {10, 17, 1}}));
  EXPECT_EQ(Listed(layout.JoinedSpans(2)),
            (Spans{{0, 2, 1}, {2, 10, 0}, {10, 12, 3}, {12, 17, 2}}));
}

TEST(JointLayoutTest, RowsWithoutVideoAreRefused) {
  EXPECT_THROW(JointLayout(0, {3}), c10::Error);
  EXPECT_THROW(JointLayout(4, {-1}), c10::Error);
}

}  // namespace
}  // namespace kino::engine
