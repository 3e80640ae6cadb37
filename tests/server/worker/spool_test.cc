#include "server/worker/spool.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>

namespace kino::worker {
namespace {

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
  const std::string path_ = testing::TempDir() + "/test.spool";
  std::unique_ptr<Spool> spool_ = *Spool::Create(path_);

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

TEST(Spool, WithoutAFileItTakesAllButChunks) {
  const auto spool = Spool::WithoutFile();
  EXPECT_EQ(spool->Append(ChunkEvent(0, "abc")).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_TRUE(spool->Append(DoneEvent()).ok());
  auto event = spool->Next(0);
  ASSERT_TRUE(event.ok() && event->has_value());
  EXPECT_EQ((*event)->number(), 1);
  spool->Acknowledge(1);
  EXPECT_TRUE(spool->is_drained());
}

TEST(Spool, AnUnwritableFolderIsNamed) {
  const auto spool = Spool::Create("/nonexistent/x.spool");
  ASSERT_FALSE(spool.ok());
  EXPECT_FALSE(IsDiskFull(spool.status())) << "room has nothing to do with it";
  EXPECT_NE(std::string(spool.status().message()).find("/nonexistent/x.spool"), std::string::npos);
}

}  // namespace
}  // namespace kino::worker
