#include "scheduler/store/sqlite/file_check.h"

#include <pthread.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "scheduler/status.h"

namespace kino::scheduler {

FileCheck::FileCheck(std::unique_ptr<Connection> db, std::function<void(const absl::Status&)> tell)
    : db_(std::move(db)), thread_([this, tell = std::move(tell)] {
        pthread_setname_np(pthread_self(), "kino-check");
        const absl::Status found = Look();
        if (!is_stopping_) tell(found);
        finished_.Notify();
      }) {}

FileCheck::~FileCheck() {
  is_stopping_ = true;
  // An interrupt that comes before the statement has begun is lost, so it is repeated.
  do {
    db_->Interrupt();
  } while (!finished_.WaitForNotificationWithTimeout(absl::Milliseconds(5)));
  thread_.join();
}

absl::Status FileCheck::Look() {
  KINO_ASSIGN_OR_RETURN(Statement check, db_->PrepareOnce("PRAGMA quick_check(1)"));
  KINO_ASSIGN_OR_RETURN(const bool has_row, check.Step());
  const std::string finding = has_row ? check.Text(0) : std::string();
  if (finding == "ok") return absl::OkStatus();
  return WithReason(absl::DataLossError(absl::StrCat(
                        "the job store is damaged: ", finding,
                        ": restore a backup, or move the file away to start with an empty queue")),
                    kReasonStoreDamaged);
}

}  // namespace kino::scheduler
