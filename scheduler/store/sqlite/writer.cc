#include "scheduler/store/sqlite/writer.h"

#include <pthread.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/str_cat.h"
#include "scheduler/fault_point.h"
#include "scheduler/status.h"

namespace kino::scheduler {
namespace {

// Where readers, or the disk, did not let the log be emptied: so soon again while others write, and
// sooner once nobody does.
constexpr absl::Duration kScrubAgain = absl::Seconds(5);
constexpr absl::Duration kIdle = absl::Milliseconds(100);

}  // namespace

Writer::Writer(std::unique_ptr<Connection> db, int max_batch, bool is_marked,
               const StoreOptions& options, const Clock& clock)
    : db_(std::move(db)),
      max_batch_(std::max(1, max_batch)),
      log_(options.log),
      committed_(options.committed),
      clock_(clock),
      is_marked_(is_marked),
      thread_([this] { Loop(); }) {
  pthread_setname_np(thread_.native_handle(), "kino-store");
}

void Writer::Stop() {
  {
    absl::MutexLock lock(&mutex_);
    is_stopping_ = true;
  }
  if (thread_.joinable()) thread_.join();
}

absl::Status Writer::MarkClosed() {
  if (is_marked_) return absl::OkStatus();
  return db_->Run("INSERT OR IGNORE INTO marks(name) VALUES ('closed')").status();
}

bool Writer::Enqueue(std::unique_ptr<WriteOperation>& operation, size_t limit) {
  absl::MutexLock lock(&mutex_);
  if (is_stopping_ || queue_.size() >= limit) return false;
  queue_.push_back(std::move(operation));
  return true;
}

int64_t Writer::AddListener(ChangeListener listener) {
  absl::MutexLock lock(&mutex_);
  listeners_.emplace_back(++last_listener_, std::make_shared<ChangeListener>(std::move(listener)));
  return last_listener_;
}

void Writer::RemoveListener(int64_t id) {
  absl::MutexLock lock(&mutex_);
  std::erase_if(listeners_, [id](const auto& entry) { return entry.first == id; });
  const auto is_idle = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) { return !is_notifying_; };
  mutex_.Await(absl::Condition(&is_idle));
}

void Writer::ScrubLog() {
  const absl::StatusOr<bool> emptied = db_->EmptyLog();
  const bool is_done = emptied.ok() && *emptied;
  scrub_by_ = is_done ? absl::InfiniteDuration() : clock_.Monotonic() + kScrubAgain;
}

void Writer::Loop() {
  while (true) {
    Batch batch;
    {
      absl::MutexLock lock(&mutex_);
      const auto has_work = [this]() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_) {
        return is_stopping_ || !queue_.empty();
      };
      const bool must_scrub = scrub_by_ != absl::InfiniteDuration();
      mutex_.AwaitWithTimeout(absl::Condition(&has_work),
                              must_scrub ? kIdle : absl::InfiniteDuration());
      if (queue_.empty() && is_stopping_) return;
      while (!queue_.empty() && static_cast<int>(batch.size()) < max_batch_) {
        batch.push_back(std::move(queue_.front()));
        queue_.pop_front();
      }
    }
    if (batch.empty()) {
      ScrubLog();
    } else {
      Execute(batch);
    }
  }
}

void Writer::Execute(Batch& batch) {
  std::vector<Change> changes;
  const absl::Duration begun = clock_.Monotonic();
  const absl::Status commit = RunTransaction(batch, changes);
  if (commit.ok()) committed_(clock_.Monotonic() - begun);
  NoteHealth(commit);
  if (!commit.ok() && batch.size() > 1) {
    // Alone, a small operation may fit where the whole batch did not.
    for (std::unique_ptr<WriteOperation>& operation : batch) {
      Batch single;
      single.push_back(std::move(operation));
      Execute(single);
    }
    return;
  }
  if (commit.ok()) NotifyListeners(changes);
  // Before the answer: what is told to be deleted is.
  if (clock_.Monotonic() >= scrub_by_) ScrubLog();
  for (std::unique_ptr<WriteOperation>& operation : batch) {
    operation->Finish(commit);
    operation.reset();
  }
}

absl::Status Writer::RunTransaction(const Batch& batch, std::vector<Change>& changes) {
  std::vector<Change> kept;
  bool has_erased = false;
  const auto run = [&]() -> absl::Status {
    KINO_RETURN_IF_ERROR(db_->Run("BEGIN IMMEDIATE").status());
    // In the transaction that changes the file first, so that a crash finds the mark gone with it.
    if (is_marked_) {
      KINO_RETURN_IF_ERROR(db_->Run("DELETE FROM marks WHERE name = 'closed'").status());
    }
    for (const std::unique_ptr<WriteOperation>& operation : batch) {
      KINO_RETURN_IF_ERROR(db_->Run("SAVEPOINT operation").status());
      // What an operation says is its own until it has succeeded: a refused one tells nothing.
      Transaction transaction{.db = *db_, .changes = {}};
      const absl::Status result = operation->Run(transaction);
      if (result.ok()) {
        std::move(transaction.changes.begin(), transaction.changes.end(), std::back_inserter(kept));
        has_erased = has_erased || transaction.has_erased;
      } else {
        // A full disk or an I/O error can end the whole transaction.
        if (!db_->is_in_transaction()) return result;
        KINO_RETURN_IF_ERROR(db_->Run("ROLLBACK TO operation").status());
      }
      KINO_RETURN_IF_ERROR(db_->Run("RELEASE operation").status());
    }
    if (!kept.empty()) KINO_FAULT_POINT("store.before_commit");
    return db_->Run("COMMIT").status();
  };
  const absl::Status status = run();
  if (status.ok()) {
    if (!kept.empty()) KINO_FAULT_POINT("store.committed");
    changes = std::move(kept);
    is_marked_ = false;
    if (has_erased) scrub_by_ = clock_.Monotonic();
    return status;
  }
  if (db_->is_in_transaction()) {
    const absl::Status rollback = db_->Run("ROLLBACK").status();
    if (!rollback.ok()) log_(absl::StrCat("job store: rolling back failed: ", rollback.ToString()));
  }
  return status;
}

void Writer::NotifyListeners(const std::vector<Change>& changes) {
  if (changes.empty()) return;
  std::vector<std::shared_ptr<ChangeListener>> listeners;
  {
    absl::MutexLock lock(&mutex_);
    for (const auto& [id, listener] : listeners_) listeners.push_back(listener);
    is_notifying_ = true;
  }
  for (const std::shared_ptr<ChangeListener>& listener : listeners) (*listener)(changes);
  absl::MutexLock lock(&mutex_);
  is_notifying_ = false;
}

void Writer::NoteHealth(const absl::Status& commit) {
  if (commit.ok() == is_healthy_) return;
  is_healthy_ = commit.ok();
  log_(is_healthy_ ? "job store: writes work again"
                   : absl::StrCat("job store: writes fail: ", commit.ToString()));
}

}  // namespace kino::scheduler
