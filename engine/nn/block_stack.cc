#include "engine/nn/block_stack.h"

#include "engine/core/status_bridge.h"

namespace kino::engine {

void BlockStack::Run(const RunContext& context, Streams& streams,
                     absl::FunctionRef<void(int block, Streams& streams)> body) const {
  for (int block = 0; block < size(); ++block) {
    ThrowIfError(context.Advance());
    const UnitPin pin(groups_[static_cast<size_t>(block)]->unit());
    body(block, streams);
  }
}

}  // namespace kino::engine
