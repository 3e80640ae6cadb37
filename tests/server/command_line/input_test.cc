#include "server/command_line/input.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "tests/support/temp_dir.h"

namespace kino::command_line {
namespace {

using ::testing::ContainsRegex;
using ::testing::HasSubstr;

constexpr size_t kBytes = 2'500'001;  // three pieces, the last one smaller

std::string Pattern() {
  std::string bytes(kBytes, '\0');
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<char>(i * 31 % 251);
  return bytes;
}

std::string ReadAt(int fd) {
  std::string bytes(kBytes + 1, '\0');
  const ssize_t got = pread(fd, bytes.data(), bytes.size(), 0);
  bytes.resize(static_cast<size_t>(std::max<ssize_t>(got, 0)));
  return bytes;
}

// A pipe that gives `bytes` once.
class Giver {
 public:
  explicit Giver(const std::string& bytes) {
    EXPECT_EQ(pipe(ends_), 0);
    thread_ = std::thread([this, bytes] {
      size_t done = 0;
      while (done < bytes.size()) {
        const ssize_t wrote = write(ends_[1], bytes.data() + done, bytes.size() - done);
        if (wrote <= 0) break;
        done += static_cast<size_t>(wrote);
      }
      close(ends_[1]);
    });
  }
  ~Giver() {
    close(ends_[0]);
    thread_.join();
  }
  std::string name() const { return "/dev/fd/" + std::to_string(ends_[0]); }

 private:
  int ends_[2];
  std::thread thread_;
};

TEST(Input, AFileIsReadAsItIs) {
  const testing::TempDir folder;
  const std::string path = folder.Write("a", Pattern());
  const absl::StatusOr<int> fd = OpenInputFile(path, 10);
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_EQ(ReadAt(*fd), Pattern());
  close(*fd);
  EXPECT_EQ(*ReadInputText(path), Pattern());
}

TEST(Input, APipeIsReadOnceAndCanBeReadTwice) {
  const Giver giver(Pattern());
  const absl::StatusOr<int> fd = OpenInputFile(giver.name(), kBytes);
  ASSERT_TRUE(fd.ok()) << fd.status();
  EXPECT_EQ(ReadAt(*fd), Pattern());
  EXPECT_EQ(ReadAt(*fd), Pattern());
  close(*fd);
}

TEST(Input, TextComesOutOfAPipe) {
  const Giver giver("{\"prompt\": \"x\"}");
  EXPECT_EQ(*ReadInputText(giver.name()), "{\"prompt\": \"x\"}");
}

TEST(Input, APipeWithoutAnEndIsGivenUp) {
  signal(SIGPIPE, SIG_IGN);
  const Giver giver(Pattern());
  const absl::StatusOr<int> fd = OpenInputFile(giver.name(), kBytes - 1);
  ASSERT_FALSE(fd.ok());
  EXPECT_THAT(std::string(fd.status().message()), HasSubstr("more than 2500000 bytes"));
}

TEST(Input, WhatCannotBeReadIsNamed) {
  const testing::TempDir folder;
  for (const std::string& name : {folder.path() + "/absent", folder.path()}) {
    for (const absl::Status& status :
         {ReadInputText(name).status(), OpenInputFile(name, 10).status()}) {
      EXPECT_FALSE(status.ok());
      EXPECT_THAT(std::string(status.message()),
                  ContainsRegex("'" + name + "' cannot be read: [A-Z]"));
    }
  }
  const std::string empty = folder.Write("empty", "");
  EXPECT_THAT(std::string(ReadInputText(empty).status().message()), HasSubstr("empty"));
}

}  // namespace
}  // namespace kino::command_line
