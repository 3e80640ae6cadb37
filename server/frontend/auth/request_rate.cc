#include "server/frontend/auth/request_rate.h"

#include <algorithm>

namespace kino::frontend {

bool RequestRate::TryTake(const std::string& tenant) {
  if (per_second_ == 0) return true;
  const absl::Duration now = clock_.Monotonic();
  const auto full = static_cast<double>(per_second_);
  absl::MutexLock lock(&mutex_);
  Bucket& bucket =
      buckets_.try_emplace(tenant, Bucket{.left = full, .filled_at = now}).first->second;
  bucket.left = std::min(full, bucket.left + full * absl::ToDoubleSeconds(now - bucket.filled_at));
  bucket.filled_at = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}

}  // namespace kino::frontend
