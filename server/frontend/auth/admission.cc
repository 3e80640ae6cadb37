#include "server/frontend/auth/admission.h"

#include <utility>

namespace kino::frontend {

absl::StatusOr<Caller> Admission::Admit(const CallOrigin& origin) const {
  absl::StatusOr<std::string> tenant = tokens_.Authenticate(origin.authorization);
  if (!tenant.ok()) return tenant.status();
  return Caller{.tenant = *tenant, .line = tokens_.is_required() ? *tenant : origin.peer};
}

std::shared_ptr<void> Places::TryTake(const std::string& caller) {
  {
    absl::MutexLock lock(&mutex_);
    if (taken_ >= total_) return nullptr;
    const auto mine = taken_by_.try_emplace(caller, 0).first;
    if (mine->second >= per_caller_) return nullptr;
    ++mine->second;
    ++taken_;
  }
  // Any address but null: what counts is the deleter.
  return {static_cast<void*>(this), [this, caller](void*) { GiveBack(caller); }};
}

void Places::GiveBack(const std::string& caller) {
  absl::MutexLock lock(&mutex_);
  --taken_;
  const auto mine = taken_by_.find(caller);
  if (--mine->second == 0) taken_by_.erase(mine);
}

}  // namespace kino::frontend
