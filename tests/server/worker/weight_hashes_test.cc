// The weights' hash against sha256sum, and when files are read again.
#include "server/worker/weight_hashes.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/scheduler/files/simulated_disk.h"
#include "tests/support/temp_dir.h"

namespace kino::worker {
namespace {

using scheduler::DiskCall;

class WeightHashesTest : public ::testing::Test {
 protected:
  WeightHashesTest() {
    // Sorted otherwise than a dictionary would; more than one piece is read of one.
    paths_ = {Path("transformer/b.safetensors"), Path("Vae/a.safetensors"),
              Path("transformer/B.safetensors")};
    folder_.Write("model/transformer/b.safetensors", std::string((2 << 20) + 12345, 'x'));
    folder_.Write("model/transformer/B.safetensors", "two");
    folder_.Write("model/Vae/a.safetensors", "three");
  }
  std::string Path(const std::string& name) const { return folder_.path() + "/model/" + name; }

  static void Await(const WeightHashes& hashes) {
    for (int i = 0; i < 60000 && !hashes.is_idle(); ++i) absl::SleepFor(absl::Milliseconds(1));
    ASSERT_TRUE(hashes.is_idle());
  }
  // By a process of its own, so to say.
  std::string Hash(int64_t* bytes_read = nullptr) {
    WeightHashes hashes(disk_, folder_.path() + "/data/weights");
    hashes.Want("m", folder_.path() + "/model", paths_);
    Await(hashes);
    if (bytes_read != nullptr) *bytes_read = hashes.bytes_read();
    return hashes.Known("m");
  }
  // What a user would type.
  std::string Sha256Sum() {
    const std::string out = folder_.path() + "/sum";
    EXPECT_EQ(std::system(absl::StrCat("cd ", folder_.path(),
                                       "/model && sha256sum $(find -name '*.safetensors' -printf "
                                       "'%P ') | LC_ALL=C sort -k 2 | sha256sum > ",
                                       out)
                              .c_str()),
              0);
    std::ostringstream text;
    text << std::ifstream(out).rdbuf();
    return text.str().substr(0, 64);
  }
  // Changes one byte and sets the times back.
  void Forge(const std::string& path, char byte) {
    struct stat before {
    }, after{};
    ASSERT_EQ(stat(path.c_str(), &before), 0);
    // The file system's clock may tick seldom.
    do {
      {
        std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
        file.put(byte);
      }
      const timespec times[2] = {before.st_atim, before.st_mtim};
      ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
      ASSERT_EQ(stat(path.c_str(), &after), 0);
    } while (after.st_ctim.tv_sec == before.st_ctim.tv_sec &&
             after.st_ctim.tv_nsec == before.st_ctim.tv_nsec);
    EXPECT_EQ(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
    EXPECT_EQ(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
    EXPECT_EQ(after.st_size, before.st_size);
  }

  static constexpr int64_t kAll = (2 << 20) + 12345 + 3 + 5;
  kino::testing::TempDir folder_;
  scheduler::SimulatedDisk disk_;
  std::vector<std::string> paths_;
};

TEST_F(WeightHashesTest, IsWhatSha256SumSays) { EXPECT_EQ(Hash(), Sha256Sum()); }

TEST_F(WeightHashesTest, ARestartReadsNothingAgainAndAChangedFileAlone) {
  int64_t bytes = 0;
  const std::string first = Hash(&bytes);
  EXPECT_EQ(bytes, kAll);
  EXPECT_EQ(Hash(&bytes), first);
  EXPECT_EQ(bytes, 0);
  Forge(Path("Vae/a.safetensors"), 'T');
  const std::string second = Hash(&bytes);
  EXPECT_EQ(bytes, 5);
  EXPECT_NE(second, first);
  EXPECT_EQ(second, Sha256Sum());
  // Another file under the name of one that is known.
  folder_.Write("model/new", "THREE");
  std::filesystem::rename(Path("new"), Path("Vae/a.safetensors"));
  EXPECT_EQ(Hash(&bytes), Sha256Sum());
  EXPECT_EQ(bytes, 5);
}

TEST_F(WeightHashesTest, AFileOutsideOfTheFolderGoesByItsName) {
  paths_.push_back(folder_.Write("elsewhere/t.gguf", "four"));
  const std::string outside = Hash();
  paths_.back() = folder_.Write("model/t.gguf", "four");
  EXPECT_EQ(Hash(), outside);
}

TEST_F(WeightHashesTest, WhatCannotBeReadOrIsNothingHasNoHash) {
  paths_.push_back(Path("missing.safetensors"));
  EXPECT_EQ(Hash(), "");
  paths_.clear();
  EXPECT_EQ(Hash(), "");
}

// Reads that stop half-way: the file is a pipe, of which a test gives one piece after the other.
class SlowWeightsTest : public WeightHashesTest {
 protected:
  SlowWeightsTest() {
    pipe_ = folder_.path() + "/model/pipe";
    EXPECT_EQ(mkfifo(pipe_.c_str(), 0600), 0);
  }
  std::string pipe_;
};

TEST_F(SlowWeightsTest, AFileThatChangesWhileItIsReadHasNoHashAndIsNotKept) {
  WeightHashes hashes(disk_, folder_.path() + "/data/weights");
  hashes.Want("m", folder_.path() + "/model", {pipe_});
  {
    std::ofstream writer(pipe_, std::ios::binary);  // opens once the reader does
    writer << "some";
    writer.flush();
    while (hashes.bytes_read() < 4) absl::SleepFor(absl::Milliseconds(1));
    // A pipe's time of change is that of its mode as well.
    ASSERT_EQ(chmod(pipe_.c_str(), 0644), 0);
  }
  Await(hashes);
  EXPECT_EQ(hashes.Known("m"), "");
  EXPECT_EQ(disk_.calls(DiskCall::kRename), 0) << "nothing was to be kept";
}

TEST_F(SlowWeightsTest, WhatIsUnloadedIsReadNoFurther) {
  WeightHashes hashes(disk_, "");
  hashes.Want("m", folder_.path() + "/model", {pipe_, paths_[0]});
  std::ofstream writer(pipe_, std::ios::binary);
  writer << "some";
  writer.flush();
  while (hashes.bytes_read() < 4) absl::SleepFor(absl::Milliseconds(1));
  hashes.Forget("m");
  writer << "more";
  writer.close();
  Await(hashes);
  EXPECT_LE(hashes.bytes_read(), 8) << "the next file was not begun";
  EXPECT_EQ(hashes.Known("m"), "");
  // Loaded again: found anew.
  hashes.Want("m", folder_.path() + "/model", {paths_[1]});
  Await(hashes);
  EXPECT_EQ(hashes.Known("m").size(), 64u);
}

TEST_F(SlowWeightsTest, AnEndDoesNotWaitForTheRest) {
  auto hashes = std::make_unique<WeightHashes>(disk_, "");
  hashes->Want("m", folder_.path() + "/model", {pipe_, paths_[0]});
  std::ofstream writer(pipe_, std::ios::binary);
  writer << "some";
  writer.flush();
  while (hashes->bytes_read() < 4) absl::SleepFor(absl::Milliseconds(1));
  std::thread end([&] { hashes.reset(); });
  writer << "more";
  writer.close();
  end.join();
}

TEST_F(WeightHashesTest, WhicheverCallOfItsCacheFailsTheHashIsFound) {
  const std::string expected = Sha256Sum();
  for (const int error : {ENOSPC, EIO, EMFILE}) {
    int count = 0;
    for (;; ++count) {
      std::filesystem::remove_all(folder_.path() + "/data");
      disk_.PlanFault({.count = count, .error = error});
      EXPECT_EQ(Hash(), expected) << count;
      const bool has_struck = disk_.faults_struck() > 0;
      disk_.Heal();
      // The next one finds a cache that is whole, or none.
      int64_t bytes = 0;
      EXPECT_EQ(Hash(&bytes), expected) << count;
      EXPECT_LE(bytes, kAll);
      if (!has_struck) break;
    }
    EXPECT_GT(count, 10);
  }
}

TEST_F(WeightHashesTest, ACacheThatIsCutShortOrNoneIsReadAsFarAsItGoes) {
  const std::string expected = Hash();
  const std::string cache = folder_.path() + "/data/weights";
  std::ostringstream whole;
  whole << std::ifstream(cache).rdbuf();
  for (const std::string& text :
       {std::string(), std::string("nonsense\n\n x\n"), std::string(100, '\0'),
        whole.str().substr(0, whole.str().size() - 10), std::string(2 << 20, 'a')}) {
    std::ofstream(cache, std::ios::trunc) << text;
    int64_t bytes = 0;
    EXPECT_EQ(Hash(&bytes), expected);
    EXPECT_GT(bytes, 0);
  }
}

}  // namespace
}  // namespace kino::worker
