// Whether what is written is durable. server/config may not use the file layer (tests/layering), so
// that no simulated disk can stand behind it: this program's own fsync stands before the system's.
#include <errno.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "server/config/data_dir.h"
#include "tests/support/temp_dir.h"

namespace {

// What the test follows while it is set.
struct Syncs {
  std::string target;
  int fail_at = 0;  // the number of the one that fails, from 1
  int count = 0;
  // Of each: what was synced, and what the target held by then.
  std::vector<std::string> told{};
};
Syncs* following = nullptr;

std::string ContentOf(const std::string& path) {
  const auto content = kino::config::ReadSmallFile(path, 100);
  return content.ok() ? *content : "nothing";
}

std::string NameOf(int fd) {
  return std::filesystem::read_symlink("/proc/self/fd/" + std::to_string(fd)).string();
}

}  // namespace

extern "C" int fsync(int fd) {
  if (following != nullptr) {
    const std::string path = NameOf(fd);
    const bool is_temporary = absl::StartsWith(path, following->target + ".tmp.");
    const std::string what = is_temporary ? "temporary file with " + ContentOf(path) : path;
    following->told.push_back(what + " while there is " + ContentOf(following->target));
    if (++following->count == following->fail_at) {
      errno = EIO;
      return -1;
    }
  }
  return static_cast<int>(syscall(SYS_fsync, fd));
}

namespace kino::config {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class DurableTest : public ::testing::Test {
 protected:
  DurableTest() {
    EXPECT_TRUE(WriteFileAtomically(path_, "old", 0600).ok());
    following = &syncs_;
  }
  ~DurableTest() override { following = nullptr; }

  std::vector<std::string> Names() const {
    std::vector<std::string> names;
    for (const auto& entry : std::filesystem::directory_iterator(folder_.path()))
      names.push_back(entry.path().filename());
    return names;
  }

  const testing::TempDir folder_;
  const std::string path_ = folder_.path() + "/note";
  Syncs syncs_{.target = path_};
};

TEST_F(DurableTest, ContentIsSyncedBeforeItHasTheNameAndTheNameAfterwards) {
  ASSERT_TRUE(WriteFileAtomically(path_, "new", 0600).ok());
  EXPECT_THAT(syncs_.told, ElementsAre("temporary file with new while there is old",
                                       folder_.path() + " while there is new"));
}

TEST_F(DurableTest, FileThatCannotBeSyncedLeavesTheOldOne) {
  syncs_.fail_at = 1;
  const absl::Status written = WriteFileAtomically(path_, "new", 0600);
  EXPECT_THAT(written.message(), HasSubstr("cannot write"));
  EXPECT_EQ(ContentOf(path_), "old");
  EXPECT_THAT(Names(), ElementsAre("note"));
}

TEST_F(DurableTest, FolderThatCannotBeSyncedIsAnError) {
  syncs_.fail_at = 2;
  const absl::Status written = WriteFileAtomically(path_, "new", 0600);
  EXPECT_THAT(written.message(), HasSubstr("cannot sync the folder"));
  EXPECT_THAT(Names(), ElementsAre("note"));
}

}  // namespace
}  // namespace kino::config
