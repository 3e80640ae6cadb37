#include "server/command_line/output_target.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <pty.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "tests/support/temp_dir.h"

namespace kino::command_line {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class OutputTargetTest : public ::testing::Test {
 protected:
  std::string Path(const std::string& name) const { return folder_.path() + "/" + name; }
  void ExpectRefused(const std::string& name, const std::string& kind) {
    for (const absl::Status& status :
         {OpenOutputTarget(name).status(), IsOutputStream(name).status()}) {
      EXPECT_FALSE(status.ok()) << name;
      EXPECT_THAT(std::string(status.message()), HasSubstr(kind));
      EXPECT_THAT(std::string(status.message()), HasSubstr("'" + name + "'"));
    }
  }
  std::string FileOf(const std::string& name) {
    const absl::StatusOr<OutputTarget> target = OpenOutputTarget(name);
    EXPECT_TRUE(target.ok()) << target.status();
    EXPECT_EQ(target->fd, -1);
    EXPECT_FALSE(*IsOutputStream(name));
    return target->file;
  }
  const testing::TempDir folder_;
};

TEST_F(OutputTargetTest, FilesThereAndNotThere) {
  EXPECT_EQ(FileOf(Path("absent")), Path("absent"));
  EXPECT_EQ(FileOf(folder_.Write("there", "x")), Path("there"));
  EXPECT_EQ(FileOf("a relative name that is absent"), "a relative name that is absent");
}

TEST_F(OutputTargetTest, LinksLeadToWhatIsReplaced) {
  folder_.Write("deep/there", "x");
  fs::create_symlink("deep/there", Path("to_file"));
  fs::create_symlink("to_file", Path("to_link"));
  fs::create_symlink("deep/absent", Path("to_absent"));
  fs::create_symlink(Path("to_absent"), Path("to_absent_link"));
  EXPECT_TRUE(fs::equivalent(FileOf(Path("to_file")), Path("deep/there")));
  EXPECT_TRUE(fs::equivalent(FileOf(Path("to_link")), Path("deep/there")));
  EXPECT_FALSE(fs::is_symlink(FileOf(Path("to_link"))));
  EXPECT_EQ(FileOf(Path("to_absent")), Path("deep/absent"));
  EXPECT_EQ(FileOf(Path("to_absent_link")), Path("deep/absent"));
  fs::create_symlink("circle", Path("circle"));
  ExpectRefused(Path("circle"), "Too many levels");
}

TEST_F(OutputTargetTest, WhatIsNoPlaceForAVideoIsNamed) {
  ExpectRefused(folder_.path(), "a folder");
  ExpectRefused(Path("absent/"), "a folder");
  fs::create_symlink(folder_.path(), Path("to_folder"));
  ExpectRefused(Path("to_folder"), "a folder");
  const int socket_fd = socket(AF_UNIX, SOCK_STREAM, 0);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  Path("socket").copy(address.sun_path, sizeof(address.sun_path) - 1);
  ASSERT_EQ(bind(socket_fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)), 0);
  ExpectRefused(Path("socket"), "a socket");
  close(socket_fd);
  const absl::StatusOr<OutputTarget> nowhere = OpenOutputTarget(Path("no/such/folder/"));
  EXPECT_FALSE(nowhere.ok());
}

TEST_F(OutputTargetTest, APipeIsWrittenInto) {
  ASSERT_EQ(mkfifo(Path("pipe").c_str(), 0600), 0);
  fs::create_symlink("pipe", Path("to_pipe"));
  EXPECT_TRUE(*IsOutputStream(Path("pipe")));
  std::string got(3, '\0');
  std::thread reader([&] {
    const int fd = open(Path("pipe").c_str(), O_RDONLY);
    EXPECT_EQ(read(fd, got.data(), got.size()), 3);
    close(fd);
  });
  const absl::StatusOr<OutputTarget> target = OpenOutputTarget(Path("to_pipe"));
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->file, "");
  EXPECT_FALSE(target->is_stdout);
  EXPECT_TRUE(WriteAll(target->fd, "abc", 3, "pipe").ok());
  close(target->fd);
  reader.join();
  EXPECT_EQ(got, "abc");
  EXPECT_TRUE(fs::is_fifo(Path("pipe")));
}

TEST_F(OutputTargetTest, ATerminalIsWrittenInto) {
  int ours = -1, theirs = -1;
  char name[256];
  ASSERT_EQ(openpty(&ours, &theirs, name, nullptr, nullptr), 0);
  const absl::StatusOr<OutputTarget> target = OpenOutputTarget(name);
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_TRUE(WriteAll(target->fd, "abc", 3, name).ok());
  char got[3];
  EXPECT_EQ(read(ours, got, 3), 3);
  EXPECT_TRUE(fs::is_character_file(name));
  for (const int fd : {target->fd, ours, theirs}) close(fd);
}

TEST_F(OutputTargetTest, StandardOutputByEveryName) {
  for (const char* name : {"-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"}) {
    const absl::StatusOr<OutputTarget> target = OpenOutputTarget(name);
    ASSERT_TRUE(target.ok()) << target.status();
    EXPECT_TRUE(target->is_stdout) << name;
    EXPECT_EQ(target->file, "");
    EXPECT_GT(target->fd, 2);
    EXPECT_TRUE(*IsOutputStream(name));
    close(target->fd);
  }
}

// Where it stands in the file is the descriptor's, not the file's: ">> log" goes on behind.
TEST_F(OutputTargetTest, AnOpenFileIsWrittenThroughItsDescriptor) {
  const std::string path = folder_.Write("log", "before ");
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND);
  const std::string name = "/dev/fd/" + std::to_string(fd);
  const absl::StatusOr<OutputTarget> target = OpenOutputTarget(name);
  ASSERT_TRUE(target.ok()) << target.status();
  EXPECT_EQ(target->file, "");
  EXPECT_FALSE(target->is_stdout);
  EXPECT_TRUE(WriteAll(target->fd, "after", 5, name).ok());
  EXPECT_EQ(fs::file_size(path), 12u);
  close(target->fd);
  close(fd);
  const int reading = open(path.c_str(), O_RDONLY);
  EXPECT_FALSE(OpenOutputTarget("/dev/fd/" + std::to_string(reading)).ok());
  close(reading);
  EXPECT_FALSE(OpenOutputTarget(name).ok()) << "closed by now";
}

TEST_F(OutputTargetTest, APartIsARegularFileOrAbsent) {
  const std::string stale = folder_.Write("stale.part", "left over");
  for (const std::string& part : {stale, Path("new.part")}) {
    const absl::StatusOr<int> fd = OpenPartFile(part);
    ASSERT_TRUE(fd.ok()) << fd.status();
    EXPECT_EQ(fs::file_size(part), 0u);
    close(*fd);
  }
  const std::string precious = folder_.Write("precious", "data");
  fs::create_symlink(precious, Path("link.part"));
  EXPECT_FALSE(OpenPartFile(Path("link.part")).ok());
  EXPECT_EQ(fs::file_size(precious), 4u);
  ASSERT_EQ(mkfifo(Path("pipe.part").c_str(), 0600), 0);
  EXPECT_FALSE(OpenPartFile(Path("pipe.part")).ok());
  const int reader = open(Path("pipe.part").c_str(), O_RDONLY | O_NONBLOCK);
  EXPECT_FALSE(OpenPartFile(Path("pipe.part")).ok());
  close(reader);
}

TEST_F(OutputTargetTest, ADescriptorThatTakesLittleGetsAll) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  fcntl(ends[1], F_SETFL, O_NONBLOCK);
  const std::string data(300'000, 'x');  // a pipe holds 64 KiB
  size_t got = 0;
  std::thread reader([&] {
    std::string piece(7'001, '\0');
    for (ssize_t size; (size = read(ends[0], piece.data(), piece.size())) > 0;) {
      got += static_cast<size_t>(size);
    }
  });
  EXPECT_TRUE(WriteAll(ends[1], data.data(), data.size(), "pipe").ok());
  fcntl(ends[1], F_SETFL, 0);
  EXPECT_TRUE(WriteAll(ends[1], data.data(), data.size(), "pipe", [] { return false; }).ok());
  close(ends[1]);
  reader.join();
  EXPECT_EQ(got, 2 * data.size());
  close(ends[0]);
}

}  // namespace
}  // namespace kino::command_line
