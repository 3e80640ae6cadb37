// What files of the corpus (video_corpus.py) have not: a clock that is set back, packets without a
// duration, and times that no file should have.
#include "engine/media/time_jumps.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

extern "C" {
#include "libavcodec/avcodec.h"
#include "libavutil/avutil.h"
}
#include "engine/media/ffmpeg_handles.h"

namespace kino::engine {
namespace {

constexpr int64_t kNone = AV_NOPTS_VALUE;

struct Times {
  int64_t dts, pts, duration = 40;
  bool operator==(const Times&) const = default;
};

// In milliseconds; frames without a duration are 50 apart.
std::vector<Times> Mended(bool may_jump, const std::vector<Times>& packets) {
  TimeJumps jumps(may_jump, {1, 1000}, {20, 1});
  const AvPacketPtr packet(av_packet_alloc());
  std::vector<Times> mended;
  for (const Times& times : packets) {
    packet->dts = times.dts;
    packet->pts = times.pts;
    packet->duration = times.duration;
    jumps.Mend(*packet);
    mended.push_back({packet->dts, packet->pts, packet->duration});
  }
  return mended;
}

using Packets = std::vector<Times>;

TEST(TimeJumpsTest, AClockThatIsSetAnewGoesOn) {
  for (const int64_t by : {-1400, -360, 10001, 100000}) {
    EXPECT_EQ(
        Mended(true, {{1400, 1480}, {1440, 1440}, {1480 + by, 1560 + by}, {1520 + by, 1520 + by}}),
        (Packets{{1400, 1480}, {1440, 1440}, {1480, 1560}, {1520, 1520}}))
        << by;
  }
  // Twice, and with packets that say nothing of their duration.
  EXPECT_EQ(Mended(true, {{0, 0, 0}, {20000, 20000, 0}, {0, 10, 0}, {50, 60, 0}}),
            (Packets{{0, 0, 0}, {50, 50, 0}, {100, 110, 0}, {150, 160, 0}}));
}

TEST(TimeJumpsTest, WhatIsNoJumpStays) {
  for (const bool may_jump : {true, false}) {
    // Ten seconds of nothing, and a tenth of a second back.
    const Packets packets = {{0, 80},      {40, 40},       {10080, 10080},
                             {9980, 9990}, {kNone, kNone}, {60, kNone}};
    const Packets mended = Mended(may_jump, packets);
    EXPECT_EQ(Packets(mended.begin(), mended.begin() + 5),
              Packets(packets.begin(), packets.begin() + 5));
  }
}

TEST(TimeJumpsTest, ElsewhereATimeFarAwayIsNone) {
  constexpr int64_t kFar = int64_t{1000} * 3600 * 30 + 41;
  EXPECT_EQ(Mended(false, {{0, 0}, {kFar - 1, kFar - 1}}), (Packets{{0, 0}, {kFar - 1, kFar - 1}}));
  EXPECT_EQ(Mended(false, {{0, 0}, {kFar, kFar}, {kFar + 40, kFar + 40}, {120, 120}}),
            (Packets{{0, 0}, {kNone, kNone}, {kNone, kNone}, {120, 120}}));
  EXPECT_EQ(Mended(false, {{0, 0}, {40, kFar}}), (Packets{{0, 0}, {40, kNone}}));
  EXPECT_EQ(Mended(true, {{0, 0}, {kFar, kFar}}), (Packets{{0, 0}, {40, 40}}));
}

TEST(TimeJumpsTest, NoTimeIsTooLarge) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  for (const bool may_jump : {true, false})
    Mended(may_jump,
           {{-kMost, kMost, kMost}, {kMost, -kMost, kMost}, {-kMost, 0, 0}, {kMost, kMost, 1}});
}

}  // namespace
}  // namespace kino::engine
