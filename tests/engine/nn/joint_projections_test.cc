#include "engine/nn/joint_projections.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/linear.h>

#include "absl/strings/str_cat.h"
#include "engine/ops/attention.h"
#include "tests/engine/nn/layer_weights.h"

namespace kino::engine {
namespace {

constexpr int64_t kVideo = 5, kHeads = 2, kHead = 4, kWidth = kHeads * kHead;
constexpr double kEps = 1e-5;
// Of float32 sums, in another order.
constexpr double kTolerance = 1e-5;

// Video of kWidth and text of `text`, as their layers are named in a block's attention.
class Projections {
 public:
  Projections(int64_t text, bool bias)
      : bias_(bias), weights_(Shapes(text, bias)), layers_(weights_.Load([&](const auto& scope) {
          return std::pair(
              JointProjections(scope, JointProjections::Names::kOwn,
                               {.in = kWidth, .width = kWidth, .head = kHead, .bias = bias}),
              JointProjections(scope, JointProjections::Names::kAdded,
                               {.in = text, .width = kWidth, .head = kHead, .bias = bias}));
        })) {}

  const JointProjections& video() const { return layers_.first; }
  const JointProjections& text() const { return layers_.second; }
  at::Tensor Linear(const std::string& layer, const at::Tensor& x) const {
    return at::linear(x, weights_.Get(layer + ".weight"),
                      bias_ ? weights_.Get(layer + ".bias") : at::Tensor());
  }
  at::Tensor Normed(const std::string& layer, const std::string& norm, const at::Tensor& x,
                    const RotaryTable& rotary = {}) const {
    return NormRotaryComposed(Linear(layer, x), weights_.Get(norm + ".weight"), kEps, rotary);
  }

 private:
  static std::map<std::string, std::vector<int64_t>> Shapes(int64_t text, bool bias) {
    std::map<std::string, std::vector<int64_t>> shapes;
    for (const char* part : {"q", "k", "v"}) {
      for (const auto& [name, in] : {std::pair(absl::StrCat("to_", part), kWidth),
                                     std::pair(absl::StrCat("add_", part, "_proj"), text)}) {
        shapes[name + ".weight"] = {kWidth, in};
        if (bias) shapes[name + ".bias"] = {kWidth};
      }
    }
    for (const char* norm : {"norm_q", "norm_k", "norm_added_q", "norm_added_k"})
      shapes[absl::StrCat(norm, ".weight")] = {kHead};
    return shapes;
  }

  bool bias_;
  LayerWeights weights_;
  std::pair<JointProjections, JointProjections> layers_;
};

RotaryTable Rotary(int64_t tokens) {
  const at::Tensor angles = Random({tokens, kHead / 2}, 7);
  return {.cos = angles.cos(), .sin = angles.sin()};
}

TEST(JointProjectionsTest, EachRowsStreamsAttendToBoth) {
  const RotaryTable rotary = Rotary(kVideo);
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{3, 2}, {0, 4}, {3}, {0}}) {
    for (const bool wants_text : {true, false}) {
      constexpr int64_t kText = 6;
      const Projections layers(kText, /*bias=*/wants_text);
      const JointLayout layout(kVideo, lengths);
      const at::Tensor video = Random({layout.rows(), kVideo, kWidth}, 1);
      const at::Tensor text =
          layout.text_tokens() > 0 ? Random({1, layout.text_tokens(), kText}, 2) : at::Tensor();
      const JointAttended got =
          AttendJointly(layout, layers.video(), video, layers.text(), text, rotary,
                        {.heads = kHeads, .norm_eps = kEps, .wants_text = wants_text});
      EXPECT_EQ(got.text.defined(), wants_text && text.defined());
      for (int64_t row = 0; row < layout.rows(); ++row) {
        const at::Tensor own = video.narrow(0, row, 1);
        const at::Tensor q = layers.Normed("to_q", "norm_q", own, rotary);
        at::Tensor k = layers.Normed("to_k", "norm_k", own, rotary), v = layers.Linear("to_v", own);
        at::Tensor added;
        if (lengths[static_cast<size_t>(row)] > 0) {
          added = layout.PackedText(text, row);
          k = at::cat({k, layers.Normed("add_k_proj", "norm_added_k", added)}, 1);
          v = at::cat({v, layers.Linear("add_v_proj", added)}, 1);
        }
        EXPECT_LT(MaxError(got.video.narrow(0, row, 1), Attention(q, k, v, kHeads)), kTolerance);
        if (!added.defined() || !wants_text) continue;
        EXPECT_LT(
            MaxError(layout.PackedText(got.text, row),
                     Attention(layers.Normed("add_q_proj", "norm_added_q", added), k, v, kHeads)),
            kTolerance);
      }
    }
  }
}

TEST(JointProjectionsTest, JoinedTokensAttendToThoseOfTheirRow) {
  for (const std::vector<int64_t>& lengths : {std::vector<int64_t>{3, 0, 2}, {4}}) {
    const Projections layers(kWidth, /*bias=*/true);
    const JointLayout layout(kVideo, lengths);
    const RotaryTable rotary = Rotary(layout.tokens());
    const at::Tensor joined = Random({1, layout.tokens(), kWidth}, 3);
    const at::Tensor got =
        AttendJoined(layout, layers.video(), joined, rotary, {.heads = kHeads, .norm_eps = kEps});
    const at::Tensor q = layers.Normed("to_q", "norm_q", joined, rotary),
                     k = layers.Normed("to_k", "norm_k", joined, rotary),
                     v = layers.Linear("to_v", joined);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      EXPECT_LT(MaxError(layout.Row(got, row), Attention(layout.Row(q, row), layout.Row(k, row),
                                                         layout.Row(v, row), kHeads)),
                kTolerance);
    }
  }
}

}  // namespace
}  // namespace kino::engine
