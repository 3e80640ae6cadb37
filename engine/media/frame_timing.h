// Frames at a constant rate: how often each decoded frame is given so that they come one tick of
// the rate apart, whatever times the file gives them. It decides as the ffmpeg program does where
// nobody asks for another way ("cfr"), and so as diffusers' load_video does: a frame that stays
// for several ticks is given as often, one that comes too early is left out. Source: FFmpeg 7 and
// later, fftools/ffmpeg_dec.c and fftools/ffmpeg_filter.c, whose thresholds these are. One thread
// at a time. Included by .cc files only.
#pragma once

#include <array>
#include <cstdint>
#include <optional>

extern "C" {
#include "libavutil/rational.h"
}

namespace kino::engine {

class ConstantRate {
 public:
  struct Options {
    AVRational rate;              // of the frames that are given; positive
    AVRational track_time_base;   // seconds a tick; positive
    AVRational average_rate;      // as the track declares it; 0/1 when it does not
    bool skips_the_lead = false;  // no frame stands for the time before the first one
  };
  explicit ConstantRate(const Options& options) : options_(options) {}

  // A decoded frame's times, in the track's ticks from the file's start.
  struct Times {
    std::optional<int64_t> shown_at;
    int64_t duration = 0;        // 0 when the container does not say
    int64_t codec_duration = 0;  // the same of the coded stream
  };
  // How often the frame before it and then the frame itself are to be given. Before the first
  // frame there is none: its share goes to the frame.
  struct Counts {
    int64_t previous = 0;
    int64_t current = 0;
  };
  // The next frame in the order of showing.
  Counts Add(const Times& times);
  // How often the last frame is given again at the end of the track.
  int64_t Finish() const;

 private:
  // After which a next frame is expected that has no time of its own.
  int64_t ExpectedDuration(int64_t shown_at, const Times& times) const;
  // In ticks of the rate, with fractions.
  double Position(int64_t shown_at) const;

  const Options options_;
  std::optional<int64_t> last_shown_at_;
  int64_t last_duration_ = 0;  // as expected
  int64_t num_given_ = 0;
  int64_t next_ = 0;  // the tick that the next frame to be given stands for
  std::array<int64_t, 3> previous_counts_ = {};
};

}  // namespace kino::engine
