// The probe of uploads, with a decoder that a test writes: whose fault a failure is.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "server/frontend/rpc/probe.h"
#include "tests/support/temp_dir.h"

namespace kino::frontend {
namespace {

class ProbeTest : public ::testing::Test {
 protected:
  absl::Status Probe(const std::string& script, absl::Duration timeout = absl::Seconds(60)) {
    const std::string program = folder_.Write("kino-media", "#!/bin/sh\n" + script);
    std::filesystem::permissions(program, std::filesystem::perms(0755));
    media::DecodeOptions options;
    options.kino_media_path = program;
    options.timeout = timeout;
    return MakeProbe(config::LimitsConfig(), options)(folder_.Write("upload", "bytes")).status();
  }
  // The clients hear that it is not now; no path, no errno.
  static void ExpectNotNow(const absl::Status& status) {
    EXPECT_TRUE(absl::IsUnavailable(status)) << status;
    EXPECT_FALSE(absl::StrContains(status.message(), "/")) << status;
  }
  kino::testing::TempDir folder_;
};

TEST_F(ProbeTest, WhatIsWrongWithTheFileIsTheClients) {
  const absl::Status broken = Probe("echo 'INVALID: broken file' >&2; exit 3");
  EXPECT_TRUE(absl::IsInvalidArgument(broken)) << broken;
  const absl::Status large = Probe("echo 'LIMIT: too many pixels' >&2; exit 8");
  EXPECT_TRUE(absl::IsInvalidArgument(large)) << large;
  EXPECT_EQ(large.message(), "too many pixels");
}

TEST_F(ProbeTest, DecoderThatIsNotThroughInTimeIsNotTheClients) {
  ExpectNotNow(Probe("while :; do :; done", absl::Milliseconds(50)));
}

TEST_F(ProbeTest, ServerThatStopsIsNotTheClients) {
  engine::CancelToken stop;
  stop.Cancel();
  media::DecodeOptions options;
  options.cancel = &stop;
  options.kino_media_path = folder_.Write("kino-media", "#!/bin/sh\nexec sleep 1000\n");
  std::filesystem::permissions(options.kino_media_path, std::filesystem::perms(0755));
  ExpectNotNow(
      MakeProbe(config::LimitsConfig(), options)(folder_.Write("upload", "bytes")).status());
}

TEST_F(ProbeTest, CrashIsTheServers) { EXPECT_TRUE(absl::IsInternal(Probe("kill -SEGV $$"))); }

TEST_F(ProbeTest, NoDescriptorLeftIsNotTheClientsAtAnyStep) {
  const std::string upload = folder_.Write("upload", "bytes");
  media::DecodeOptions options;
  options.kino_media_path = folder_.Write("kino-media", "#!/bin/sh\nexit 3\n");
  std::filesystem::permissions(options.kino_media_path, std::filesystem::perms(0755));
  const MediaProbe probe = MakeProbe(config::LimitsConfig(), options);
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<int> taken;
  for (int fd = open("/dev/null", O_RDONLY); fd >= 0; fd = open("/dev/null", O_RDONLY)) {
    taken.push_back(fd);
  }
  // From none that is free to as many as it takes.
  std::vector<absl::Status> refused;
  absl::Status status = probe(upload).status();
  for (; !absl::IsInvalidArgument(status) && !taken.empty(); status = probe(upload).status()) {
    refused.push_back(status);
    close(taken.back());
    taken.pop_back();
  }
  for (const int fd : taken) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_GT(refused.size(), 3u);
  for (const absl::Status& each : refused) ExpectNotNow(each);
}

TEST_F(ProbeTest, UploadThatIsGoneIsNotTheClients) {
  media::DecodeOptions options;
  options.kino_media_path = "/bin/true";
  ExpectNotNow(MakeProbe(config::LimitsConfig(), options)(folder_.path() + "/none").status());
}

}  // namespace
}  // namespace kino::frontend
