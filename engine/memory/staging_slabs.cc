#include "engine/memory/staging_slabs.h"

#include <algorithm>
#include <utility>

namespace kino::engine {

at::Tensor StagingSlabs::Take(Transport& transport, int64_t bytes) {
  if (bytes <= slab_bytes_) {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!kept_.empty()) {
      at::Tensor slab = std::move(kept_.back());
      kept_.pop_back();
      return slab;
    }
  }
  return transport.AllocateHost(std::max(bytes, slab_bytes_));
}

void StagingSlabs::GiveBack(at::Tensor slab) {
  if (!slab.defined() || slab.numel() != slab_bytes_) return;
  const std::lock_guard<std::mutex> lock(mutex_);
  if (kept_.size() < static_cast<size_t>(kStagingSlabs)) kept_.push_back(std::move(slab));
}

}  // namespace kino::engine
