#include "engine/media/mp4_writer.h"

#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/media/video_decode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::engine {
namespace {

using ::testing::HasSubstr;

// A whole file and how it came: calls[0] is the head, each further one a fragment.
struct Written {
  absl::Status status;
  std::vector<std::string> calls;

  std::string bytes(size_t num_calls = SIZE_MAX) const {
    std::string all;
    for (size_t i = 0; i < std::min(num_calls, calls.size()); ++i) all += calls[i];
    return all;
  }
};

Written Write(const Mp4Options& options, int num_frames) {
  Written written;
  auto writer = Mp4Writer::Create(options, [&](std::string_view bytes) {
    written.calls.emplace_back(bytes);
    return absl::OkStatus();
  });
  written.status = writer.status();
  for (int t = 0; t < num_frames && written.status.ok(); ++t) {
    written.status =
        (*writer)->AddFrame(MovingPicture(options.width, options.height, t).rgb.data());
  }
  if (written.status.ok()) written.status = (*writer)->Finish();
  return written;
}

std::string Probe(const std::string& bytes, const std::string& entries) {
  const ScratchFolder scratch;
  WriteFile(scratch.path("clip.mp4"), bytes);
  return RunCommand(
      "ffprobe -v error -count_frames -select_streams v:0 -of csv=p=0 -show_entries " + entries +
      " " + scratch.path("clip.mp4"));
}

std::vector<RgbImage> Decode(const std::string& bytes) {
  std::vector<RgbImage> frames;
  const auto info = DecodeVideo(bytes, {}, [&](const RgbImage& frame) {
    frames.push_back(frame);
    return absl::OkStatus();
  });
  EXPECT_TRUE(info.ok()) << info.status();
  return frames;
}

TEST(Mp4WriterTest, FfprobeSeesEveryFrameAndTheColours) {
  const Written written = Write({.width = 64, .height = 48, .fps = 8}, 17);
  ASSERT_TRUE(written.status.ok()) << written.status;
  EXPECT_EQ(Probe(written.bytes(),
                  "stream=codec_name,profile,width,height,pix_fmt,color_range,color_space,"
                  "color_transfer,color_primaries,chroma_location,r_frame_rate,nb_read_frames"),
            "h264,High,64,48,yuv420p,tv,bt709,bt709,bt709,left,8/1,17\n");
  EXPECT_EQ(Probe(written.bytes(), "stream=avg_frame_rate"), "8/1\n");
  EXPECT_EQ(Probe(written.bytes(), "format=duration"), "2.125000\n");
}

TEST(Mp4WriterTest, FrameRatesAreExactFractions) {
  for (const auto& [fps, fraction] :
       {std::pair(23.976, "24000/1001"), std::pair(12.5, "25/2"), std::pair(24.0, "24/1"),
        std::pair(59.94, "60000/1001"), std::pair(8.0, "8/1")}) {
    const Written written = Write({.width = 32, .height = 32, .fps = fps}, 30);
    EXPECT_TRUE(written.status.ok()) << written.status;
    if (!written.status.ok()) continue;
    const std::string line(fraction);
    EXPECT_EQ(Probe(written.bytes(), "stream=r_frame_rate,avg_frame_rate,nb_read_frames"),
              line + "," + line + ",30\n");
    const std::string duration = Probe(written.bytes(), "format=duration");
    EXPECT_NEAR(std::stod(duration), 30 / fps, 1e-3) << fps;
  }
}

TEST(Mp4WriterTest, TimeStampsRiseByOneFrame) {
  const Written written = Write({.width = 32, .height = 32, .fps = 10, .fragment_frames = 3}, 8);
  EXPECT_EQ(Probe(written.bytes(), "packet=pts_time,duration_time,flags"),
            "0.000000,0.100000,K_\n0.100000,0.100000,__\n0.200000,0.100000,__\n"
            "0.300000,0.100000,K_\n0.400000,0.100000,__\n0.500000,0.100000,__\n"
            "0.600000,0.100000,K_\n0.700000,0.100000,__\n");
}

// What the whole server promises: a fragment is in the sink before the next one's first frame is
// given.
TEST(Mp4WriterTest, EveryFragmentLeavesWithItsLastFrame) {
  for (const bool is_lossless : {false, true}) {
    std::vector<std::string> calls;
    const Mp4Options options{
        .width = 64, .height = 48, .fps = 24, .lossless = is_lossless, .fragment_frames = 4};
    auto writer = Mp4Writer::Create(options, [&](std::string_view bytes) {
      calls.emplace_back(bytes);
      return absl::OkStatus();
    });
    EXPECT_TRUE(writer.ok()) << writer.status();
    if (!writer.ok()) continue;
    EXPECT_EQ(calls.size(), 1u);
    for (int t = 0; t < 14; ++t) {
      EXPECT_TRUE((*writer)->AddFrame(MovingPicture(64, 48, t).rgb.data()).ok());
      EXPECT_EQ(calls.size(), 1u + (t + 1) / 4) << "after frame " << t;
    }
    EXPECT_TRUE((*writer)->Finish().ok());
    EXPECT_EQ(calls.size(), 5u);
    EXPECT_THAT(calls[0], HasSubstr("moov"));
    for (size_t i = 1; i < calls.size(); ++i) EXPECT_EQ(calls[i].substr(4, 4), "moof") << i;
  }
}

TEST(Mp4WriterTest, PrefixEndingAtAFragmentDecodesAllItsFrames) {
  const Written written = Write({.width = 64, .height = 48, .fps = 24, .fragment_frames = 5}, 18);
  ASSERT_TRUE(written.status.ok()) << written.status;
  ASSERT_EQ(written.calls.size(), 5u);
  for (size_t fragments = 1; fragments <= 4; ++fragments) {
    const size_t frames = std::min<size_t>(5 * fragments, 18);
    EXPECT_EQ(Probe(written.bytes(1 + fragments), "stream=nb_read_frames"),
              std::to_string(frames) + "\n");
    EXPECT_EQ(Decode(written.bytes(1 + fragments)).size(), frames);
  }
}

// Decoded by the same matrix and range, a smooth picture comes back close in each channel, without
// a bias. By a reader that rounds: ours, as diffusers' load_video, does not.
TEST(Mp4WriterTest, DecodedColoursAreTheOnesGiven) {
  const Written written = Write({.width = 128, .height = 96, .quality = 95}, 9);
  const ScratchFolder scratch;
  WriteFile(scratch.path("clip.mp4"), written.bytes());
  const std::string raw =
      RunCommand("ffmpeg -nostdin -v error -i " + scratch.path("clip.mp4") +
                 " -vf scale=flags=bicubic+accurate_rnd+full_chroma_int+bitexact -pix_fmt rgb24 "
                 "-f rawvideo -");
  constexpr size_t kFrameBytes = 3 * 128 * 96;
  ASSERT_EQ(raw.size(), 9 * kFrameBytes);
  for (int t = 0; t < 9; ++t) {
    const RgbImage want = MovingPicture(128, 96, t);
    for (int c = 0; c < 3; ++c) {
      double bias = 0, error = 0;
      for (size_t i = c; i < want.rgb.size(); i += 3) {
        const double difference =
            static_cast<uint8_t>(raw[t * kFrameBytes + i]) - static_cast<double>(want.rgb[i]);
        bias += difference;
        error += std::abs(difference);
      }
      const double count = static_cast<double>(want.rgb.size()) / 3;
      EXPECT_LT(std::abs(bias) / count, 0.6) << "frame " << t << " channel " << c;
      EXPECT_LT(error / count, 3.0) << "frame " << t << " channel " << c;
    }
  }
}

// Flat colours show a wrong matrix (BT.601 moves green by 20) and a wrong range (black becomes 16).
TEST(Mp4WriterTest, FlatColoursSurvive) {
  for (const std::vector<uint8_t>& color : std::vector<std::vector<uint8_t>>{{0, 0, 0},
                                                                             {255, 255, 255},
                                                                             {255, 0, 0},
                                                                             {0, 255, 0},
                                                                             {0, 0, 255},
                                                                             {128, 128, 128},
                                                                             {200, 30, 90}}) {
    RgbImage image{32, 32, {}};
    for (int i = 0; i < 32 * 32; ++i) image.rgb.insert(image.rgb.end(), color.begin(), color.end());
    std::string bytes;
    auto writer =
        Mp4Writer::Create({.width = 32, .height = 32, .quality = 100}, [&](std::string_view part) {
          bytes += part;
          return absl::OkStatus();
        });
    EXPECT_TRUE(writer.ok());
    if (!writer.ok()) continue;
    EXPECT_TRUE((*writer)->AddFrame(image.rgb.data()).ok());
    EXPECT_TRUE((*writer)->Finish().ok());
    const std::vector<RgbImage> frames = Decode(bytes);
    EXPECT_EQ(frames.size(), 1u);
    if (frames.size() != 1u) continue;
    for (int c = 0; c < 3; ++c) EXPECT_NEAR(frames[0].rgb[3 * 500 + c], color[c], 3);
  }
}

TEST(Mp4WriterTest, LosslessGivesTheVeryPixels) {
  const Written written = Write({.width = 66, .height = 50, .lossless = true}, 13);
  ASSERT_TRUE(written.status.ok()) << written.status;
  const std::vector<RgbImage> frames = Decode(written.bytes());
  ASSERT_EQ(frames.size(), 13u);
  for (int t = 0; t < 13; ++t) EXPECT_EQ(frames[t].rgb, MovingPicture(66, 50, t).rgb) << t;
  EXPECT_EQ(Probe(written.bytes(), "stream=codec_name,profile,pix_fmt,color_range,color_space"),
            "h264,High 4:4:4 Predictive,gbrp,pc,gbr\n");
  // And by another reader than ours.
  const ScratchFolder scratch;
  WriteFile(scratch.path("clip.mp4"), written.bytes());
  const std::string raw = RunCommand("ffmpeg -nostdin -v error -i " + scratch.path("clip.mp4") +
                                     " -pix_fmt rgb24 -f rawvideo -");
  std::string want;
  for (int t = 0; t < 13; ++t) {
    const RgbImage frame = MovingPicture(66, 50, t);
    want.append(frame.rgb.begin(), frame.rgb.end());
  }
  EXPECT_TRUE(raw == want);
}

// The muxer hands its bytes over 64 KiB at a time, and the demuxer asks for as many: a fragment of
// noise, which does not compress, takes several of both, and so does one picture.
TEST(Mp4WriterTest, FragmentsOfManyPiecesKeepEveryPixel) {
  const Mp4Options options{.width = 320, .height = 192, .lossless = true, .fragment_frames = 3};
  std::minstd_rand random(1);
  std::vector<RgbImage> frames(7, RgbImage{options.width, options.height, {}});
  for (RgbImage& frame : frames) {
    frame.rgb.resize(3 * static_cast<size_t>(options.width) * options.height);
    for (uint8_t& value : frame.rgb) value = static_cast<uint8_t>(random() >> 8);
  }
  Written written;
  auto writer = Mp4Writer::Create(options, [&](std::string_view bytes) {
    written.calls.emplace_back(bytes);
    return absl::OkStatus();
  });
  ASSERT_TRUE(writer.ok()) << writer.status();
  for (const RgbImage& frame : frames) ASSERT_TRUE((*writer)->AddFrame(frame.rgb.data()).ok());
  ASSERT_TRUE((*writer)->Finish().ok());
  ASSERT_EQ(written.calls.size(), 4u);  // the head, three fragments
  for (size_t i = 1; i < written.calls.size(); ++i) {
    EXPECT_GT(written.calls[i].size(), 2u << 16) << i;
    EXPECT_EQ(written.calls[i].substr(4, 4), "moof") << i;
  }
  const std::vector<RgbImage> decoded = Decode(written.bytes());
  ASSERT_EQ(decoded.size(), frames.size());
  for (size_t t = 0; t < frames.size(); ++t) EXPECT_TRUE(decoded[t].rgb == frames[t].rgb) << t;
}

TEST(Mp4WriterTest, SameFramesGiveTheSameBytes) {
  for (const bool is_lossless : {false, true}) {
    const Mp4Options options{.width = 320, .height = 192, .lossless = is_lossless};
    EXPECT_TRUE(Write(options, 20).bytes() == Write(options, 20).bytes());
  }
}

TEST(Mp4WriterTest, HigherQualityIsLargerAndCloser) {
  size_t last = 0;
  for (const int quality : {0, 25, 50, 75, 100}) {
    const Written written = Write({.width = 160, .height = 96, .quality = quality}, 8);
    EXPECT_TRUE(written.status.ok()) << written.status;
    if (!written.status.ok()) continue;
    EXPECT_GT(written.bytes().size(), last) << quality;
    last = written.bytes().size();
  }
}

TEST(Mp4WriterTest, AnyEvenSizeIsWritten) {
  for (const auto& [width, height] : {std::pair(2, 2), std::pair(2, 64), std::pair(34, 18),
                                      std::pair(130, 66), std::pair(1280, 46)}) {
    const Written written = Write({.width = width, .height = height}, 5);
    EXPECT_TRUE(written.status.ok()) << width << "x" << height << written.status;
    if (!written.status.ok()) continue;
    EXPECT_EQ(Probe(written.bytes(), "stream=width,height,nb_read_frames"),
              std::to_string(width) + "," + std::to_string(height) + ",5\n");
  }
}

TEST(Mp4WriterTest, WrongOptionsAreNamed) {
  const std::vector<std::pair<Mp4Options, std::string>> cases = {
      {{.width = 33, .height = 32}, "33x32"},
      {{.width = 32, .height = 0}, "32x0"},
      {{.width = 32, .height = 8194}, "8192"},
      {{.width = 32, .height = 32, .fps = 0}, "fps is 0"},
      {{.width = 32, .height = 32, .fps = std::nan("")}, "fps is nan"},
      {{.width = 32, .height = 32, .quality = 101}, "quality is 101"},
      {{.width = 32, .height = 32, .fragment_frames = -1}, "fragment_frames is -1"},
      {{.width = 32, .height = 32, .threads = 0}, "threads is 0"},
      {{.width = 32, .height = 32, .lossless = true, .encoder = H264Encoder::kNvenc}, "lossless"}};
  for (const auto& [options, words] : cases) {
    const Written written = Write(options, 1);
    EXPECT_EQ(written.status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(written.status.message()), HasSubstr(words));
  }
  EXPECT_EQ(Write({.width = 32, .height = 32}, 0).status.code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST(Mp4WriterTest, ErrorOfTheSinkStaysTheWritersError) {
  int calls = 0;
  auto writer =
      Mp4Writer::Create({.width = 32, .height = 32, .fragment_frames = 2}, [&](std::string_view) {
        return ++calls == 2 ? absl::ResourceExhaustedError("disk full") : absl::OkStatus();
      });
  ASSERT_TRUE(writer.ok());
  const RgbImage frame = MovingPicture(32, 32, 0);
  EXPECT_TRUE((*writer)->AddFrame(frame.rgb.data()).ok());
  EXPECT_EQ((*writer)->AddFrame(frame.rgb.data()).message(), "disk full");
  EXPECT_EQ((*writer)->AddFrame(frame.rgb.data()).message(), "disk full");
  EXPECT_EQ((*writer)->Finish().message(), "disk full");
  EXPECT_EQ(calls, 2);
}

// Holds on machines with and without NVENC: asked for, it is used or refused, never silently
// replaced.
TEST(Mp4WriterTest, NvencIsUsedOrRefused) {
  const auto ignore = [](std::string_view) { return absl::OkStatus(); };
  const auto asked = Mp4Writer::Create(
      {.width = 256, .height = 256, .encoder = H264Encoder::kNvenc, .gpu = 0}, ignore);
  if (asked.ok()) {
    EXPECT_EQ((*asked)->encoder_name(), "h264_nvenc");
  } else {
    EXPECT_EQ(asked.status().code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(std::string(asked.status().message()), HasSubstr("h264_nvenc"));
  }
  const auto preferred = Mp4Writer::Create(
      {.width = 256, .height = 256, .encoder = H264Encoder::kNvencIfPresent}, ignore);
  ASSERT_TRUE(preferred.ok()) << preferred.status();
  EXPECT_EQ((*preferred)->encoder_name(), asked.ok() ? "h264_nvenc" : "libx264");
}

}  // namespace
}  // namespace kino::engine
