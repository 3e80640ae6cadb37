// The one gate in front of every call, whatever protocol it came by. Today it says whose call it
// is; roles, tenants' limits and what TLS proves of a caller belong here, too.
#pragma once

#include <cstddef>
#include <map>
#include <memory>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/frontend/auth/token_table.h"

namespace kino::frontend {

// What a call says of its origin.
struct CallOrigin {
  std::string authorization;  // the value of that header; empty: none was sent
  std::string peer;           // the connection's other end; only ever compared
};

// A caller that was let in.
struct Caller {
  std::string tenant;
  // Whose turn it is where callers share something (Executor::TryPost, Places): the tenant, or the
  // connection where nobody has to say who they are.
  std::string line;
};

// Immutable; thread-safe. Does not block.
class Admission {
 public:
  // `tokens` outlives it.
  explicit Admission(const TokenTable& tokens) : tokens_(tokens) {}

  // UNAUTHENTICATED.
  absl::StatusOr<Caller> Admit(const CallOrigin& origin) const;

 private:
  const TokenTable& tokens_;
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
