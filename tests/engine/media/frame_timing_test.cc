// What files of the corpus (video_corpus.py) have not: frames without times, and leads.
#include "engine/media/frame_timing.h"

#include <gtest/gtest.h>

#include <tuple>
#include <vector>

namespace kino::engine {
namespace {

// 10 ticks of the track are one of the rate.
constexpr ConstantRate::Options kOptions = {
    .rate = {10, 1}, .track_time_base = {1, 100}, .average_rate = {0, 1}};

// How often the frame before each and the frame itself are given, one behind the other.
std::vector<int64_t> CountsOf(const ConstantRate::Options& options,
                              const std::vector<ConstantRate::Times>& frames) {
  ConstantRate timing(options);
  std::vector<int64_t> counts;
  for (const ConstantRate::Times& times : frames) {
    const ConstantRate::Counts of_frame = timing.Add(times);
    counts.push_back(of_frame.previous);
    counts.push_back(of_frame.current);
  }
  return counts;
}

using Counts = std::vector<int64_t>;

TEST(ConstantRateTest, AFrameWithoutATimeFollowsAfterTheOneBefore) {
  EXPECT_EQ(CountsOf(kOptions, {{.shown_at = 0, .duration = 30}, {.shown_at = {}, .duration = 30}}),
            (Counts{0, 3, 0, 3}));
  // Nothing gives a duration: as long as since the one before.
  EXPECT_EQ(CountsOf(kOptions, {{.shown_at = 0}, {.shown_at = 30}, {}}),
            (Counts{0, 1, 1, 2, 1, 2}));
}

// A demuxer that knows none writes 1.
TEST(ConstantRateTest, ADurationOfOneIsNoneWhereFramesAreFartherApart) {
  const ConstantRate::Times first = {.shown_at = 0, .duration = 1};
  const ConstantRate::Times second = {.shown_at = 30, .duration = 1};
  EXPECT_EQ(CountsOf(kOptions, {first, second, {.shown_at = {}, .duration = 1}}),
            (Counts{0, 1, 1, 1, 2, 1}));
}

// Where nothing is shown before the first frame that can be decoded.
TEST(ConstantRateTest, ALeadOfHalfAFrameIsFilledOnlyWhereItIsNotSkipped) {
  for (const auto& [shown_at, skipped, filled] :
       {std::tuple{4, 1, 1}, std::tuple{5, 1, 2}, std::tuple{27, 1, 4}}) {
    ConstantRate::Options options = kOptions;
    const std::vector<ConstantRate::Times> first = {{.shown_at = shown_at}};
    const Counts not_skipped = CountsOf(options, first);
    EXPECT_EQ(not_skipped[0] + not_skipped[1], filled) << shown_at;
    options.skips_the_lead = true;
    EXPECT_EQ(CountsOf(options, first), (Counts{0, skipped})) << shown_at;
  }
}

TEST(ConstantRateTest, WhatNoFrameTellsTheCodecOrTheTrackMay) {
  EXPECT_EQ(CountsOf(kOptions, {{.shown_at = 0, .codec_duration = 40}, {}}), (Counts{0, 1, 2, 2}));
  ConstantRate::Options options = kOptions;
  options.average_rate = {5, 2};
  EXPECT_EQ(CountsOf(options, {{.shown_at = 0}, {}}), (Counts{0, 1, 2, 2}));
  EXPECT_EQ(CountsOf(kOptions, {{.shown_at = 0}, {}}), (Counts{0, 1, 0, 1}));
}

}  // namespace
}  // namespace kino::engine
