#include "engine/media/time_jumps.h"

extern "C" {
#include "libavutil/common.h"
#include "libavutil/mathematics.h"
}

namespace kino::engine {
namespace {

constexpr AVRational kMicroseconds = {1, AV_TIME_BASE};
// dts_delta_threshold and dts_error_threshold.
constexpr int64_t kLargestJump = int64_t{10} * AV_TIME_BASE;
constexpr int64_t kLargestTime = int64_t{3600} * 30 * AV_TIME_BASE;
constexpr int64_t kLargestStepBack = AV_TIME_BASE / 10;

bool IsBeyond(int64_t jump, int64_t most) { return jump > most || jump < -most; }

void Shift(int64_t& time, int64_t by) {
  if (time != AV_NOPTS_VALUE) time = av_sat_add64(time, by);
}

}  // namespace

void TimeJumps::Mend(AVPacket& packet) {
  const auto microseconds = [this](int64_t time) {
    return av_rescale_q(time, time_base_, kMicroseconds);
  };
  const auto shift = [&](int64_t by) {
    const int64_t ticks = av_rescale_q(by, kMicroseconds, time_base_);
    Shift(packet.dts, ticks);
    Shift(packet.pts, ticks);
  };
  shift(offset_);
  if (packet.dts != AV_NOPTS_VALUE && next_) {
    const int64_t now = microseconds(packet.dts), jump = av_sat_sub64(now, *next_);
    if (!may_jump_) {
      if (IsBeyond(jump, kLargestTime)) packet.dts = AV_NOPTS_VALUE;
      if (packet.pts != AV_NOPTS_VALUE &&
          IsBeyond(av_sat_sub64(microseconds(packet.pts), *next_), kLargestTime)) {
        packet.pts = AV_NOPTS_VALUE;
      }
    } else if (IsBeyond(jump, kLargestJump) || now < av_sat_sub64(last_, kLargestStepBack)) {
      const int64_t back = av_sat_sub64(0, jump);
      offset_ = av_sat_add64(offset_, back);
      shift(back);
    }
  }
  if (packet.dts != AV_NOPTS_VALUE) next_ = microseconds(packet.dts);
  if (!next_) return;
  last_ = *next_;
  next_ =
      av_sat_add64(last_, packet.duration > 0 ? microseconds(packet.duration)
                                              : av_rescale_q(1, av_inv_q(rate_), kMicroseconds));
}

}  // namespace kino::engine
