// What a watcher is told next, from any place, through every second step of a recovery; and that no
// wake-up is lost. The store and the files are real, the transport is the test.
#include <gtest/gtest.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "google/rpc/error_details.pb.h"
#include "scheduler/store/sqlite/open.h"
#include "server/convert/status.h"
#include "server/frontend/rpc/download_cursor.h"
#include "server/frontend/rpc/watch_cursor.h"
#include "server/frontend/watch/step_gate.h"
#include "tests/support/fake_clock.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

TEST(StepGateTest, WakeUpBetweenTheLookAndTheRestIsNotLost) {
  StepGate gate;
  int looks = 0;
  gate.Run([&] {
    // It has looked and found nothing; now, before it rests, something comes.
    if (++looks == 1) {
      EXPECT_FALSE(gate.Wake()) << "a step is under way";
    }
    return Look::kNothing;
  });
  EXPECT_EQ(looks, 2);
  EXPECT_TRUE(gate.Wake()) << "it rests";
  EXPECT_FALSE(gate.Wake()) << "whoever was first has a step run";
}

TEST(StepGateTest, WakeUpWhileBusyIsSeenByTheStepAfterIt) {
  StepGate gate;
  gate.Run([] { return Look::kBusy; });  // a write is out
  EXPECT_FALSE(gate.Wake());
  int looks = 0;
  gate.Run([&] {
    ++looks;
    return Look::kNothing;
  });
  EXPECT_EQ(looks, 1) << "the look came after the wake-up";
  EXPECT_TRUE(gate.Wake());
}

class Counter : public Wakeable {
 public:
  void Wake() override { ++wakes; }
  int wakes = 0;
};

// What a transport would send, in words.
std::string Told(const v1::JobEvent& event) {
  switch (event.event_case()) {
    case v1::JobEvent::kStateChange:
      return absl::StrCat(v1::JobState_Name(event.state_change().state()), " ",
                          event.state_change().attempt());
    case v1::JobEvent::kProgress:
      return event.progress().has_queue_position()
                 ? absl::StrCat("ahead ", event.progress().queue_position(), " ",
                                event.progress().waiting_reason())
                 : absl::StrCat("at ", event.progress().fraction());
    case v1::JobEvent::kVideoChunk:
      return absl::StrCat(event.video_chunk().attempt(), "@", event.video_chunk().offset(), ":",
                          event.video_chunk().data());
    case v1::JobEvent::kFinished:
      return "finished";
    default:
      return "?";
  }
}

class WatchCursorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    scheduler::StoreOptions options;
    options.retry.min_backoff = absl::ZeroDuration();
    auto store = scheduler::OpenSqliteJobStore({.path = folder_.path() + "/jobs.db"}, options,
                                               clock_, random_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    listener_ = store_->AddChangeListener([this](const std::vector<scheduler::Change>& changes) {
      for (const auto& change : changes) hub_.OnState(change.job_id, change.event.number);
    });
    auto files = FileStore::Open(folder_.path());
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
    queue_ = std::make_unique<QueueView>(
        QueueSources{.store = *store_,
                     .clock = clock_,
                     .workers = [] { return std::vector<scheduler::WorkerSnapshot>(); },
                     .held_because = nullptr,
                     .waits_for_memory = nullptr},
        hub_);
    scheduler::NewJob job;
    job.tenant = "default";
    job.model = "m";
    id_ = store_->Submit(std::move(job))->job.id;
  }
  void TearDown() override {
    queue_->Stop();
    store_->RemoveChangeListener(listener_);
  }

  std::unique_ptr<WatchCursor> Make(v1::WatchJobRequest from, const std::string& tenant) {
    return std::make_unique<WatchCursor>(WatchSources{.store = *store_,
                                                      .files = *files_,
                                                      .hub = hub_,
                                                      .queue = *queue_,
                                                      .metrics = metrics_,
                                                      .clock = clock_,
                                                      .result_ttl = absl::Hours(720)},
                                         tenant, std::move(from));
  }
  std::unique_ptr<WatchCursor> Open(int64_t after = 0, int attempt = 0, int64_t offset = 0) {
    v1::WatchJobRequest from;
    from.set_id(id_);
    from.set_after_state_number(after);
    from.set_attempt(attempt);
    from.set_offset(offset);
    auto cursor = Make(from, "default");
    const absl::Status begun = cursor->Begin(reader_);
    EXPECT_TRUE(begun.ok()) << begun;
    return cursor;
  }
  // All there is now.
  std::vector<std::string> Drain(WatchCursor& cursor) {
    std::vector<std::string> told;
    for (;;) {
      v1::JobEvent event;
      const auto next = cursor.Take(event);
      if (!next.ok()) {
        told.push_back(std::string(next.status().message()));
        return told;
      }
      if (*next == WatchCursor::Next::kNothing) return told;
      if (*next == WatchCursor::Next::kEnd) {
        told.push_back("end");
        return told;
      }
      EXPECT_EQ(event.job_id(), id_);
      told.push_back(Told(event));
    }
  }

  // The job's next attempt, with a file of its own.
  void StartAttempt() {
    const auto claim = store_->Claim(id_, "cpu");
    ASSERT_TRUE(claim.ok() && claim->has_value());
    ref_ = (*claim)->ref;
    auto writer = files_->OpenWriter(FileStore::VideoName(id_, ref_.attempt));
    ASSERT_TRUE(writer.ok());
    writer_ = *std::move(writer);
    hub_.OnBytes(id_, ref_.attempt, 0);
  }
  void Write(const std::string& bytes) {
    ASSERT_TRUE(writer_->Append(writer_->size(), bytes).ok());
    hub_.OnBytes(id_, ref_.attempt, writer_->size());
  }
  void LoseAttempt() {
    const auto job = store_->Fail(ref_, {.cause = scheduler::FailureCause::kInterrupted,
                                         .error = absl::UnavailableError("worker lost"),
                                         .stats = ""});
    ASSERT_TRUE(job.ok()) << job.status();
    hub_.OnAttemptEnded(id_, ref_.attempt);
    files_->RemoveVideo(FileStore::VideoName(id_, ref_.attempt));
  }
  void Succeed() {
    scheduler::Artifact artifact;
    artifact.content_type = "video/mp4";
    artifact.size_bytes = writer_->size();
    artifact.file_name = FileStore::VideoName(id_, ref_.attempt);
    const auto job = store_->Commit(ref_, artifact, "");
    ASSERT_TRUE(job.ok()) << job.status();
    hub_.OnAttemptEnded(id_, ref_.attempt);
  }

  kino::testing::TempDir folder_;
  scheduler::FakeClock clock_;
  scheduler::SeededRandom random_{7};
  std::unique_ptr<scheduler::JobStore> store_;
  int64_t listener_ = 0;
  std::unique_ptr<FileStore> files_;
  WatchHub hub_;
  Metrics metrics_;
  std::unique_ptr<QueueView> queue_;
  std::shared_ptr<Counter> reader_ = std::make_shared<Counter>();
  std::string id_;
  scheduler::AttemptRef ref_;
  std::unique_ptr<VideoWriter> writer_;
};

using Words = std::vector<std::string>;

TEST_F(WatchCursorTest, TellsEverythingInOrderAndEnds) {
  const auto cursor = Open();
  EXPECT_EQ(Drain(*cursor), (Words{"QUEUED 0", "ahead 0 NO_WORKER"}));
  StartAttempt();
  EXPECT_EQ(Drain(*cursor), (Words{"RUNNING 1"}));
  Write("ab");
  v1::Progress progress;
  progress.set_attempt(1);
  progress.set_fraction(0.5);
  hub_.OnProgress(id_, progress);
  EXPECT_EQ(Drain(*cursor), (Words{"at 0.5", "1@0:ab"}));
  Write("c");
  Succeed();
  EXPECT_EQ(Drain(*cursor), (Words{"SUCCEEDED 1", "1@2:c", "finished", "end"}));
}

TEST_F(WatchCursorTest, WatcherThatResumedGetsTheNextAttemptFromItsBeginning) {
  StartAttempt();
  Write("first");
  const auto cursor = Open(/*after=*/2, /*attempt=*/1, /*offset=*/3);
  EXPECT_EQ(Drain(*cursor), (Words{"1@3:st"}));
  LoseAttempt();
  StartAttempt();
  Write("second");
  EXPECT_EQ(Drain(*cursor), (Words{"QUEUED 1", "RUNNING 2", "2@0:second"}));
  EXPECT_EQ(cursor->ResumePoint().attempt(), 2);
  EXPECT_EQ(cursor->ResumePoint().offset(), 6);
}

TEST_F(WatchCursorTest, WatcherOfALostAttemptThatComesBackLateStartsOver) {
  StartAttempt();
  Write("first");
  LoseAttempt();
  StartAttempt();
  Write("second");
  Succeed();
  const auto cursor = Open(/*after=*/2, /*attempt=*/1, /*offset=*/3);
  EXPECT_EQ(Drain(*cursor),
            (Words{"QUEUED 1", "RUNNING 2", "SUCCEEDED 2", "2@0:second", "finished", "end"}));
}

TEST_F(WatchCursorTest, ResumePointIsBehindTheLastEventAtEveryStep) {
  StartAttempt();
  Write("ab");
  LoseAttempt();
  StartAttempt();
  Write("cd");
  Succeed();
  // Broken off after each event and taken up again at the point it gave: the same events in all.
  Words whole = Drain(*Open());
  Words pieces;
  v1::WatchJobRequest from;
  from.set_id(id_);
  while (pieces.empty() || pieces.back() != "finished") {
    const auto cursor = Make(from, "default");
    ASSERT_TRUE(cursor->Begin(reader_).ok());
    v1::JobEvent event;
    const auto next = cursor->Take(event);
    ASSERT_TRUE(next.ok() && *next == WatchCursor::Next::kEvent) << next.status();
    pieces.push_back(Told(event));
    from = cursor->ResumePoint();
  }
  pieces.push_back("end");
  EXPECT_EQ(pieces, whole);
}

TEST_F(WatchCursorTest, WhatWasSeenIsNotToldAgainHoweverMuchItWas) {
  for (int i = 0; i < 520; ++i) {
    const scheduler::AttemptRef ref = (*store_->Claim(id_, "w"))->ref;
    ASSERT_TRUE(store_
                    ->Fail(ref, {.cause = scheduler::FailureCause::kInterrupted,
                                 .error = absl::UnavailableError("drained"),
                                 .stats = ""})
                    .ok());
  }
  ASSERT_TRUE(store_->Cancel("default", id_).ok());
  const scheduler::Job job = *store_->Get("default", id_);
  EXPECT_EQ(job.state_number, 2 * 520 + 2);
  const auto cursor = Open(job.state_number - 1);
  EXPECT_EQ(Drain(*cursor), (Words{"CANCELLED 520", "finished", "end"}));
}

TEST_F(WatchCursorTest, ServerThatStopsTellsThePlaceEvenBeforeTheFirstEvent) {
  StartAttempt();
  Write("abc");
  for (const int64_t after : {0, 2}) {
    SCOPED_TRACE(after);
    const auto cursor = Open(after, /*attempt=*/1, /*offset=*/2);
    if (after == 0) hub_.GoAway();
    v1::JobEvent event;
    const auto next = cursor->Take(event);
    ASSERT_TRUE(absl::IsUnavailable(next.status()));
    google::rpc::ErrorInfo info;
    ASSERT_TRUE(convert::GetDetail(next.status(), &info));
    EXPECT_EQ(info.reason(), "GOING_AWAY");
    EXPECT_EQ(info.metadata().at("job_id"), id_);
    EXPECT_EQ(info.metadata().at("after_state_number"), absl::StrCat(after));
    EXPECT_EQ(info.metadata().at("attempt"), "1");
    EXPECT_EQ(info.metadata().at("offset"), "2");
  }
}

TEST_F(WatchCursorTest, StandingIsToldOnceForEachPlaceAndAnewWhenQueuedAgain) {
  const auto cursor = Open();
  EXPECT_EQ(Drain(*cursor), (Words{"QUEUED 0", "ahead 0 NO_WORKER"}));
  queue_->RefreshForWatchers();
  EXPECT_EQ(Drain(*cursor), Words{});
  scheduler::NewJob other;
  other.tenant = "default";
  other.model = "m";
  other.priority = scheduler::Priority::kHigh;
  ASSERT_TRUE(store_->Submit(std::move(other)).ok());
  const int wakes = reader_->wakes;
  queue_->RefreshForWatchers();
  EXPECT_EQ(reader_->wakes, wakes + 1);
  EXPECT_EQ(Drain(*cursor), (Words{"ahead 1 NO_WORKER"}));
  StartAttempt();
  EXPECT_EQ(Drain(*cursor), (Words{"RUNNING 1"}));
  LoseAttempt();
  queue_->RefreshForWatchers();
  EXPECT_EQ(Drain(*cursor), (Words{"QUEUED 1", "ahead 1 NO_WORKER"}));
}

TEST_F(WatchCursorTest, ReaderIsWokenUntilTheCursorIsGone) {
  auto cursor = Open();
  StartAttempt();
  EXPECT_GT(reader_->wakes, 0);
  EXPECT_EQ(hub_.watchers(), 1);
  cursor.reset();
  EXPECT_EQ(hub_.watchers(), 0);
  const int wakes = reader_->wakes;
  Write("x");
  EXPECT_EQ(reader_->wakes, wakes);
}

TEST_F(WatchCursorTest, ForeignJobAndImpossiblePlacesAreRefused) {
  StartAttempt();
  Write("abc");
  v1::WatchJobRequest from;
  from.set_id(id_);
  EXPECT_TRUE(absl::IsNotFound(Make(from, "other")->Begin(reader_)));
  EXPECT_EQ(hub_.watchers(), 0);
  const auto begin = [&](int64_t after, int attempt, int64_t offset) {
    v1::WatchJobRequest place;
    place.set_id(id_);
    place.set_after_state_number(after);
    place.set_attempt(attempt);
    place.set_offset(offset);
    return Make(place, "default")->Begin(reader_).code();
  };
  EXPECT_EQ(begin(3, 0, 0), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(begin(2, 2, 0), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(begin(2, 1, 4), absl::StatusCode::kOutOfRange);
  EXPECT_EQ(begin(2, 1, 3), absl::StatusCode::kOk);
  EXPECT_EQ(begin(-1, 0, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(begin(0, -1, 0), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(begin(0, 0, -1), absl::StatusCode::kInvalidArgument);
}

TEST_F(WatchCursorTest, LargeVideoComesInThreePiecesThatJoin) {
  StartAttempt();
  std::string bytes;
  for (int i = 0; bytes.size() < 600'000; ++i) absl::StrAppend(&bytes, i, ",");
  Write(bytes);
  Succeed();
  for (const int64_t offset :
       {int64_t{0}, int64_t{1}, int64_t{255 * 1024}, static_cast<int64_t>(bytes.size()) - 1}) {
    SCOPED_TRACE(offset);
    const auto cursor = Open(3, 1, offset);
    DownloadCursor download({.store = *store_, .files = *files_, .metrics = metrics_}, "default",
                            [&] {
                              v1::DownloadVideoRequest request;
                              request.set_id(id_);
                              request.set_offset(offset);
                              return request;
                            }());
    ASSERT_TRUE(download.Open().ok());
    EXPECT_EQ(download.artifact().size_bytes, static_cast<int64_t>(bytes.size()));
    std::string watched, downloaded;
    v1::JobEvent event;
    while (*cursor->Take(event) == WatchCursor::Next::kEvent && event.has_video_chunk()) {
      EXPECT_EQ(event.video_chunk().offset(), offset + static_cast<int64_t>(watched.size()));
      watched += event.video_chunk().data();
    }
    v1::DownloadVideoResponse piece;
    while (*download.Take(piece)) {
      EXPECT_EQ(piece.offset(), offset + static_cast<int64_t>(downloaded.size()));
      downloaded += piece.data();
    }
    EXPECT_TRUE(watched == bytes.substr(static_cast<size_t>(offset)));
    EXPECT_TRUE(downloaded == watched);
  }
}

}  // namespace
}  // namespace kino::frontend
