#include "server/frontend/rpc/idle_uploads.h"

#include <algorithm>

namespace kino::frontend {
namespace {

constexpr absl::Duration kLongestInterval = absl::Seconds(1);

}  // namespace

absl::Duration IdleUploads::LookInterval() const { return std::min(limit_ / 4, kLongestInterval); }

void IdleUploads::Add(const std::shared_ptr<SilentParty>& party) {
  absl::MutexLock lock(&mutex_);
  parties_.push_back(party);
}

absl::Duration IdleUploads::Now() const {
  absl::MutexLock lock(&mutex_);
  return clock_.Monotonic() - stood_still_;
}

void IdleUploads::Look() {
  std::vector<std::shared_ptr<SilentParty>> looked_at;
  absl::Duration now;
  {
    absl::MutexLock lock(&mutex_);
    // A look that comes late by more than one interval: nobody read meanwhile.
    const absl::Duration passed = clock_.Monotonic() - last_look_;
    if (passed > 2 * LookInterval()) stood_still_ += passed - LookInterval();
    last_look_ += passed;
    now = last_look_ - stood_still_;
    for (const std::weak_ptr<SilentParty>& party : parties_) {
      if (auto alive = party.lock()) looked_at.push_back(std::move(alive));
    }
    parties_.assign(looked_at.begin(), looked_at.end());
  }
  for (const auto& party : looked_at) party->EndIfSilent(limit_, now);
}

}  // namespace kino::frontend
