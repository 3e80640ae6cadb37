// The one gate in front of every call, whatever protocol it came by: whose call it is, whether that
// caller may make it, and whether it has made too many.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "scheduler/clock.h"
#include "server/config/config.h"
#include "server/frontend/auth/credentials.h"
#include "server/frontend/auth/file_version.h"
#include "server/frontend/auth/request_rate.h"

namespace kino::frontend {

// A caller that was let in.
struct Caller {
  std::string tenant;
  // Whose turn it is where callers share something (Executor::TryPost, Places): the tenant, or the
  // connection where nobody has to say who they are.
  std::string line;
  // The call's W3C trace context; empty: it has none, or none that is well-formed.
  std::string traceparent{};
};

// Thread-safe.
class Admission {
 public:
  // Errors are those of Credentials::Load. `clock` outlives it.
  static absl::StatusOr<std::unique_ptr<Admission>> Make(const config::AuthConfig& auth,
                                                         const config::LimitsConfig& limits,
                                                         const scheduler::Clock& clock);

  // UNAUTHENTICATED; PERMISSION_DENIED (OPERATORS_ONLY): the caller's role is another than the
  // `needed` one; RESOURCE_EXHAUSTED (REQUEST_RATE): the tenant calls too often. Does not block.
  absl::StatusOr<Caller> Admit(const CallOrigin& origin, config::Role needed = config::Role::kUse);

  // Takes the tokens' file over where it has changed; what is wrong with it is logged, and changes
  // nothing. To be called now and then. Blocks on the file.
  void Refresh();

 private:
  Admission(const config::AuthConfig& auth, const config::LimitsConfig& limits,
            const scheduler::Clock& clock);

  const config::AuthConfig auth_;
  RequestRate rate_;
  FileVersion tokens_version_;  // Refresh's alone
  absl::Mutex mutex_;
  std::shared_ptr<const Credentials> credentials_ ABSL_GUARDED_BY(mutex_);
};

// Counts calls that last (streams, uploads) so that no caller has them all. Thread-safe.
class Places {
 public:
  Places(size_t total, size_t per_caller) : total_(total), per_caller_(per_caller) {}

  // A place, free again when what this returns is gone; null: all are taken, or all of `caller`'s.
  // The Places outlive it.
  std::shared_ptr<void> TryTake(const std::string& caller);

 private:
  void GiveBack(const std::string& caller);

  const size_t total_;
  const size_t per_caller_;
  absl::Mutex mutex_;
  size_t taken_ ABSL_GUARDED_BY(mutex_) = 0;
  std::map<std::string, size_t> taken_by_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace kino::frontend
