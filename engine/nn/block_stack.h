// Runs the blocks of every transformer. Residency guards, prefetch and the cancel check live here
// and nowhere in a model. One thread at a time; the blocks and their groups are the caller's.
#pragma once

#include <ATen/core/Tensor.h>

#include <utility>
#include <vector>

#include "absl/functional/function_ref.h"
#include "engine/core/run_context.h"
#include "engine/memory/residency.h"

namespace kino::engine {

// What goes from block to block: the video's tokens, and a text's beside them; or the states of
// several prompts. Blocks change them in place or put others there, so that whatever looks between
// blocks (a cache of steps, a tap) sees them here.
using Streams = std::vector<at::Tensor>;

class BlockStack {
 public:
  // `groups`: one per block, in order.
  BlockStack(Residency& residency, std::vector<WeightGroup*> groups) : groups_(std::move(groups)) {
    residency.AddStack(groups_);
  }
  // Calls body(i, streams) for each block in order while its weights are on the device. Throws
  // StatusError when the run is cancelled.
  void Run(const RunContext& context, Streams& streams,
           absl::FunctionRef<void(int block, Streams& streams)> body) const;
  int size() const { return static_cast<int>(groups_.size()); }

 private:
  std::vector<WeightGroup*> groups_;
};

}  // namespace kino::engine
