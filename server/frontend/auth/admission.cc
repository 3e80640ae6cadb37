#include "server/frontend/auth/admission.h"

#include <spdlog/spdlog.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::frontend {

Admission::Admission(const config::AuthConfig& auth, const config::LimitsConfig& limits,
                     const scheduler::Clock& clock)
    : auth_(auth),
      rate_(limits.max_tenant_requests_per_second, clock),
      tokens_version_({auth.tokens_file}) {}

absl::StatusOr<std::unique_ptr<Admission>> Admission::Make(const config::AuthConfig& auth,
                                                           const config::LimitsConfig& limits,
                                                           const scheduler::Clock& clock) {
  std::unique_ptr<Admission> admission(new Admission(auth, limits, clock));
  // Before the file is read: what changes meanwhile is found by the next look.
  admission->tokens_version_.HasChanged();
  absl::StatusOr<Credentials> credentials = Credentials::Load(auth);
  if (!credentials.ok()) return credentials.status();
  absl::MutexLock lock(&admission->mutex_);
  admission->credentials_ = std::make_shared<const Credentials>(*std::move(credentials));
  return admission;
}

absl::StatusOr<Caller> Admission::Admit(const CallOrigin& origin, config::Role needed) {
  std::shared_ptr<const Credentials> credentials;
  {
    absl::MutexLock lock(&mutex_);
    credentials = credentials_;
  }
  const absl::StatusOr<Identity> identity = credentials->Identify(origin);
  if (!identity.ok()) return identity.status();
  if (needed == config::Role::kOperate && identity->role != config::Role::kOperate) {
    return scheduler::WithReason(
        absl::PermissionDeniedError(
            "this call is the operator's: it needs a token or a certificate with role 'operate'"),
        "OPERATORS_ONLY");
  }
  if (!rate_.TryTake(identity->tenant)) {
    return scheduler::WithReason(
        absl::ResourceExhaustedError(
            absl::StrCat("tenant '", identity->tenant, "' makes more calls a second than it may")),
        "REQUEST_RATE");
  }
  return Caller{.tenant = identity->tenant,
                .line = credentials->is_required() ? identity->tenant : origin.peer};
}

void Admission::Refresh() {
  if (auth_.tokens_file.empty() || !tokens_version_.HasChanged()) return;
  absl::StatusOr<Credentials> credentials = Credentials::Load(auth_);
  if (!credentials.ok()) {
    spdlog::error("auth.tokens_file: the tokens stay as they were: {}",
                  std::string(credentials.status().message()));
    return;
  }
  spdlog::info("auth.tokens_file has been read anew");
  absl::MutexLock lock(&mutex_);
  credentials_ = std::make_shared<const Credentials>(*std::move(credentials));
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
