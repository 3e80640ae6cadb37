#include "engine/media/video_decode.h"

#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <random>
#include <set>
#include <string>

#include "absl/strings/match.h"
#include "engine/media/npy.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::engine {
namespace {

absl::Status Ignore(const RgbImage&) { return absl::OkStatus(); }

std::string CorpusFile(const std::string& name) {
  return ReadFile(VideoCorpus().scratch.path(name));
}

TEST(VideoDecodeTest, FramesAreTheOnesLoadVideoGives) {
  std::set<std::string> codecs;
  for (const auto& row : VideoCorpus().index) {
    if (row[0] != "video") continue;
    SCOPED_TRACE(row[1]);
    const auto want = ReadNpy(VideoCorpus().scratch.path(row[2]));
    EXPECT_TRUE(want.ok()) << want.status();
    if (!want.ok()) continue;
    std::string got;
    const auto info = DecodeVideo(CorpusFile(row[1]), {}, [&](const RgbImage& frame) {
      got.append(frame.rgb.begin(), frame.rgb.end());
      return absl::OkStatus();
    });
    EXPECT_TRUE(info.ok()) << info.status();
    if (!info.ok()) continue;
    EXPECT_EQ(info->num_frames, want->shape[0]);
    EXPECT_EQ(info->height, want->shape[1]);
    EXPECT_EQ(info->width, want->shape[2]);
    EXPECT_EQ(info->codec, row[3]);
    EXPECT_EQ(info->frame_rate.num, std::stoi(row[4]));
    EXPECT_EQ(info->frame_rate.den, std::stoi(row[5]));
    codecs.insert(info->codec);
    EXPECT_EQ(got.size(), want->data.size());
    if (got.size() != want->data.size()) continue;
    int64_t sum = 0;
    int largest = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      const int difference =
          std::abs(static_cast<uint8_t>(got[i]) - static_cast<uint8_t>(want->data[i]));
      sum += difference;
      largest = std::max(largest, difference);
    }
    // Another FFmpeg on another processor rounds otherwise.
    EXPECT_LE(static_cast<double>(sum), 0.5 * static_cast<double>(got.size()));
    EXPECT_LE(largest, std::stoi(row[6]));
  }
  EXPECT_THAT(codecs, ::testing::UnorderedElementsAreArray(kVideoCodecs));
}

TEST(VideoDecodeTest, WhatIsNotReadIsRefusedByName) {
  int cases = 0;
  for (const auto& row : VideoCorpus().index) {
    if (row[0] != "refused") continue;
    ++cases;
    const auto info = DecodeVideo(CorpusFile(row[1]), {}, Ignore);
    EXPECT_EQ(info.status().code(), absl::StatusCode::kInvalidArgument) << row[1] << info.status();
    EXPECT_THAT(std::string(info.status().message()), ::testing::HasSubstr(row[2])) << row[1];
  }
  EXPECT_GT(cases, 15);
  EXPECT_EQ(DecodeVideo(CorpusFile("prores.mov"), {}, Ignore).status().message(),
            "the video's codec is prores; can be read: h264, hevc, av1, vp9, vp8, ffv1, mpeg4, "
            "mjpeg");
}

// Frames that are given again count as any others.
TEST(VideoDecodeTest, LimitsHoldFramesThatAreGivenAgain) {
  const std::string bytes = CorpusFile("gaps.mkv");  // 11 frames that take 18 at 24 a second
  EXPECT_TRUE(DecodeVideo(bytes, {.max_frames = 18}, Ignore).ok());
  const absl::Status status = DecodeVideo(bytes, {.max_frames = 17}, Ignore).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(status.message(), "the video has more than 17 frames at 24/1 a second");
}

TEST(VideoDecodeTest, LimitsAreHeld) {
  const std::string bytes = CorpusFile("h264.mp4");  // 9 frames of 64x48
  EXPECT_TRUE(
      DecodeVideo(bytes, {.max_frames = 9, .max_output_bytes = 9 * 64 * 48 * 3}, Ignore).ok());
  // What is just within the limits is read, whatever a decoder needs around it.
  for (const std::string name : {"h264.mp4", "hevc.mp4", "av1.mp4", "vp9.mp4", "vp8.webm",
                                 "mpeg4.mp4", "mjpeg.mkv", "h264.ts"}) {
    const auto info = DecodeVideo(CorpusFile(name), {.max_pixels = 64 * 48}, Ignore);
    EXPECT_TRUE(info.ok()) << name << info.status();
  }
  for (const MediaLimits& limits :
       {MediaLimits{.max_frames = 8}, MediaLimits{.max_output_bytes = 9 * 64 * 48 * 3 - 1},
        MediaLimits{.max_side_px = 63}, MediaLimits{.max_pixels = 64 * 48 - 1},
        MediaLimits{.max_aspect_ratio = 1.1}}) {
    EXPECT_EQ(DecodeVideo(bytes, limits, Ignore).status().code(),
              absl::StatusCode::kResourceExhausted);
  }
}

// FFmpeg looks into every track before one is chosen.
TEST(VideoDecodeTest, LimitsHoldTracksThatAreNotShown) {
  const std::string bytes = CorpusFile("first_default.mkv");  // 64x48, and 128x96 beside it
  EXPECT_TRUE(DecodeVideo(bytes, {.max_side_px = 128}, Ignore).ok());
  EXPECT_EQ(DecodeVideo(bytes, {.max_side_px = 127}, Ignore).status().code(),
            absl::StatusCode::kResourceExhausted);
}

// The decoder fills up what it cannot read, and says so.
TEST(VideoDecodeTest, AFrameThatIsFilledUpIsDamaged) {
  for (const char* name : {"h264.mp4", "mpeg4.mkv"}) {
    const std::string whole = CorpusFile(name);
    int damaged = 0;
    for (size_t at = 100; at + 4 < whole.size(); at += 7) {
      std::string broken = whole;
      for (size_t i = at; i < at + 4; ++i) broken[i] = static_cast<char>(broken[i] ^ 0x5a);
      const absl::Status status = DecodeVideo(broken, {}, Ignore).status();
      damaged += absl::EndsWith(status.message(), "is damaged");
    }
    EXPECT_GT(damaged, 10) << name;
  }
}

// In a child, whose most memory its end tells.
TEST(VideoDecodeTest, ACountBringsNoMemoryThatTheFileDoesNotFill) {
  const std::string bytes = CorpusFile("many_frames.mp4");
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    (void)DecodeVideo(bytes, {}, Ignore);
    _exit(0);
  }
  int status = 0;
  rusage usage = {};
  ASSERT_EQ(wait4(child, &status, 0, &usage), child);
  EXPECT_EQ(status, 0);
  EXPECT_LT(usage.ru_maxrss, 600 << 10) << "KiB";
}

TEST(VideoDecodeTest, ErrorOfTheSinkEndsTheDecoding) {
  int calls = 0;
  const auto info = DecodeVideo(CorpusFile("h264.mp4"), {}, [&](const RgbImage&) {
    return ++calls == 3 ? absl::AbortedError("enough") : absl::OkStatus();
  });
  EXPECT_EQ(info.status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(calls, 3);
}

TEST(VideoDecodeTest, TruncatedMp4IsInvalid) {
  // ffmpeg writes the index at the end, so each of these cuts loses it or a part of it.
  const std::string bytes = CorpusFile("h264.mp4");
  for (const double part : {0.1, 0.5, 0.8}) {
    const auto size = static_cast<size_t>(static_cast<double>(bytes.size()) * part);
    EXPECT_EQ(DecodeVideo(bytes.substr(0, size), {}, Ignore).status().code(),
              absl::StatusCode::kInvalidArgument)
        << part;
  }
}

TEST(VideoDecodeTest, TruncationAndFlippedBitsGiveAStatusOrFrames) {
  const uint32_t seed = std::random_device{}();
  std::printf("seed %u\n", seed);
  std::mt19937 random(seed);
  const MediaLimits limits{.max_side_px = 512, .max_pixels = 1 << 16, .max_frames = 64};
  int refused = 0;
  for (const std::string name :
       {"h264_bt709.mp4", "h264_fragments.mp4", "vp9.webm", "ffv1_yuv444p.mkv", "h264_sound.mp4",
        "h264_turned_90.mp4", "hevc_10bit.mkv", "av1.mp4", "vp8.webm", "mjpeg.mkv", "mpeg4.mp4",
        "h264_sound.ts"}) {
    SCOPED_TRACE(name);
    const std::string whole = CorpusFile(name);
    for (int round = 0; round < 100; ++round) {
      std::string bytes = whole;
      if (round % 3 == 0) {
        bytes.resize(random() % bytes.size());
      } else {
        // The heads of the containers stand at both ends; most flips should hit one of them.
        for (int i = 0; i < 6; ++i) {
          size_t at = random() % bytes.size();
          if (i < 4) at = random() % 2 == 0 ? at % 900 : bytes.size() - 1 - at % 900;
          bytes[at % bytes.size()] ^= static_cast<char>(1 << random() % 8);
        }
      }
      const auto info = DecodeVideo(bytes, limits, Ignore);
      refused += !info.ok();
      EXPECT_TRUE(!info.ok() || info->num_frames > 0);
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace kino::engine
