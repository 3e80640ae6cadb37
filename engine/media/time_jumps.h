// Times of packets that jump, mended as the ffmpeg program mends them where nobody asks for another
// way, and so as diffusers' load_video does: of containers whose clock may be set anew (MPEG-TS)
// what follows a jump goes on where the packets before it end; elsewhere a time beyond 30 hours is
// none. Source: FFmpeg 7 and later, fftools/ffmpeg_demux.c (ts_discontinuity_process,
// ist_dts_update). One thread at a time. Included by .cc files only.
#pragma once

#include <cstdint>
#include <optional>

extern "C" {
#include "libavcodec/packet.h"
#include "libavutil/rational.h"
}

namespace kino::engine {

class TimeJumps {
 public:
  // may_jump: the clock may be set anew. rate: of packets that have no duration; positive.
  TimeJumps(bool may_jump, AVRational time_base, AVRational rate)
      : may_jump_(may_jump), time_base_(time_base), rate_(rate) {}

  // The track's next packet in the order of decoding; its times change.
  void Mend(AVPacket& packet);

 private:
  const bool may_jump_;
  const AVRational time_base_, rate_;
  // In microseconds: what is added to all times from here on, the last packet's time of decoding,
  // and that expected of the next one.
  int64_t offset_ = 0, last_ = 0;
  std::optional<int64_t> next_;
};

}  // namespace kino::engine
