#include "server/worker/spool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <thread>

#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/temp_dir.h"

namespace kino::worker {
namespace {

using scheduler::DiskCall;

v1::AttemptEvent ChunkEvent(int64_t offset, const std::string& data) {
  v1::AttemptEvent event;
  event.mutable_chunk()->set_offset(offset);
  event.mutable_chunk()->set_data(data);
  return event;
}

v1::AttemptEvent DoneEvent() {
  v1::AttemptEvent event;
  event.mutable_done()->set_first_chunk_seconds(1);
  return event;
}

class SpoolTest : public ::testing::Test {
 protected:
  kino::testing::TempDir folder_;
  const std::string path_ = folder_.path() + "/1.spool";
  scheduler::SimulatedDisk disk_;
  std::unique_ptr<Spool> spool_ = Spool::Create(disk_, path_);

  v1::AttemptEvent Next(int64_t after) {
    auto event = spool_->Next(after);
    EXPECT_TRUE(event.ok()) << event.status();
    EXPECT_TRUE(event->has_value()) << "nothing after " << after;
    return event->value_or(v1::AttemptEvent());
  }
};

TEST_F(SpoolTest, NumbersEventsFromOneAndReadsThemBack) {
  EXPECT_FALSE((*spool_->Next(0)).has_value());
  v1::AttemptEvent started;
  started.mutable_started();
  ASSERT_TRUE(spool_->Append(started).ok());
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "abc")).ok());
  ASSERT_TRUE(spool_->Append(ChunkEvent(3, "de")).ok());
  ASSERT_TRUE(spool_->Append(DoneEvent()).ok());
  EXPECT_TRUE(Next(0).has_started());
  EXPECT_EQ(Next(1).number(), 2);
  EXPECT_EQ(Next(1).chunk().data(), "abc");
  EXPECT_EQ(Next(2).chunk().offset(), 3);
  EXPECT_EQ(Next(2).chunk().data(), "de");
  EXPECT_TRUE(Next(3).has_done());
  EXPECT_FALSE((*spool_->Next(4)).has_value());
  EXPECT_EQ(Next(0).number(), 1) << "reading forgets nothing";
}

TEST_F(SpoolTest, ReadsFromTheFirstKeptEventHoweverFarBackItIsAsked) {
  for (int64_t offset = 0; offset < 3; ++offset)
    ASSERT_TRUE(spool_->Append(ChunkEvent(offset, "a")).ok());
  spool_->Acknowledge(1);
  for (const int64_t after : {int64_t{1}, int64_t{0}, int64_t{-1}, INT64_MIN}) {
    SCOPED_TRACE(after);
    EXPECT_EQ(Next(after).number(), 2);
  }
  EXPECT_FALSE((*spool_->Next(INT64_MAX)).has_value());
}

TEST_F(SpoolTest, AcknowledgedEventsAreGoneAndTheirDiskSpaceToo) {
  const std::string big(1 << 20, 'x');
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, big)).ok());
  ASSERT_TRUE(spool_->Append(ChunkEvent(1 << 20, "tail")).ok());
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(path_.c_str(), &before), 0);
  spool_->Acknowledge(1);
  ASSERT_EQ(stat(path_.c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_EQ(Next(0).number(), 2);
  EXPECT_EQ(Next(1).chunk().data(), "tail");
}

TEST_F(SpoolTest, TellsTheBytesThatItKeeps) {
  EXPECT_EQ(spool_->bytes(), 0);
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "abc")).ok());
  ASSERT_TRUE(spool_->Append(ChunkEvent(3, "de")).ok());
  EXPECT_EQ(spool_->bytes(), 5);
  spool_->Acknowledge(1);
  EXPECT_EQ(spool_->bytes(), 2);
}

TEST_F(SpoolTest, DrainedOnlyOnceTheLastEventIsAcknowledged) {
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "a")).ok());
  spool_->Acknowledge(1);
  EXPECT_FALSE(spool_->is_drained()) << "more may come";
  ASSERT_TRUE(spool_->Append(DoneEvent()).ok());
  EXPECT_FALSE(spool_->is_drained());
  spool_->Acknowledge(2);
  EXPECT_TRUE(spool_->is_drained());
}

TEST_F(SpoolTest, AChunkThatDoesNotContinueTheLastIsRefused) {
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "abc")).ok());
  EXPECT_FALSE(spool_->Append(ChunkEvent(4, "x")).ok());
  EXPECT_FALSE(spool_->Append(ChunkEvent(0, "x")).ok());
  EXPECT_EQ(spool_->last_number(), 1);
}

TEST_F(SpoolTest, AFullDiskStillLetsTheFailureThrough) {
  // A file size limit stands for the full disk: the write fails in the same place.
  struct rlimit old {};
  getrlimit(RLIMIT_FSIZE, &old);
  signal(SIGXFSZ, SIG_IGN);
  const rlimit small{4096, old.rlim_max};
  setrlimit(RLIMIT_FSIZE, &small);
  const absl::Status written = spool_->Append(ChunkEvent(0, std::string(8192, 'x')));
  v1::AttemptEvent failed;
  failed.mutable_failed()->set_cause(v1::AttemptFailed::INTERNAL);
  const absl::Status reported = spool_->Append(failed);
  setrlimit(RLIMIT_FSIZE, &old);
  EXPECT_TRUE(IsDiskFull(written)) << written;
  EXPECT_TRUE(reported.ok());
  EXPECT_EQ(Next(0).number(), 1) << "the failed chunk used no number";
  EXPECT_TRUE(Next(0).has_failed());
}

TEST_F(SpoolTest, TheFileGoesWithTheSpool) {
  EXPECT_TRUE(std::filesystem::exists(path_));
  spool_.reset();
  EXPECT_FALSE(std::filesystem::exists(path_));
}

v1::AttemptEvent FailedEvent() {
  v1::AttemptEvent event;
  event.mutable_failed()->set_cause(v1::AttemptFailed::INTERNAL);
  return event;
}

TEST_F(SpoolTest, WithoutAFileItTakesTheEndAlone) {
  disk_.PlanFault({.calls = {DiskCall::kOpen}, .error = EIO});
  const auto spool = Spool::Create(disk_, folder_.path() + "/2.spool");
  EXPECT_FALSE(spool->status().ok());
  EXPECT_EQ(spool->Append(ChunkEvent(0, "abc")), spool->status());
  EXPECT_EQ(spool->Append(DoneEvent()), spool->status());
  ASSERT_TRUE(spool->Append(FailedEvent()).ok());
  auto event = spool->Next(0);
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_EQ((*event)->number(), 1);
  spool->Acknowledge(1);
  EXPECT_TRUE(spool->is_drained());
}

TEST_F(SpoolTest, WhyTheFileCannotBeMadeIsToldApart) {
  const auto status = [&](int error) {
    disk_.PlanFault({.calls = {DiskCall::kOpen}, .error = error});
    return Spool::Create(disk_, folder_.path() + "/2.spool")->status();
  };
  for (const int error : {ENOSPC, EDQUOT, EFBIG}) EXPECT_TRUE(IsDiskFull(status(error))) << error;
  for (const int error : {EMFILE, ENFILE, ENOMEM}) EXPECT_TRUE(IsShortage(status(error))) << error;
  for (const int error : {EIO, EACCES, EROFS}) {
    EXPECT_FALSE(status(error).ok());
    EXPECT_FALSE(IsDiskFull(status(error)) || IsShortage(status(error))) << error;
  }
  EXPECT_FALSE(IsShortage(status(ENOSPC)));
  EXPECT_NE(std::string(status(EIO).message()).find("2.spool"), std::string::npos);
}

TEST_F(SpoolTest, AWriteThatFailsPartWayUsesNoNumberAndTheSameBytesFollow) {
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "abc")).ok());
  disk_.PlanFault({.calls = {DiskCall::kWrite}, .error = ENOSPC, .bytes_written = 1});
  EXPECT_TRUE(IsDiskFull(spool_->Append(ChunkEvent(3, "def"))));
  EXPECT_EQ(spool_->last_number(), 1);
  ASSERT_TRUE(spool_->Append(ChunkEvent(3, "xyz")).ok());
  EXPECT_EQ(Next(1).chunk().data(), "xyz");
}

TEST_F(SpoolTest, WhatCannotBeReadIsGivenUpAndTheEndTakesItsPlace) {
  for (const bool has_ended : {false, true}) {
    SCOPED_TRACE(has_ended);
    const std::string path = folder_.path() + (has_ended ? "/3.spool" : "/2.spool");
    const auto spool = Spool::Create(disk_, path);
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(spool->Append(ChunkEvent(i, "a")).ok());
    if (has_ended) {
      ASSERT_TRUE(spool->Append(DoneEvent()).ok());
    }
    disk_.PlanFault({.calls = {DiskCall::kRead}, .path_part = path, .error = EIO});
    const absl::Status error = spool->Next(1).status();
    EXPECT_FALSE(error.ok());
    EXPECT_EQ(spool->GiveUp(1, error), has_ended);
    EXPECT_FALSE((*spool->Next(1)).has_value());
    EXPECT_EQ(spool->Append(ChunkEvent(3, "a")), error);
    EXPECT_EQ(spool->Append(DoneEvent()), error);
    EXPECT_FALSE(spool->is_drained());
    ASSERT_TRUE(spool->Append(FailedEvent()).ok());
    EXPECT_EQ((*spool->Next(1))->number(), 2);
    EXPECT_TRUE((*spool->Next(1))->has_failed());
    EXPECT_EQ((*spool->Next(0))->chunk().data(), "a") << "what came before can still be sent again";
    spool->Acknowledge(2);
    EXPECT_TRUE(spool->is_drained());
  }
}

TEST_F(SpoolTest, WhatAShorterFileLacksCannotBeRead) {
  for (int i = 0; i < 2; ++i) ASSERT_TRUE(spool_->Append(ChunkEvent(3 * i, "abc")).ok());
  ASSERT_EQ(truncate(path_.c_str(), 5), 0);
  EXPECT_EQ(Next(0).chunk().data(), "abc");
  EXPECT_FALSE(spool_->Next(1).ok());
}

TEST_F(SpoolTest, AcknowledgedWhileItWasReadItIsNoError) {
  ASSERT_TRUE(spool_->Append(ChunkEvent(0, "abc")).ok());
  disk_.PlanFault({.calls = {DiskCall::kRead}, .error = EIO, .is_lasting = true});
  disk_.Hold(DiskCall::kRead, "1.spool");
  absl::StatusOr<std::optional<v1::AttemptEvent>> read = absl::InternalError("not yet");
  std::thread reader([&] { read = spool_->Next(0); });
  EXPECT_TRUE(disk_.WaitUntilHeld());
  spool_->Acknowledge(1);
  disk_.Release();
  reader.join();
  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_FALSE(read->has_value());
}

class SpoolFolderTest : public ::testing::Test {
 protected:
  absl::Status Prepare() { return PrepareSpoolFolder(disk_, root_.path() + "/spool/w1"); }
  kino::testing::TempDir root_;
  scheduler::SimulatedDisk disk_;
};

TEST_F(SpoolFolderTest, IsMadeAndEmptied) {
  ASSERT_EQ(Prepare(), absl::OkStatus());
  root_.Write("spool/w1/1.spool", "left over");
  root_.Write("spool/w2/1.spool", "another worker's");
  ASSERT_EQ(Prepare(), absl::OkStatus());
  EXPECT_TRUE(std::filesystem::is_empty(root_.path() + "/spool/w1"));
  EXPECT_TRUE(std::filesystem::exists(root_.path() + "/spool/w2/1.spool"));
  struct stat info {};
  ASSERT_EQ(stat((root_.path() + "/spool/w1").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0700u);
}

TEST_F(SpoolFolderTest, EveryFailureIsToldWithThePlaceAndTheNextTryMendsIt) {
  for (const int error : {ENOSPC, EIO, EMFILE}) {
    int count = 0;
    for (;; ++count) {
      root_.Write("spool/w1/1.spool", "left over");
      disk_.PlanFault({.count = count, .error = error});
      const absl::Status prepared = Prepare();
      if (disk_.faults_struck() == 0) break;
      EXPECT_EQ(prepared.code(), absl::StatusCode::kFailedPrecondition) << count;
      EXPECT_NE(std::string(prepared.message()).find(root_.path()), std::string::npos);
      EXPECT_EQ(Prepare(), absl::OkStatus());
      EXPECT_TRUE(std::filesystem::is_empty(root_.path() + "/spool/w1"));
    }
    EXPECT_EQ(count, 4) << "two folders, a list, a file";
  }
}

}  // namespace
}  // namespace kino::worker
