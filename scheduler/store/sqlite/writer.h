// The one thread that owns the read-write connection. Operations that wait are put into one
// transaction (group commit), each in a savepoint, so that one which fails does not take the others
// with it; they finish after the COMMIT. Enqueue and the listener calls are thread-safe; operations
// and callbacks run on the writer's thread.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/any_invocable.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"
#include "scheduler/clock.h"
#include "scheduler/jobs/event.h"
#include "scheduler/store/job_store.h"
#include "scheduler/store/sqlite/database.h"

namespace kino::scheduler {

// What an operation works on.
struct Transaction {
  Connection& db;
  std::vector<Change> changes;  // told to the listeners after the COMMIT
  bool has_erased = false;      // rows that hold prompts
};

class WriteOperation {
 public:
  virtual ~WriteOperation() = default;
  // May be called again after its transaction was rolled back.
  virtual absl::Status Run(Transaction& transaction) = 0;
  // `commit`: OK once Run's work is durable. Called once.
  virtual void Finish(const absl::Status& commit) = 0;
};

template <typename T>
class TypedWriteOperation final : public WriteOperation {
 public:
  using Body = absl::AnyInvocable<absl::StatusOr<T>(Transaction&)>;
  TypedWriteOperation(Body body, Done<T> done) : body_(std::move(body)), done_(std::move(done)) {}
  absl::Status Run(Transaction& transaction) override {
    is_run_ = true;
    result_ = body_(transaction);
    return result_.status();
  }
  void Finish(const absl::Status& commit) override {
    // A refusal of its own is told as such, unless the transaction it was judged in never came to
    // be.
    if (!commit.ok() && (result_.ok() || !is_run_)) result_ = commit;
    done_(std::move(result_));
  }

 private:
  Body body_;
  Done<T> done_;
  bool is_run_ = false;
  absl::StatusOr<T> result_ = absl::UnknownError("not run");
};

class Writer {
 public:
  // `is_marked`: the file says that it was closed cleanly. The first transaction takes that away.
  // Of the options it uses `log` and `committed`. `clock` outlives the writer.
  Writer(std::unique_ptr<Connection> db, int max_batch, bool is_marked, const StoreOptions& options,
         const Clock& clock);
  // Carries out what is queued, then joins.
  ~Writer() { Stop(); }

  // The same, before destruction: callbacks may reach this writer until then.
  void Stop();

  // Notes in the file, durably, that it was closed cleanly. REQUIRES: Stop has returned.
  absl::Status MarkClosed();

  // Takes `operation`, unless `limit` or more wait or Stop was called: then false, and it stays the
  // caller's.
  bool Enqueue(std::unique_ptr<WriteOperation>& operation, size_t limit);

  int64_t AddListener(ChangeListener listener);
  void RemoveListener(int64_t id);

 private:
  using Batch = std::vector<std::unique_ptr<WriteOperation>>;

  void Loop();
  void Execute(Batch& batch);
  // Rows were erased: empties the log, where they may still be read.
  void ScrubLog();
  // One transaction. On failure nothing of `batch` has happened, and `changes` stays empty.
  absl::Status RunTransaction(const Batch& batch, std::vector<Change>& changes);
  void NotifyListeners(const std::vector<Change>& changes);
  void NoteHealth(const absl::Status& commit);

  const std::unique_ptr<Connection> db_;
  const int max_batch_;
  const std::function<void(const std::string&)> log_;
  const std::function<void(absl::Duration)> committed_;
  const Clock& clock_;
  bool is_marked_;          // writer's thread only, as is the next
  bool is_healthy_ = true;  // to log changes, not each failure
  // When the log is to be emptied; infinite: nothing that was erased is in it. Monotonic.
  absl::Duration scrub_by_ = absl::InfiniteDuration();

  absl::Mutex mutex_;
  std::deque<std::unique_ptr<WriteOperation>> queue_ ABSL_GUARDED_BY(mutex_);
  bool is_stopping_ ABSL_GUARDED_BY(mutex_) = false;
  bool is_notifying_ ABSL_GUARDED_BY(mutex_) = false;
  int64_t last_listener_ ABSL_GUARDED_BY(mutex_) = 0;
  std::vector<std::pair<int64_t, std::shared_ptr<ChangeListener>>> listeners_
      ABSL_GUARDED_BY(mutex_);
  std::thread thread_;  // last: starts when all else is there
};

}  // namespace kino::scheduler
