// Layers one behind the other, each of which takes a video a run of frames at a time, in runs of
// its own length.
//
// The layer nearest to the end that has frames to work on goes first, so between layers there is
// never more than one layer gives at a time, and frames leave as soon as they can. One thread.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <vector>

#include "absl/functional/any_invocable.h"
#include "engine/core/run_context.h"

namespace kino::engine {

class FrameChain {
 public:
  // frames: [t, H, W, C] -> [t', H', W', C']; t' may be 0, t only with the last run. Called with
  // the only reference to `frames` where there is one.
  using Layer = absl::AnyInvocable<at::Tensor(at::Tensor frames, bool last)>;

  // The layer waits for `least` frames, but for the end, and takes `most` at a time; the first time
  // `first`, if that is not 0.
  void Add(Layer layer, int64_t most, int64_t least = 1, int64_t first = 0);
  // More of the video, for the first layer. Nothing follows the last.
  void Push(at::Tensor frames, bool last);
  // Works until the last layer gives frames. Undefined: there is nothing to do before the next
  // Push, or all is done. Throws what layers throw, and StatusError when the run is cancelled.
  at::Tensor Next(const RunContext& context);
  // Adds all that it gives before the next Push.
  void Drain(const RunContext& context, std::vector<at::Tensor>& into);
  // The last layer has had its last run.
  bool done() const { return links_.back().is_done; }
  // Frames that the first layer takes at a time.
  int64_t first_run() const { return links_.front().most; }

 private:
  struct Link {
    Layer layer;
    int64_t most;
    int64_t least;
    int64_t first;  // 0: as all others
    std::deque<at::Tensor> waiting = {};
    int64_t frames = 0;  // of those waiting
    bool has_end = false;
    bool is_done = false;

    bool is_ready() const { return !is_done && (has_end || frames >= least); }
    void Give(at::Tensor fresh, bool last);
    at::Tensor Take(int64_t count);
  };
  std::vector<Link> links_;
};

// Frames that wait for a slower branch.
class FrameQueue {
 public:
  int64_t size() const { return held_.defined() ? held_.size(0) : 0; }
  // The oldest `count` frames of those held and `fresh`; the rest is copied and held.
  at::Tensor Exchange(const at::Tensor& fresh, int64_t count);

 private:
  at::Tensor held_;
};

}  // namespace kino::engine
