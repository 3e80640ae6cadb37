// The system's files, and the simulated disk's own promises.
#include "scheduler/files/file_layer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/seeded_random.h"
#include "tests/support/temp_dir.h"

namespace kino::scheduler {
namespace {

std::string ReadAll(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

// The same calls on both: a simulated disk without faults is a disk.
class FileLayerTest : public ::testing::TestWithParam<bool> {
 protected:
  FileLayer& files() { return GetParam() ? disk_ : RealFiles(); }
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }

  kino::testing::TempDir folder_;
  SimulatedDisk disk_;
};
INSTANTIATE_TEST_SUITE_P(All, FileLayerTest, ::testing::Bool(),
                         [](const auto& tested) { return tested.param ? "Simulated" : "Real"; });

TEST_P(FileLayerTest, OpensAsTheModeSays) {
  std::unique_ptr<File> file;
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kRead, file), ENOENT);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kWrite, file), ENOENT);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kCreateNew, file), 0);
  struct stat info {};
  ASSERT_EQ(stat(Path("a").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kCreateNew, file), EEXIST);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kCreate, file), 0);
  EXPECT_EQ(file->Write("x", 0), 0);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kWrite, file), 0);
  EXPECT_EQ(files().Open(Path("a"), OpenMode::kRead, file), 0);
  EXPECT_EQ(file->Write("x", 0), EBADF);
  ASSERT_EQ(symlink("a", Path("link").c_str()), 0);
  EXPECT_EQ(files().Open(Path("link"), OpenMode::kCreate, file), ELOOP);
}

TEST_P(FileLayerTest, ReadsAndWritesAtOffsets) {
  std::unique_ptr<File> file;
  ASSERT_EQ(files().Open(Path("a"), OpenMode::kCreate, file), 0);
  EXPECT_EQ(file->Write("world", 6), 0);
  EXPECT_EQ(file->Write("hello ", 0), 0);
  int64_t size = 0;
  EXPECT_EQ(file->Size(size), 0);
  EXPECT_EQ(size, 11);
  std::string out(20, '?');
  size_t got = 0;
  EXPECT_EQ(file->Read(out.data(), 5, 3, got), 0);
  EXPECT_EQ(out.substr(0, got), "lo wo");
  EXPECT_EQ(file->Read(out.data(), 20, 6, got), 0);
  EXPECT_EQ(out.substr(0, got), "world");
  EXPECT_EQ(file->Read(out.data(), 20, 11, got), 0);
  EXPECT_EQ(got, 0u);
  EXPECT_EQ(file->Truncate(4), 0);
  EXPECT_EQ(file->Sync(), 0);
  EXPECT_EQ(ReadAll(Path("a")), "hell");
}

TEST_P(FileLayerTest, PunchedBytesGiveTheirSpaceBackAndReadAsZeros) {
  std::unique_ptr<File> file;
  ASSERT_EQ(files().Open(Path("a"), OpenMode::kCreate, file), 0);
  ASSERT_EQ(file->Write(std::string(1 << 20, 'x') + "tail", 0), 0);
  struct stat before {
  }, after{};
  ASSERT_EQ(stat(Path("a").c_str(), &before), 0);
  ASSERT_EQ(file->Punch(0, 1 << 20), 0);
  ASSERT_EQ(stat(Path("a").c_str(), &after), 0);
  EXPECT_LT(after.st_blocks, before.st_blocks);
  EXPECT_TRUE(ReadAll(Path("a")) == std::string(1 << 20, '\0') + "tail");
}

TEST_P(FileLayerTest, OneOpenFileHasTheLock) {
  std::unique_ptr<File> holder, other;
  ASSERT_EQ(files().Open(Path("lock"), OpenMode::kCreate, holder), 0);
  ASSERT_EQ(files().Open(Path("lock"), OpenMode::kCreate, other), 0);
  EXPECT_EQ(holder->TryLock(), 0);
  EXPECT_EQ(other->TryLock(), EWOULDBLOCK);
  holder.reset();
  EXPECT_EQ(other->TryLock(), 0);
}

TEST_P(FileLayerTest, NamesComeAndGo) {
  ASSERT_EQ(files().MakeFolder(Path("f")), 0);
  EXPECT_EQ(files().MakeFolder(Path("f")), EEXIST);
  std::unique_ptr<File> file;
  for (const char* name : {"f/a", "f/b"}) {
    ASSERT_EQ(files().Open(Path(name), OpenMode::kCreate, file), 0);
    EXPECT_EQ(file->Write(name, 0), 0);
  }
  std::vector<std::string> names = {"before"};
  EXPECT_EQ(files().List(Path("f"), names), 0);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("a", "b"));
  EXPECT_EQ(files().Rename(Path("f/a"), Path("f/b")), 0);
  EXPECT_EQ(ReadAll(Path("f/b")), "f/a");
  EXPECT_EQ(files().Rename(Path("f/a"), Path("f/b")), ENOENT);
  EXPECT_EQ(files().SyncFolder(Path("f")), 0);
  EXPECT_EQ(files().Unlink(Path("f/b")), 0);
  EXPECT_EQ(files().Unlink(Path("f/b")), ENOENT);
  EXPECT_EQ(files().List(Path("f"), names), 0);
  EXPECT_TRUE(names.empty());
  EXPECT_EQ(files().List(Path("missing"), names), ENOENT);
  int64_t bytes = 0;
  EXPECT_EQ(files().FreeBytes(Path("f"), bytes), 0);
  EXPECT_GT(bytes, 0);
  EXPECT_EQ(files().FreeBytes(Path("missing"), bytes), ENOENT);
}

TEST(RealFilesTest, SyncsReachTheSystem) {
  // Which refuses to sync what is no file of a disk.
  std::unique_ptr<File> file;
  ASSERT_EQ(RealFiles().Open("/dev/null", OpenMode::kWrite, file), 0);
  EXPECT_EQ(file->Sync(), EINVAL);
  EXPECT_EQ(RealFiles().SyncFolder("/proc"), EINVAL);
  EXPECT_EQ(RealFiles().SyncFolder("/nowhere/at/all"), ENOENT);
}

TEST(RealFilesTest, WriteThatIsCutShortGoesOnUntilItsError) {
  kino::testing::TempDir folder;
  std::unique_ptr<File> file;
  ASSERT_EQ(RealFiles().Open(folder.path() + "/a", OpenMode::kCreate, file), 0);
  // The system writes up to the limit first and fails only then.
  signal(SIGXFSZ, SIG_IGN);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  rlimit limited = before;
  limited.rlim_cur = 1000;
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &limited), 0);
  const int error = file->Write(std::string(1500, 'x'), 0);
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(error, EFBIG);
  EXPECT_EQ(ReadAll(folder.path() + "/a"), std::string(1000, 'x'));
}

class SimulatedDiskTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  std::unique_ptr<File> Create(const std::string& name) {
    std::unique_ptr<File> file;
    EXPECT_EQ(disk_.Open(Path(name), OpenMode::kCreate, file), 0);
    return file;
  }

  kino::testing::TempDir folder_;
  SimulatedDisk disk_;
  SeededRandom random_{1};
};

TEST_F(SimulatedDiskTest, FailsTheCallThatIsPlanned) {
  auto a = Create("a"), b = Create("b");
  disk_.PlanFault(
      {.calls = {DiskCall::kWrite}, .path_part = Path("a"), .count = 1, .error = ENOSPC});
  EXPECT_EQ(a->Write("1", 0), 0);
  EXPECT_EQ(b->Write("1", 0), 0);
  EXPECT_EQ(a->Sync(), 0);
  EXPECT_EQ(a->Write("2", 1), ENOSPC);
  EXPECT_EQ(a->Write("2", 1), 0);
  EXPECT_EQ(disk_.faults_struck(), 1);
  disk_.PlanFault({.count = 0, .error = EIO, .is_lasting = true});
  EXPECT_EQ(a->Sync(), EIO);
  EXPECT_EQ(b->Sync(), EIO);
  EXPECT_EQ(disk_.faults_struck(), 2);
  disk_.Heal();
  EXPECT_EQ(b->Sync(), 0);
  EXPECT_EQ(disk_.calls(DiskCall::kWrite), 4);
}

TEST_F(SimulatedDiskTest, HoldsCallsUntilTheyAreReleased) {
  auto a = Create("a");
  disk_.Hold(DiskCall::kSync, "/a", "held");
  EXPECT_EQ(a->Sync(), 0) << "this thread has another name";
  bool is_synced = false;
  std::thread thread([&] {
    pthread_setname_np(pthread_self(), "held");
    is_synced = a->Sync() == 0;
  });
  EXPECT_TRUE(disk_.WaitUntilHeld());
  EXPECT_FALSE(is_synced);
  disk_.Release();
  thread.join();
  EXPECT_TRUE(is_synced);
}

TEST_F(SimulatedDiskTest, APowerCutLeavesWhatWasSynced) {
  Create("before")->Write("old", 0);
  disk_.TrackPower(folder_.path());
  auto synced = Create("synced"), unsynced = Create("unsynced"), nameless = Create("nameless");
  EXPECT_EQ(synced->Write("12", 0), 0);
  EXPECT_EQ(synced->Sync(), 0);
  EXPECT_EQ(synced->Write("3", 2), 0);
  EXPECT_EQ(unsynced->Write("x", 0), 0);
  EXPECT_EQ(disk_.SyncFolder(folder_.path()), 0);
  EXPECT_EQ(disk_.Unlink(Path("nameless")), 0);
  auto late = Create("late");
  EXPECT_EQ(late->Sync(), 0);
  EXPECT_EQ(disk_.Rename(Path("synced"), Path("renamed")), 0);
  EXPECT_EQ(disk_.syncs().size(), 3u);
  disk_.CutPowerAfter(0);
  EXPECT_EQ(synced->Write("4", 3), EIO);
  EXPECT_TRUE(disk_.is_cut());
  EXPECT_EQ(synced->Sync(), EIO);
  for (auto* file : {&synced, &unsynced, &nameless, &late}) file->reset();
  disk_.Restore(Survival::kNothing, random_);
  std::vector<std::string> names;
  EXPECT_EQ(disk_.List(folder_.path(), names), 0);
  EXPECT_THAT(names, ::testing::UnorderedElementsAre("before", "synced", "unsynced", "nameless"));
  EXPECT_EQ(ReadAll(Path("before")), "old");
  EXPECT_EQ(ReadAll(Path("synced")), "12");
  EXPECT_EQ(ReadAll(Path("unsynced")), "");
}

TEST_F(SimulatedDiskTest, APowerCutLeavesAPunchThatWasSynced) {
  disk_.TrackPower(folder_.path());
  auto a = Create("a");
  EXPECT_EQ(a->Write("1234", 0), 0);
  EXPECT_EQ(a->Punch(0, 2), 0);
  EXPECT_EQ(a->Sync(), 0);
  EXPECT_EQ(a->Punch(2, 100), 0);
  EXPECT_EQ(disk_.SyncFolder(folder_.path()), 0);
  a.reset();
  disk_.Restore(Survival::kNothing, random_);
  EXPECT_EQ(ReadAll(Path("a")), std::string("\0\0"
                                            "34",
                                            4));
}

TEST_F(SimulatedDiskTest, APowerCutMayLeaveMore) {
  disk_.TrackPower(folder_.path());
  EXPECT_EQ(disk_.MakeFolder(Path("f")), 0);
  Create("f/a")->Write("12", 0);
  EXPECT_EQ(disk_.Rename(Path("f/a"), Path("f/b")), 0);
  disk_.Restore(Survival::kEverything, random_);
  EXPECT_EQ(ReadAll(Path("f/b")), "12");
  EXPECT_FALSE(std::filesystem::exists(Path("f/a")));
  // It is durable now, as it is found.
  disk_.Restore(Survival::kNothing, random_);
  EXPECT_EQ(ReadAll(Path("f/b")), "12");
}

TEST_F(SimulatedDiskTest, OmittedSyncsAreToldAndNotDone) {
  disk_.TrackPower(folder_.path());
  auto a = Create("a");
  EXPECT_EQ(disk_.SyncFolder(folder_.path()), 0);
  disk_.OmitSyncs(2, 2);
  EXPECT_EQ(a->Write("1", 0), 0);
  EXPECT_EQ(a->Sync(), 0);
  a.reset();
  disk_.Restore(Survival::kNothing, random_);
  EXPECT_EQ(ReadAll(Path("a")), "");
}

TEST_F(SimulatedDiskTest, FilesInAFolderWhoseNameIsLostAreLost) {
  disk_.TrackPower(folder_.path());
  EXPECT_EQ(disk_.MakeFolder(Path("f")), 0);
  auto a = Create("f/a");
  EXPECT_EQ(a->Sync(), 0);
  EXPECT_EQ(disk_.SyncFolder(Path("f")), 0);
  a.reset();
  disk_.Restore(Survival::kNothing, random_);
  EXPECT_FALSE(std::filesystem::exists(Path("f")));
}

}  // namespace
}  // namespace kino::scheduler
