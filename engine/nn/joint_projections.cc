#include "engine/nn/joint_projections.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>

#include <utility>
#include <vector>

#include "engine/ops/attention.h"

namespace kino::engine {

JointProjections::JointProjections(const WeightScope& attention, Names names,
                                   const Options& options) {
  const bool is_own = names == Names::kOwn;
  const auto linear = [&](const char* own, const char* added) {
    return attention.Linear(is_own ? own : added, options.in, options.width, options.bias);
  };
  q = linear("to_q", "add_q_proj");
  k = linear("to_k", "add_k_proj");
  v = linear("to_v", "add_v_proj");
  norm_q = attention.Get(is_own ? "norm_q.weight" : "norm_added_q.weight", {options.head});
  norm_k = attention.Get(is_own ? "norm_k.weight" : "norm_added_k.weight", {options.head});
}

JointAttended AttendJointly(const JointLayout& layout, const JointProjections& of_video,
                            at::Tensor video, const JointProjections& of_text, at::Tensor text,
                            const RotaryTable& rotary, const JointAttentionOptions& options) {
  const double eps = options.norm_eps;
  at::Tensor q = of_video.q.Apply(video);
  q = NormRotary(std::move(q), of_video.norm_q.get(), eps, rotary);
  at::Tensor k = at::empty({1, layout.tokens(), q.size(2)}, q.options());
  at::Tensor v = at::empty_like(k);
  {
    const at::Tensor keys = of_video.k.Apply(video);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      NormRotaryInto(keys.narrow(0, row, 1), of_video.norm_k.get(), eps, rotary,
                     layout.Video(k, row));
    }
  }
  {
    const at::Tensor values = of_video.v.Apply(video);
    for (int64_t row = 0; row < layout.rows(); ++row)
      layout.Video(v, row).copy_(values.narrow(0, row, 1));
  }
  video.reset();
  at::Tensor text_q;
  if (text.defined()) {
    at::Tensor keys = of_text.k.Apply(text);
    keys = NormRotary(std::move(keys), of_text.norm_k.get(), eps);
    const at::Tensor values = of_text.v.Apply(text);
    for (int64_t row = 0; row < layout.rows(); ++row) {
      layout.Text(k, row).copy_(layout.PackedText(keys, row));
      layout.Text(v, row).copy_(layout.PackedText(values, row));
    }
    if (options.wants_text) {
      text_q = of_text.q.Apply(text);
      text_q = NormRotary(std::move(text_q), of_text.norm_q.get(), eps);
    }
    text.reset();
  }
  return JointAttention(layout, q, text_q, k, v, options.heads, options.wants_text);
}

at::Tensor AttendJoined(const JointLayout& layout, const JointProjections& projections,
                        const at::Tensor& normed, const RotaryTable& rotary,
                        const JointAttentionOptions& options) {
  at::Tensor q = projections.q.Apply(normed);
  q = NormRotary(std::move(q), projections.norm_q.get(), options.norm_eps, rotary);
  at::Tensor k = projections.k.Apply(normed);
  k = NormRotary(std::move(k), projections.norm_k.get(), options.norm_eps, rotary);
  at::Tensor v = projections.v.Apply(normed);
  std::vector<at::Tensor> rows;
  for (int64_t row = 0; row < layout.rows(); ++row) {
    rows.push_back(
        Attention(layout.Row(q, row), layout.Row(k, row), layout.Row(v, row), options.heads));
  }
  for (at::Tensor* used : {&q, &k, &v}) used->reset();
  return rows.size() == 1 ? rows[0] : at::cat(rows, 1);
}

}  // namespace kino::engine
