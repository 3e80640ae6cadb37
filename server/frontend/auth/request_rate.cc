#include "server/frontend/auth/request_rate.h"

#include <algorithm>

namespace kino::frontend {

bool RequestRate::TryTake(const std::string& caller) {
  if (per_second_ == 0) return true;
  const absl::Duration now = clock_.Monotonic();
  const auto full = static_cast<double>(per_second_);
  absl::MutexLock lock(&mutex_);
  if (buckets_.size() >= sweep_at_) {
    // A full bucket says no more than none.
    std::erase_if(buckets_, [&](const auto& entry) {
      return now - entry.second.filled_at >= absl::Seconds(1);
    });
    sweep_at_ = std::max(kLeastSweep, 2 * buckets_.size());
  }
  Bucket& bucket =
      buckets_.try_emplace(caller, Bucket{.left = full, .filled_at = now}).first->second;
  bucket.left = std::min(full, bucket.left + full * absl::ToDoubleSeconds(now - bucket.filled_at));
  bucket.filled_at = now;
  if (bucket.left < 1) return false;
  bucket.left -= 1;
  return true;
}

}  // namespace kino::frontend
