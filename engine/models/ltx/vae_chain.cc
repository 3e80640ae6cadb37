#include "engine/models/ltx/vae_chain.h"

#include <ATen/ops/cat.h>

#include <algorithm>
#include <utility>

#include "engine/core/status_bridge.h"

namespace kino::engine {

void LtxFrameChain::Add(Layer layer, int64_t most, int64_t least) {
  stages_.push_back({.layer = std::move(layer), .most = most, .least = least});
}

void LtxFrameChain::Push(at::Tensor frames, bool last) {
  stages_.front().Give(std::move(frames), last);
}

void LtxFrameChain::Stage::Give(at::Tensor fresh, bool last) {
  has_end = last;
  frames += fresh.size(0);
  // No frames at all still have a shape, which the last run needs.
  if (fresh.size(0) > 0 || (last && waiting.empty())) waiting.push_back(std::move(fresh));
}

at::Tensor LtxFrameChain::Stage::Take(int64_t count) {
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

at::Tensor LtxFrameChain::Next(const RunContext& context) {
  for (;;) {
    const auto ready =
        std::find_if(stages_.rbegin(), stages_.rend(), [](const Stage& s) { return s.is_ready(); });
    if (ready == stages_.rend()) return {};
    ThrowIfError(context.Advance());
    Stage& stage = *ready;
    const int64_t count = std::min(stage.frames, stage.most);
    const bool last = stage.has_end && count == stage.frames;
    at::Tensor out = stage.layer(stage.Take(count), last);
    stage.is_done = last;
    if (ready != stages_.rbegin()) {
      std::prev(ready)->Give(std::move(out), last);
    } else if (out.size(0) > 0) {
      return out;
    }
  }
}

}  // namespace kino::engine
