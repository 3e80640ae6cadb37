#include "engine/models/common/joined_decode.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/linspace.h>

#include <algorithm>
#include <utility>

namespace kino::engine {

JoinedDecode::JoinedDecode(std::unique_ptr<DecodeStream> decode, const Part& part,
                           const at::Tensor& before, at::Tensor* tail)
    : decode_(std::move(decode)), part_(part), before_(before), tail_(tail) {}

at::Tensor JoinedDecode::NextFrames(const RunContext& context) {
  at::Tensor frames = decode_->NextFrames(context);
  if (!frames.defined()) return frames;
  const int64_t first = decoded_, end = first + frames.size(0);
  decoded_ = end;
  if (before_.defined() && first < before_.size(0)) frames = FadeIn(frames, first);
  const auto between = [&](int64_t from, int64_t to) {
    from = std::max(from, first), to = std::min(to, end);
    return from < to ? frames.narrow(0, from - first, to - from) : at::Tensor();
  };
  const int64_t final_end = part_.frames - part_.held;
  if (const at::Tensor held = between(final_end, end); held.defined()) held_.push_back(held);
  if (decode_->done() && tail_ != nullptr) *tail_ = held_.empty() ? at::Tensor() : at::cat(held_);
  return between(part_.dropped, final_end);
}

at::Tensor JoinedDecode::FadeIn(const at::Tensor& frames, int64_t first) const {
  const int64_t count = std::min(frames.size(0), before_.size(0) - first);
  const at::Tensor weights = at::linspace(1, 0, before_.size(0), frames.options())
                                 .narrow(0, first, count)
                                 .view({count, 1, 1, 1});
  const at::Tensor faded =
      weights * before_.narrow(0, first, count) + (1 - weights) * frames.narrow(0, 0, count);
  if (count == frames.size(0)) return faded;
  return at::cat({faded, frames.narrow(0, count, frames.size(0) - count)});
}

}  // namespace kino::engine
