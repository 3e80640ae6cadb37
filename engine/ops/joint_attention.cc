#include "engine/ops/joint_attention.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <utility>

#include "engine/ops/attention.h"

namespace kino::engine {

JointLayout::JointLayout(int64_t video, std::vector<int64_t> text)
    : video_(video), text_(std::move(text)) {
  text_begin_.push_back(0);
  for (const int64_t count : text_) {
    TORCH_CHECK(count >= 0 && video > 0, "a row of ", video, " video and ", count, " text tokens");
    text_begin_.push_back(text_begin_.back() + count);
  }
}

TokenSpans JointLayout::TextSpans() const {
  TokenSpans spans;
  for (int64_t row = 0; row < rows(); ++row)
    spans.push_back({.begin = text_begin_[static_cast<size_t>(row)],
                     .end = text_begin_[static_cast<size_t>(row) + 1],
                     .row = row});
  return spans;
}

TokenSpans JointLayout::VideoSpans(int64_t apart) const {
  if (apart == 0) return {{0, video_, 0}};
  return {{0, apart, 1}, {apart, video_, 0}};
}

TokenSpans JointLayout::JoinedSpans(int64_t apart) const {
  TokenSpans spans;
  for (const TokenSpan& text : TextSpans()) {
    const int64_t begin = text.row * video_ + text.begin, end = (text.row + 1) * video_ + text.end;
    if (apart == 0) {
      spans.push_back({begin, end, text.row});
    } else {
      spans.push_back({begin, begin + apart, 2 * text.row + 1});
      spans.push_back({begin + apart, end, 2 * text.row});
    }
  }
  return spans;
}

at::Tensor JointLayout::Join(const at::Tensor& video, const at::Tensor& text) const {
  at::Tensor joined = at::empty({1, tokens(), video.size(2)}, video.options());
  for (int64_t row = 0; row < rows(); ++row) {
    Video(joined, row).copy_(video.narrow(0, row, 1));
    if (text.defined()) Text(joined, row).copy_(PackedText(text, row));
  }
  return joined;
}

at::Tensor JointLayout::Row(const at::Tensor& joined, int64_t row) const {
  const size_t i = static_cast<size_t>(row);
  return joined.narrow(1, row * video_ + text_begin_[i], video_ + text_[i]);
}

at::Tensor JointLayout::Video(const at::Tensor& joined, int64_t row) const {
  return Row(joined, row).narrow(1, 0, video_);
}

at::Tensor JointLayout::Text(const at::Tensor& joined, int64_t row) const {
  return Row(joined, row).narrow(1, video_, text_[static_cast<size_t>(row)]);
}

at::Tensor JointLayout::PackedText(const at::Tensor& packed, int64_t row) const {
  const size_t i = static_cast<size_t>(row);
  return packed.narrow(1, text_begin_[i], text_[i]);
}

JointAttended JointAttention(const JointLayout& layout, const at::Tensor& video_q,
                             const at::Tensor& text_q, const at::Tensor& k, const at::Tensor& v,
                             int64_t heads, bool wants_text) {
  std::vector<at::Tensor> video, text;
  for (int64_t row = 0; row < layout.rows(); ++row) {
    const at::Tensor keys = layout.Row(k, row), values = layout.Row(v, row);
    video.push_back(Attention(video_q.narrow(0, row, 1), keys, values, heads));
    if (!wants_text || layout.text_tokens() == 0) continue;
    const at::Tensor queries = layout.PackedText(text_q, row);
    if (queries.size(1) > 0) text.push_back(Attention(queries, keys, values, heads));
  }
  const auto join = [](const std::vector<at::Tensor>& parts, int64_t axis) {
    if (parts.empty()) return at::Tensor();
    return parts.size() == 1 ? parts[0] : at::cat(parts, axis);
  };
  return {.video = join(video, 0), .text = join(text, 1)};
}

}  // namespace kino::engine
