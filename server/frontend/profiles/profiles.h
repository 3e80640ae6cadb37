// What runs need, as the workers tell it: asks one that is up, waits as long as the caller can, and
// keeps the answers. A worker traces a profile in tens of milliseconds; an answer that comes late
// is kept for whoever asks next. Thread-safe.
#pragma once

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "engine/describe/profile.h"
#include "kino/v1/worker.pb.h"

namespace kino::frontend {

struct ProfilesOptions {
  // Answers that are kept; the one unused for longest goes first.
  size_t max_profiles = 1024;
  int64_t max_bytes = int64_t{64} << 20;
  // Asked of workers and not answered yet.
  int max_pending_per_tenant = 4;
  // A question that no worker has answered by then may be asked again.
  absl::Duration give_up = absl::Seconds(60);
  // What deadlines are held against; tests have their own.
  std::function<absl::Time()> now = absl::Now;
};

class Profiles {
 public:
  using Done = absl::AnyInvocable<void(absl::StatusOr<v1::RunProfile> profile)>;
  // Asks a worker on a device of this kind ("cpu", "cuda") that serves the query's model. Returns
  // at once; calls `done` once, on any thread, now or later. UNAVAILABLE: there is none.
  using Ask = std::function<void(const std::string& kind, v1::ProfileQuery query, Done done)>;

  Profiles(ProfilesOptions options, Ask ask);

  // Of `model` on devices such as `device` ("cpu", "cuda:0"). What it gives asks on behalf of
  // `tenant` and waits until `deadline` at most, all calls together; in the past: it gives what is
  // known. Every error is UNAVAILABLE. It is to be used while this lives.
  std::shared_ptr<engine::ProfileSource> Of(const std::string& model, const std::string& device,
                                            const std::string& tenant, absl::Time deadline);

  // As ProfileSource::Profile.
  absl::StatusOr<engine::RunProfile> Find(const std::string& model, const std::string& device,
                                          const std::string& tenant, absl::Time deadline,
                                          const engine::Request& request,
                                          const std::vector<engine::PhaseVariant>& variants);
  // For tests and metrics.
  size_t kept() const;

 private:
  struct Entry {
    std::string key;
    std::string place_key;  // of the model's weights
    std::string tenant;     // who asked
    absl::Time asked;
    bool is_pending = true;
    absl::Status error;
    engine::RunProfile profile;
    int64_t bytes = 0;
    bool was_counted = false;  // among the tenant's pending
  };
  using Places = std::shared_ptr<const std::vector<engine::ComponentPlaces>>;

  void Answer(const std::shared_ptr<Entry>& entry, absl::StatusOr<v1::RunProfile> answer);
  void Forget(const std::shared_ptr<Entry>& entry) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Trim() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  const ProfilesOptions options_;
  const Ask ask_;
  mutable absl::Mutex mutex_;
  absl::CondVar changed_;
  std::list<std::shared_ptr<Entry>> entries_ ABSL_GUARDED_BY(mutex_);  // latest used first
  std::map<std::string, std::list<std::shared_ptr<Entry>>::iterator> by_key_
      ABSL_GUARDED_BY(mutex_);
  std::map<std::string, Places> places_ ABSL_GUARDED_BY(mutex_);  // by model and kind
  std::map<std::string, int> pending_ ABSL_GUARDED_BY(mutex_);    // by tenant
  int64_t bytes_ ABSL_GUARDED_BY(mutex_) = 0;
};

}  // namespace kino::frontend
