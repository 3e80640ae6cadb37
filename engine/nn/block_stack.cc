#include "engine/nn/block_stack.h"

#include "engine/core/status_bridge.h"

namespace kino::engine {

void BlockStack::Run(const RunContext& context, absl::FunctionRef<void(int block)> body) const {
  for (int block = 0; block < stream_->size(); ++block) {
    ThrowIfError(context.Advance());
    const WeightStream::Guard guard = stream_->Enter(block);
    body(block);
  }
}

}  // namespace kino::engine
