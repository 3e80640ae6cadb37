// The data folder, the control link and the log: what several processes share.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <fstream>
#include <string>
#include <variant>

#include "server/config/config.h"
#include "server/config/control.h"
#include "server/config/data_dir.h"
#include "server/config/log.h"
#include "tests/support/temp_dir.h"

namespace kino::config {
namespace {

using ::testing::EndsWith;

Config ConfigIn(const std::string& data_dir) {
  Config config;
  config.data_dir = data_dir;
  return config;
}

unsigned ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 0777;
}

TEST(DataDirTest, FolderAndSecretAreClosedToOthersAndTheSecretStays) {
  const kino::testing::TempDir folder;
  const Config config = ConfigIn(folder.path() + "/a/data");
  ASSERT_TRUE(PrepareDataDir(config).ok());
  ASSERT_TRUE(PrepareLinkFolder(config).ok());
  EXPECT_EQ(ModeOf(config.data_dir), 0700u);
  EXPECT_EQ(ReadLinkSecret(config).status().code(), absl::StatusCode::kNotFound);
  const absl::StatusOr<std::string> secret = EnsureLinkSecret(config);
  ASSERT_TRUE(secret.ok()) << secret.status();
  EXPECT_EQ(secret->size(), 64u);
  EXPECT_EQ(*EnsureLinkSecret(config), *secret);
  EXPECT_EQ(*ReadLinkSecret(config), *secret);
  EXPECT_EQ(ModeOf(config.data_dir + "/run/link.secret"), 0600u);
}

TEST(DataDirTest, FolderUnderAFileIsRefusedByName) {
  const kino::testing::TempDir folder;
  std::ofstream(folder.path() + "/file") << "x";
  const absl::Status status = PrepareDataDir(ConfigIn(folder.path() + "/file/data"));
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr(folder.path() + "/file"));
}

TEST(DataDirTest, LongFolderGetsASocketThatFits) {
  const kino::testing::TempDir folder;
  EXPECT_EQ(LinkSocketPath(ConfigIn("/d")), "/d/run/link.sock");
  const std::string deep = folder.path() + "/" + std::string(120, 'x');
  const std::string socket = LinkSocketPath(ConfigIn(deep));
  EXPECT_LT(socket.size(), 108u);
  EXPECT_NE(socket, LinkSocketPath(ConfigIn(deep + "y")));
}

TEST(DataDirTest, AddressFileIsReplacedWhole) {
  const kino::testing::TempDir folder;
  const Config config = ConfigIn(folder.path());
  ASSERT_TRUE(WriteAddressFile(config, "x.addr", "127.0.0.1:1").ok());
  ASSERT_TRUE(WriteAddressFile(config, "x.addr", "127.0.0.1:2").ok());
  EXPECT_EQ(*ReadSmallFile(folder.path() + "/x.addr", 100), "127.0.0.1:2\n");
  EXPECT_EQ(ReadSmallFile(folder.path() + "/x.addr", 3).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(ControlTest, MessagesPassTheSocketAsTheyAre) {
  int ends[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, ends), 0);
  EXPECT_EQ(ReceiveControl(ends[1]).status().code(), absl::StatusCode::kNotFound);
  ASSERT_TRUE(SendControl(ends[0], WorkerStarted{.worker = "cpu", .pid = 7}).ok());
  ASSERT_TRUE(
      SendControl(ends[0], WorkerExited{.worker = "cpu", .pid = 7, .signal = 9, .exit_code = 0})
          .ok());
  ASSERT_TRUE(SendControl(ends[0], MachineStopping{}).ok());
  EXPECT_EQ(std::get<WorkerStarted>(*ReceiveControl(ends[1])).pid, 7);
  EXPECT_EQ(std::get<WorkerExited>(*ReceiveControl(ends[1])).signal, 9);
  EXPECT_TRUE(std::holds_alternative<MachineStopping>(*ReceiveControl(ends[1])));
  close(ends[0]);
  EXPECT_EQ(ReceiveControl(ends[1]).status().code(), absl::StatusCode::kUnavailable);
  close(ends[1]);
}

TEST(ControlTest, OtherTextIsRefused) {
  for (const char* packet : {"", "kill", "kill cpu", "kill cpu x", "kill cpu -1", "kill ../x 1",
                             "exited cpu 1 2", "started cpu 1 2", "stop"}) {
    EXPECT_EQ(DecodeControl(packet).status().code(), absl::StatusCode::kInvalidArgument) << packet;
  }
}

TEST(LogTest, WhatIsInAMessageNeitherBreaksTheLineNorSteersATerminal) {
  const LogLine line{.time = absl::UnixEpoch(),
                     .level = "error",
                     .process = "worker cpu-0",
                     .message =
                         "a\"b\\c\nd\x1b[31m\x7f \xc2\x9b"
                         "31m \xc3\xa4 \xff"};
  EXPECT_THAT(PlainLine(line), EndsWith(" worker cpu-0 error: a\"b\\c\\x0ad\\x1b[31m\\x7f \\x9b"
                                        "31m \xc3\xa4 "
                                        "\xef\xbf\xbd\n"));
  EXPECT_EQ(JsonLine(line),
            "{\"time\":\"1970-01-01T00:00:00.000Z\",\"level\":\"error\",\"process\":\"worker "
            "cpu-0\",\"message\":\"a\\\"b\\\\c\\u000ad\\u001b[31m\\u007f \\u009b"
            "31m \xc3\xa4 "
            "\xef\xbf\xbd\"}\n");
}

}  // namespace
}  // namespace kino::config
