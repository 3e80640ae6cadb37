#include "engine/nn/frame_chain.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {

void FrameChain::Add(Layer layer, int64_t most, int64_t least, int64_t first) {
  links_.push_back({.layer = std::move(layer), .most = most, .least = least, .first = first});
}

void FrameChain::Push(at::Tensor frames, bool last) {
  links_.front().Give(std::move(frames), last);
}

void FrameChain::Link::Give(at::Tensor fresh, bool last) {
  has_end = last;
  frames += fresh.size(0);
  // No frames at all still have a shape, which the last run needs.
  if (fresh.size(0) > 0 || (last && waiting.empty())) waiting.push_back(std::move(fresh));
}

at::Tensor FrameChain::Link::Take(int64_t count) {
  std::vector<at::Tensor> taken;
  frames -= count;
  do {
    at::Tensor& oldest = waiting.front();
    const int64_t length = std::min(count, oldest.size(0));
    count -= length;
    if (length == oldest.size(0)) {
      taken.push_back(std::move(oldest));
      waiting.pop_front();
    } else {
      taken.push_back(oldest.narrow(0, 0, length));
      oldest = oldest.narrow(0, length, oldest.size(0) - length);
    }
  } while (count > 0);
  return taken.size() == 1 ? std::move(taken[0]) : at::cat(taken);
}

at::Tensor FrameChain::Next(const RunContext& context) {
  for (;;) {
    const auto ready =
        std::find_if(links_.rbegin(), links_.rend(), [](const Link& l) { return l.is_ready(); });
    if (ready == links_.rend()) return {};
    ThrowIfError(context.Advance());
    Link& link = *ready;
    const int64_t first = std::exchange(link.first, 0);
    const int64_t count = std::min(link.frames, first > 0 ? first : link.most);
    const bool last = link.has_end && count == link.frames;
    at::Tensor out = link.layer(link.Take(count), last);
    link.is_done = last;
    if (ready != links_.rbegin()) {
      std::prev(ready)->Give(std::move(out), last);
    } else if (out.size(0) > 0) {
      return out;
    }
  }
}

void FrameChain::Drain(const RunContext& context, std::vector<at::Tensor>& into) {
  for (at::Tensor given = Next(context); given.defined(); given = Next(context))
    into.push_back(std::move(given));
}

at::Tensor FrameQueue::Exchange(const at::Tensor& fresh, int64_t count) {
  const int64_t from_held = std::min(size(), count), from_fresh = count - from_held;
  const at::Tensor newest = fresh.narrow(0, 0, from_fresh);
  at::Tensor taken = from_held == 0 ? newest : at::cat({held_.narrow(0, 0, from_held), newest});
  const at::Tensor rest = fresh.narrow(0, from_fresh, fresh.size(0) - from_fresh);
  // Copies: a view would keep all of `fresh` alive.
  held_ = size() > from_held ? at::cat({held_.narrow(0, from_held, size() - from_held), rest})
                             : rest.clone();
  return taken;
}

}  // namespace kino::engine
