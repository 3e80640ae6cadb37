// The frontend's parts that need no process: files, the watch hub.
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>

#include "server/digest/sha256.h"
#include "server/frontend/artifacts/file_store.h"
#include "server/frontend/watch/hub.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

class FileStoreTest : public ::testing::Test {
 protected:
  void SetUp() override {
    auto files = FileStore::Open(folder_.path());
    ASSERT_TRUE(files.ok()) << files.status();
    files_ = *std::move(files);
  }
  kino::testing::TempDir folder_;
  std::unique_ptr<FileStore> files_;
};

TEST_F(FileStoreTest, ReplayedAndOverlappingChunksAreWrittenOnceAndGapsRefused) {
  auto writer = files_->OpenWriter("job.1.mp4");
  ASSERT_TRUE(writer.ok());
  EXPECT_TRUE((*writer)->Append(0, "abcd").ok());
  EXPECT_TRUE((*writer)->Append(0, "abcd").ok());
  EXPECT_TRUE((*writer)->Append(2, "cdef").ok());
  EXPECT_EQ((*writer)->size(), 6);
  EXPECT_EQ((*writer)->Append(7, "x").code(), absl::StatusCode::kOutOfRange);
  EXPECT_EQ((*writer)->Append(-1, "x").code(), absl::StatusCode::kOutOfRange);
  const auto digest = files_->FinishVideo("job.1.mp4");
  ASSERT_TRUE(digest.ok());
  EXPECT_EQ(digest->size_bytes, 6);
  EXPECT_EQ(digest->sha256, digest::Sha256Of("abcdef"));
}

TEST_F(FileStoreTest, ReopenedWriterGoesOnAtTheEnd) {
  EXPECT_TRUE((*files_->OpenWriter("job.1.mp4"))->Append(0, "abc").ok());
  EXPECT_EQ((*files_->OpenWriter("job.1.mp4"))->size(), 3);
}

TEST_F(FileStoreTest, OpenVideoIsSharedAndOutlivesItsName) {
  EXPECT_TRUE((*files_->OpenWriter("job.1.mp4"))->Append(0, "abc").ok());
  const auto one = files_->OpenVideo("job.1.mp4");
  const auto two = files_->OpenVideo("job.1.mp4");
  ASSERT_TRUE(one.ok() && two.ok());
  EXPECT_EQ(*one, *two);
  files_->RemoveVideo("job.1.mp4");
  EXPECT_EQ(files_->OpenVideo("job.1.mp4").status().code(), absl::StatusCode::kNotFound);
  std::string bytes;
  EXPECT_TRUE((*one)->Read(1, 2, bytes).ok());
  EXPECT_EQ(bytes, "bc");
  EXPECT_EQ((*one)->Read(1, 3, bytes).code(), absl::StatusCode::kDataLoss);
}

TEST_F(FileStoreTest, UploadThatIsNotKeptLeavesNoFile) {
  std::string path;
  {
    auto upload = files_->CreateUpload();
    ASSERT_TRUE(upload.ok());
    path = (*upload)->path();
    EXPECT_TRUE((*upload)->Append("abc").ok());
    EXPECT_TRUE(std::filesystem::exists(path));
  }
  EXPECT_FALSE(std::filesystem::exists(path));
  auto kept = files_->CreateUpload();
  EXPECT_TRUE((*kept)->Append("abc").ok());
  EXPECT_TRUE(files_->KeepAsset(**kept, "asset").ok());
  kept->reset();
  EXPECT_TRUE(std::filesystem::exists(files_->AssetPath("asset")));
}

TEST_F(FileStoreTest, OnlyLiveFilesOutliveTheSweep) {
  for (const char* name : {"a.1.mp4", "b.1.mp4"}) ASSERT_TRUE(files_->OpenWriter(name).ok());
  const auto removed = files_->RemoveLeftovers([](const std::vector<std::string>& names) {
    std::vector<std::string> left_over = names;
    std::erase(left_over, "a.1.mp4");
    return absl::StatusOr<std::vector<std::string>>(std::move(left_over));
  });
  ASSERT_TRUE(removed.ok()) << removed.status();
  EXPECT_EQ(*removed, 1);
  EXPECT_TRUE(files_->OpenVideo("a.1.mp4").ok());
  EXPECT_FALSE(files_->OpenVideo("b.1.mp4").ok());
}

class Counter : public Wakeable {
 public:
  void Wake() override { ++wakes; }
  int wakes = 0;
};

v1::Progress ProgressOf(int attempt, double fraction) {
  v1::Progress progress;
  progress.set_attempt(attempt);
  progress.set_fraction(fraction);
  return progress;
}

TEST(WatchHubTest, WatcherIsWokenForItsOwnJobUntilItLeaves) {
  WatchHub hub;
  const auto watcher = std::make_shared<Counter>();
  hub.Subscribe("a", watcher);
  hub.OnState("b", 1);
  EXPECT_EQ(watcher->wakes, 0);
  hub.OnState("a", 3);
  EXPECT_EQ(watcher->wakes, 1);
  EXPECT_EQ(hub.View("a").state_number, 3);
  hub.Unsubscribe("a", watcher.get());
  hub.OnState("a", 4);
  EXPECT_EQ(watcher->wakes, 1);
  EXPECT_EQ(hub.watchers(), 0);
}

TEST(WatchHubTest, FractionNeverFallsWithinAnAttemptAndANewOneStartsOver) {
  WatchHub hub;
  hub.OnBytes("a", 1, 0);
  hub.OnProgress("a", ProgressOf(1, 0.5));
  hub.OnProgress("a", ProgressOf(1, 0.25));
  EXPECT_EQ(hub.View("a").progress->fraction(), 0.5);
  EXPECT_EQ(hub.View("a").progress_version, 2);
  hub.OnBytes("a", 2, 0);
  EXPECT_EQ(hub.View("a").progress, nullptr);
  hub.OnProgress("a", ProgressOf(2, 0.1));
  EXPECT_EQ(hub.View("a").progress->fraction(), 0.1);
}

TEST(WatchHubTest, EndOfAnOlderAttemptLeavesTheNewerAlone) {
  WatchHub hub;
  hub.OnBytes("a", 2, 7);
  hub.OnAttemptEnded("a", 1);
  EXPECT_EQ(hub.View("a").bytes, 7);
  hub.OnAttemptEnded("a", 2);
  EXPECT_EQ(hub.View("a").bytes, 0);
}

TEST(WatchHubTest, GoingAwayWakesEveryWatcher) {
  WatchHub hub;
  const auto one = std::make_shared<Counter>();
  const auto two = std::make_shared<Counter>();
  hub.Subscribe("a", one);
  hub.Subscribe("b", two);
  hub.GoAway();
  EXPECT_EQ(one->wakes + two->wakes, 2);
  EXPECT_TRUE(hub.View("a").is_going_away);
}

}  // namespace
}  // namespace kino::frontend
