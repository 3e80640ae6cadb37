// FFmpeg's objects under RAII, its error codes as absl::Status, and its log sent to ours. Included
// by .cc files only.
#pragma once

#include <memory>
#include <string_view>

#include "absl/status/status.h"

extern "C" {
#include "libavcodec/avcodec.h"
#include "libavformat/avformat.h"
#include "libavutil/frame.h"
#include "libswscale/swscale.h"
}

namespace kino::engine {

struct FreeAv {
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(SwsContext* context) const { sws_freeContext(context); }
  void operator()(AVIOContext* io) const {
    av_freep(&io->buffer);
    avio_context_free(&io);
  }
};

using AvCodecContextPtr = std::unique_ptr<AVCodecContext, FreeAv>;
using AvFramePtr = std::unique_ptr<AVFrame, FreeAv>;
using AvPacketPtr = std::unique_ptr<AVPacket, FreeAv>;
using SwsContextPtr = std::unique_ptr<SwsContext, FreeAv>;
using AvioContextPtr = std::unique_ptr<AVIOContext, FreeAv>;

// "what: FFmpeg's words": RESOURCE_EXHAUSTED for want of memory, else `code`. REQUIRES: av_error <
// 0.
absl::Status AvError(absl::StatusCode code, std::string_view what, int av_error);

// Sends FFmpeg's errors to engine::Log as debug lines (what matters is in the status) and drops the
// rest. Idempotent and thread-safe.
void RouteFfmpegLog();

}  // namespace kino::engine
