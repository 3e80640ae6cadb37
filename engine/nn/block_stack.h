// Runs the blocks of every transformer. Residency guards, prefetch and the cancel check live here
// and nowhere in a model. One thread at a time; the blocks and their groups are the caller's.
#pragma once

#include "absl/functional/function_ref.h"
#include "engine/core/run_context.h"
#include "engine/memory/residency.h"

namespace kino::engine {

class BlockStack {
 public:
  // `groups`: one per block, in order.
  BlockStack(Residency& residency, std::vector<WeightGroup*> groups) : groups_(std::move(groups)) {
    residency.AddStack(groups_);
  }
  // Calls body(i) for each block in order while its weights are on the device. Throws StatusError
  // when the run is cancelled.
  void Run(const RunContext& context, absl::FunctionRef<void(int block)> body) const;
  int size() const { return static_cast<int>(groups_.size()); }

 private:
  std::vector<WeightGroup*> groups_;
};

}  // namespace kino::engine
