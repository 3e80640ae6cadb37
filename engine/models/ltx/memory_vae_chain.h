// LtxFrameChain (vae_chain.h) on shapes instead of tensors. For memory_vae.cc only. One thread.
#pragma once

#include <algorithm>
#include <deque>
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "engine/models/ltx/memory_vae_layers.h"

namespace kino::engine {

class LtxWalkChain {
 public:
  using Layer = std::function<LtxWalkFrames(LtxWalkFrames frames, bool last)>;

  explicit LtxWalkChain(LtxWalk& walk) : walk_(&walk) {}

  void Add(Layer layer, int64_t most, int64_t least = 1) {
    stages_.push_back({.layer = std::move(layer), .most = most, .least = least, .waiting = {}});
  }
  void Push(LtxWalkFrames frames, bool last) { stages_.front().Give(std::move(frames), last); }
  bool done() const { return stages_.back().is_done; }
  int64_t first_run() const { return stages_.front().most; }

  // Nothing (t = 0): no more before the next Push.
  LtxWalkFrames Next() {
    for (;;) {
      const auto ready = std::find_if(stages_.rbegin(), stages_.rend(), [](const Stage& stage) {
        return !stage.is_done && (stage.has_end || stage.frames >= stage.least);
      });
      if (ready == stages_.rend()) return {};
      Stage& stage = *ready;
      const int64_t count = std::min(stage.frames, stage.most);
      const bool last = stage.has_end && count == stage.frames;
      LtxWalkFrames out = stage.layer(stage.Take(*walk_, count), last);
      stage.is_done = last;
      if (ready != stages_.rbegin()) {
        std::prev(ready)->Give(std::move(out), last);
      } else if (out.t > 0) {
        return out;
      }
    }
  }

 private:
  struct Stage {
    Layer layer;
    int64_t most = 1, least = 1;
    std::deque<LtxWalkFrames> waiting;
    int64_t frames = 0;
    bool has_end = false, is_done = false;

    void Give(LtxWalkFrames fresh, bool last) {
      has_end = last;
      frames += fresh.t;
      if (fresh.t > 0 || (last && waiting.empty())) waiting.push_back(std::move(fresh));
    }
    LtxWalkFrames Take(LtxWalk& walk, int64_t count) {
      const int64_t wanted = count;
      std::vector<LtxWalkFrames> taken;
      frames -= count;
      do {
        LtxWalkFrames& oldest = waiting.front();
        taken.push_back(oldest);
        taken.back().t = std::min(count, oldest.t);
        count -= taken.back().t;
        oldest.t -= taken.back().t;
        if (oldest.t == 0) waiting.pop_front();
      } while (count > 0);
      if (taken.size() == 1) return std::move(taken[0]);
      return MakeLtxWalkFrames(walk, wanted, taken[0].h, taken[0].w, taken[0].c);
    }
  };

  LtxWalk* walk_;
  std::vector<Stage> stages_;
};

// A layer of a chain with its own state.
template <typename L, typename S>
LtxWalkChain::Layer WithLtxWalkState(LtxWalk& walk, const L& layer, S state) {
  // std::function wants to be copied.
  return [&walk, &layer, held = std::make_shared<S>(std::move(state))](LtxWalkFrames frames,
                                                                       bool last) {
    return layer.Push(walk, *held, std::move(frames), last);
  };
}

}  // namespace kino::engine
