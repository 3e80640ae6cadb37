// Host memory that weights go through on their way to a device which cannot read their home. Slabs
// of one size are kept for the engine's life, since page-locking one takes longer than a copy out
// of it; the components of an engine take turns with them, so two are kept, as one component uses.
// Thread-safe.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <mutex>
#include <vector>

#include "engine/describe/weight_plan.h"
#include "engine/memory/transport.h"

namespace kino::engine {

class StagingSlabs {
 public:
  explicit StagingSlabs(int64_t slab_bytes = kStagingSlabBytes) : slab_bytes_(slab_bytes) {}
  StagingSlabs(const StagingSlabs&) = delete;
  StagingSlabs& operator=(const StagingSlabs&) = delete;

  int64_t slab_bytes() const { return slab_bytes_; }
  // Of at least so many bytes; one that was given back, or else `transport`'s. uint8.
  at::Tensor Take(Transport& transport, int64_t bytes);
  // Kept for the next that asks. Larger ones than slab_bytes, and more than kStagingSlabs, are
  // freed. REQUIRES: the copies out of it are done.
  void GiveBack(at::Tensor slab);

 private:
  const int64_t slab_bytes_;
  std::mutex mutex_;
  std::vector<at::Tensor> kept_;  // guarded by mutex_
};

}  // namespace kino::engine
