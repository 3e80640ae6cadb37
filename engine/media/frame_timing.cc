#include "engine/media/frame_timing.h"

#include <algorithm>
#include <cmath>

extern "C" {
#include "libavutil/common.h"
#include "libavutil/mathematics.h"
}

namespace kino::engine {
namespace {

// A gap of more ticks is taken for a broken time: FFmpeg drops the frame that follows it, and gives
// none again for it at the end.
constexpr double kMaxTicks = 3600.0 * 30 * 30;
// Times beyond are no times; sums of a few of these fit.
constexpr int64_t kMaxTime = int64_t{1} << 55;

// FFmpeg rounds what it has cut to a float.
int64_t Round(double ticks) { return std::llrint(static_cast<float>(ticks)); }

}  // namespace

int64_t ConstantRate::ExpectedDuration(int64_t shown_at, const Times& times) const {
  const int64_t since_last = last_shown_at_ ? shown_at - *last_shown_at_ : -1;
  // FFmpeg's demuxers write 1 where they know nothing better.
  const bool is_made_up = times.duration == 1 && since_last > 2;
  if (times.duration > 0 && !is_made_up) return times.duration;
  if (since_last > 0) return since_last;
  if (times.duration > 0) return times.duration;
  if (times.codec_duration > 0) return times.codec_duration;
  if (options_.average_rate.num > 0 && options_.average_rate.den > 0) {
    const int64_t average =
        av_rescale_q(1, av_inv_q(options_.average_rate), options_.track_time_base);
    if (average > 0) return average;
  }
  return std::max<int64_t>(last_duration_, 1);
}

double ConstantRate::Position(int64_t shown_at) const {
  // Rounded to a fraction of a tick, and moved off the middle between two.
  AVRational fine = av_inv_q(options_.rate);
  const int bits = std::clamp(29 - av_log2(static_cast<unsigned>(fine.den)), 0, 16);
  fine.den <<= bits;
  double position = static_cast<double>(av_rescale_q(shown_at, options_.track_time_base, fine));
  position /= 1 << bits;
  if (position != std::nearbyint(position)) position += std::copysign(1.0 / (1 << 17), position);
  return std::clamp<double>(position, -kMaxTime, kMaxTime);
}

ConstantRate::Counts ConstantRate::Add(const Times& times) {
  const int64_t expected_at = last_shown_at_ ? *last_shown_at_ + last_duration_ : 0;
  const int64_t shown_at = std::clamp(times.shown_at.value_or(expected_at), -kMaxTime, kMaxTime);
  last_duration_ = std::min(ExpectedDuration(shown_at, times), kMaxTime);
  last_shown_at_ = shown_at;
  const int64_t duration = times.duration > 0
                               ? times.duration
                               : av_rescale_q(1, av_inv_q(options_.rate), options_.track_time_base);

  const double position = Position(shown_at);
  double length =
      static_cast<double>(duration) * av_q2d(options_.track_time_base) * av_q2d(options_.rate);
  double begin = position - static_cast<double>(next_);
  double end = begin + length;
  if (begin < 0 && end > 0) {
    length += begin;
    begin = 0;
  }
  if (options_.skips_the_lead && num_given_ == 0 && begin >= 0.5) {
    next_ = std::llrint(position);
    begin = 0;
    end = length;
  }
  int64_t total = 1, previous = 0;
  if (end < -1.1) {
    total = 0;
  } else if (end > 1.1) {
    total = Round(end);
    if (begin > 1.1) previous = Round(begin - 0.6);
  }
  std::rotate(previous_counts_.begin(), previous_counts_.end() - 1, previous_counts_.end());
  previous_counts_[0] = previous;
  if (end > kMaxTicks) total = previous = 0;
  next_ += total;
  num_given_ += total;
  return {.previous = previous, .current = total - previous};
}

int64_t ConstantRate::Finish() const {
  std::array<int64_t, 3> counts = previous_counts_;
  std::sort(counts.begin(), counts.end());
  return num_given_ > 0 && static_cast<double>(counts[1]) <= kMaxTicks ? counts[1] : 0;
}

}  // namespace kino::engine
