// The writer by itself, with operations that do what the store's own cannot be brought to do.
#include <sqlite3.h>

#include <atomic>
#include <functional>
#include <thread>

#include "absl/synchronization/notification.h"
#include "scheduler/store/sqlite/schema.h"
#include "scheduler/store/sqlite/writer.h"
#include "tests/scheduler/store/store_fixture.h"
#include "tests/support/fake_clock.h"

namespace kino::scheduler {
namespace {

class WriterTest : public testing::Test {
 protected:
  WriterTest() {
    auto db =
        Connection::Open(folder_.File("jobs.db"), SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE, "");
    EXPECT_TRUE(db.ok() && MigrateSchema(**db).ok());
    StoreOptions options;
    options.committed = [this](absl::Duration took) { committed_.push_back(took); };
    writer_ = std::make_unique<Writer>(*std::move(db), 256, /*is_marked=*/false, options, clock_);
  }

  // Queues an operation that tells of a change by that name and then ends with `result`.
  void Enqueue(const std::string& name, absl::Status result, absl::Notification* finished) {
    std::unique_ptr<WriteOperation> operation = std::make_unique<TypedWriteOperation<int>>(
        [name, result](Transaction& transaction) -> absl::StatusOr<int> {
          transaction.changes.push_back({.cursor = 1, .job_id = name, .event = {}});
          if (!result.ok()) return result;
          return 0;
        },
        [result, finished](absl::StatusOr<int> value) {
          EXPECT_EQ(value.status(), result);
          if (finished != nullptr) finished->Notify();
        });
    ASSERT_TRUE(writer_->Enqueue(operation, SIZE_MAX));
  }

  ScratchFolder folder_;
  FakeClock clock_;
  std::vector<absl::Duration> committed_;  // the writer's thread alone
  std::unique_ptr<Writer> writer_;
};

TEST_F(WriterTest, TellsHowLongEachCommittedTransactionTook) {
  absl::Notification first, second;
  const auto slow = [&](absl::Notification& finished) {
    std::unique_ptr<WriteOperation> operation = std::make_unique<TypedWriteOperation<int>>(
        [this](Transaction&) -> absl::StatusOr<int> {
          clock_.Advance(absl::Seconds(3));
          return 0;
        },
        [&finished](absl::StatusOr<int>) { finished.Notify(); });
    ASSERT_TRUE(writer_->Enqueue(operation, SIZE_MAX));
  };
  slow(first);
  first.WaitForNotification();
  slow(second);
  second.WaitForNotification();
  writer_->Stop();
  EXPECT_THAT(committed_, testing::ElementsAre(absl::Seconds(3), absl::Seconds(3)));
}

TEST_F(WriterTest, ChangesOfARefusedOperationAreNotTold) {
  std::vector<std::string> told;
  writer_->AddListener([&](const std::vector<Change>& changes) {
    for (const Change& change : changes) told.push_back(change.job_id);
  });
  // The first one holds the writer, so that the others share a transaction.
  absl::Notification running, may_go, finished;
  std::unique_ptr<WriteOperation> holder = std::make_unique<TypedWriteOperation<int>>(
      [&](Transaction&) -> absl::StatusOr<int> {
        running.Notify();
        may_go.WaitForNotification();
        return 0;
      },
      [](absl::StatusOr<int>) {});
  ASSERT_TRUE(writer_->Enqueue(holder, SIZE_MAX));
  running.WaitForNotification();
  Enqueue("a", absl::OkStatus(), nullptr);
  Enqueue("b", absl::AbortedError("no"), nullptr);
  Enqueue("c", absl::OkStatus(), nullptr);
  Enqueue("d", absl::AbortedError("no"), &finished);
  may_go.Notify();
  finished.WaitForNotification();
  writer_->Stop();
  EXPECT_THAT(told, testing::ElementsAre("a", "c"));
}

TEST_F(WriterTest, RemovedListenerIsNotRunningAnyMore) {
  absl::Notification running, removed;
  std::atomic<bool> was_removed_while_running = false;
  const int64_t id = writer_->AddListener([&](const std::vector<Change>&) {
    running.Notify();
    // A removal that does not wait returns within this time on any machine that is not stuck; one
    // that waits can never, so that the test cannot fail by chance.
    was_removed_while_running = removed.WaitForNotificationWithTimeout(absl::Milliseconds(300));
  });
  Enqueue("a", absl::OkStatus(), nullptr);
  running.WaitForNotification();
  std::thread remover([&] {
    writer_->RemoveListener(id);
    removed.Notify();
  });
  remover.join();
  EXPECT_FALSE(was_removed_while_running);
}

}  // namespace
}  // namespace kino::scheduler
