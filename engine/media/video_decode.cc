#include "engine/media/video_decode.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/ffmpeg_handles.h"

extern "C" {
#include "libavutil/display.h"
#include "libavutil/mem.h"
#include "libavutil/pixdesc.h"
}

namespace kino::engine {
namespace {

constexpr int kIoBufferBytes = 1 << 16;
constexpr int kMaxTracks = 32;
constexpr char kCodecs[] = "h264,vp9,ffv1";

absl::Status Broken(std::string_view what, int av_error) {
  return AvError(absl::StatusCode::kInvalidArgument,
                 absl::StrCat("the video ", absl::string_view(what.data(), what.size())), av_error);
}

// The input as FFmpeg reads it.
struct MemoryInput {
  std::string_view bytes;
  int64_t at = 0;

  static int Read(void* opaque, uint8_t* out, int size) {
    auto* input = static_cast<MemoryInput*>(opaque);
    const int64_t left = static_cast<int64_t>(input->bytes.size()) - input->at;
    if (left <= 0) return AVERROR_EOF;
    const int count = static_cast<int>(std::min<int64_t>(size, left));
    std::memcpy(out, input->bytes.data() + input->at, count);
    input->at += count;
    return count;
  }

  static int64_t Seek(void* opaque, int64_t offset, int whence) {
    auto* input = static_cast<MemoryInput*>(opaque);
    const auto size = static_cast<int64_t>(input->bytes.size());
    whence &= ~AVSEEK_FORCE;
    if (whence == AVSEEK_SIZE) return size;
    if (whence == SEEK_CUR) offset += input->at;
    if (whence == SEEK_END) offset += size;
    if (offset < 0 || offset > size) return AVERROR(EINVAL);
    return input->at = offset;
  }
};

int RefuseOpen(AVFormatContext*, AVIOContext**, const char*, int, AVDictionary**) {
  return AVERROR(EPERM);
}

// The demuxer and what it reads through; the order of members is the order of need.
struct Demuxer {
  MemoryInput input;
  AvioContextPtr io;
  AVFormatContext* format = nullptr;
  AVStream* track = nullptr;  // owned by the format

  ~Demuxer() { avformat_close_input(&format); }
};

absl::Status OpenDemuxer(std::string_view bytes, Demuxer& demuxer) {
  const std::optional<MediaType> type = SniffMediaType(bytes);
  if (!type || !IsVideo(*type)) {
    return absl::InvalidArgumentError("the video is not an MP4, WebM or Matroska file");
  }
  const bool is_mp4 = *type == MediaType::kMp4;
  demuxer.input.bytes = bytes;
  auto* buffer = static_cast<uint8_t*>(av_malloc(kIoBufferBytes));
  demuxer.io.reset(avio_alloc_context(buffer, kIoBufferBytes, 0, &demuxer.input, MemoryInput::Read,
                                      nullptr, MemoryInput::Seek));
  demuxer.format = avformat_alloc_context();
  if (demuxer.io == nullptr || demuxer.format == nullptr) {
    return absl::ResourceExhaustedError("the video: out of memory");
  }
  demuxer.format->pb = demuxer.io.get();
  demuxer.format->flags |= AVFMT_FLAG_CUSTOM_IO;
  demuxer.format->io_open = RefuseOpen;
  demuxer.format->max_streams = kMaxTracks;
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "", 0);
  av_dict_set(&options, "format_whitelist", is_mp4 ? "mov,mp4,m4a,3gp,3g2,mj2" : "matroska,webm",
              0);
  av_dict_set(&options, "codec_whitelist", kCodecs, 0);
  // The container is named, so nothing is probed. A failure frees the context and clears the
  // pointer.
  int error = avformat_open_input(&demuxer.format, nullptr,
                                  av_find_input_format(is_mp4 ? "mp4" : "matroska"), &options);
  av_dict_free(&options);
  if (error < 0) return Broken("cannot be opened", error);

  for (unsigned i = 0; i < demuxer.format->nb_streams; ++i) {
    AVStream* const stream = demuxer.format->streams[i];
    const bool is_picture = (stream->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0;
    if (demuxer.track == nullptr && !is_picture &&
        stream->codecpar->codec_type == AVMEDIA_TYPE_VIDEO) {
      demuxer.track = stream;
    } else {
      stream->discard = AVDISCARD_ALL;
    }
  }
  if (demuxer.track == nullptr) {
    return absl::InvalidArgumentError("the video file has no video track");
  }
  return absl::OkStatus();
}

absl::StatusOr<AvCodecContextPtr> OpenDecoder(const AVStream& track, const MediaLimits& limits) {
  const AVCodecID id = track.codecpar->codec_id;
  if (id != AV_CODEC_ID_H264 && id != AV_CODEC_ID_VP9 && id != AV_CODEC_ID_FFV1) {
    return absl::InvalidArgumentError(absl::StrCat("the video's codec is ", avcodec_get_name(id),
                                                   "; h264, vp9 and ffv1 can be read"));
  }
  // By name: FFmpeg's own decoders, not an external library's that it might prefer.
  const AVCodec* const codec = avcodec_find_decoder_by_name(avcodec_get_name(id));
  if (codec == nullptr) {
    return absl::UnimplementedError(
        absl::StrCat("this FFmpeg has no decoder for ", avcodec_get_name(id)));
  }
  AvCodecContextPtr context(avcodec_alloc_context3(codec));
  if (context == nullptr) return absl::ResourceExhaustedError("the video: out of memory");
  int error = avcodec_parameters_to_context(context.get(), track.codecpar);
  context->thread_count = 1;  // the sandbox grants no thread
  context->max_pixels = limits.max_pixels;
  context->err_recognition = AV_EF_CRCCHECK;
  context->pkt_timebase = track.time_base;
  if (error >= 0) error = avcodec_open2(context.get(), codec, nullptr);
  if (error < 0) return Broken("decoder cannot be opened", error);
  return context;
}

const int32_t* DisplayMatrix(const AVStream& track) {
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 100)
  const AVPacketSideData* const side_data =
      av_packet_side_data_get(track.codecpar->coded_side_data, track.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  if (side_data == nullptr || side_data->size < 9 * sizeof(int32_t)) return nullptr;
  return reinterpret_cast<const int32_t*>(side_data->data);
#else
  size_t size = 0;
  const uint8_t* const matrix = av_stream_get_side_data(&track, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (matrix == nullptr || size < 9 * sizeof(int32_t)) return nullptr;
  return reinterpret_cast<const int32_t*>(matrix);
#endif
}

// The display matrix as EXIF's orientation: x' = a x + c y, y' = b x + d y.
absl::StatusOr<int> Orientation(const AVStream& track) {
  const int32_t* const matrix = DisplayMatrix(track);
  if (matrix == nullptr) return 1;
  const auto sign = [](int32_t value) { return (value > 0) - (value < 0); };
  const int a = sign(matrix[0]), b = sign(matrix[1]), c = sign(matrix[3]), d = sign(matrix[4]);
  if (b == 0 && c == 0 && a != 0 && d != 0) {
    return a > 0 ? (d > 0 ? 1 : 4) : (d > 0 ? 2 : 3);
  }
  if (a == 0 && d == 0 && b != 0 && c != 0) {
    return b > 0 ? (c > 0 ? 5 : 6) : (c > 0 ? 8 : 7);
  }
  return absl::InvalidArgumentError(
      absl::StrCat("the video's display matrix turns it by ", av_display_rotation_get(matrix),
                   " degrees; only quarter turns and mirrors can be applied"));
}

FrameRate TrackFrameRate(const AVStream& track) {
  for (const AVRational rate : {track.avg_frame_rate, track.r_frame_rate}) {
    if (rate.num > 0 && rate.den > 0) return {rate.num, rate.den};
  }
  return {0, 1};
}

// A field of a C enum's type, in which FFmpeg keeps what a file says, whatever that is. To read it
// as the enum would be undefined where the enum has no such value.
template <typename Enum>
int Code(const Enum& field) {
  static_assert(sizeof(Enum) == sizeof(int));
  int code = 0;
  std::memcpy(&code, &field, sizeof(code));
  return code;
}

// Frames of any pixel format to RGB, all of one size.
class RgbConverter {
 public:
  absl::StatusOr<RgbImage> Convert(const AVFrame& frame) {
    const auto format = static_cast<AVPixelFormat>(frame.format);
    KINO_RETURN_IF_ERROR(Prepare(frame, format));
    // Into FFmpeg's own buffer: its vector code may write past the end of a tightly packed row.
    if (sws_scale(sws_.get(), frame.data, frame.linesize, 0, frame.height, rgb_->data,
                  rgb_->linesize) != frame.height) {
      return absl::InternalError("the video's colours cannot be converted");
    }
    RgbImage image{frame.width, frame.height, {}};
    const size_t row_bytes = 3 * static_cast<size_t>(frame.width);
    image.rgb.resize(row_bytes * frame.height);
    for (int y = 0; y < frame.height; ++y) {
      std::memcpy(image.rgb.data() + row_bytes * y,
                  rgb_->data[0] + static_cast<ptrdiff_t>(rgb_->linesize[0]) * y, row_bytes);
    }
    return image;
  }

 private:
  absl::Status Prepare(const AVFrame& frame, AVPixelFormat format) {
    const int space = Code(frame.colorspace), range = Code(frame.color_range);
    if (sws_ != nullptr && format == format_ && space == space_ && range == range_) {
      return absl::OkStatus();
    }
    format_ = format;
    space_ = space;
    range_ = range;
    sws_.reset(sws_getContext(frame.width, frame.height, format, frame.width, frame.height,
                              AV_PIX_FMT_RGB24,
                              SWS_BICUBIC | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INT | SWS_BITEXACT,
                              nullptr, nullptr, nullptr));
    if (sws_ == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "the video's pixel format ", av_get_pix_fmt_name(format), " cannot be converted to RGB"));
    }
    const AVPixFmtDescriptor* const descriptor = av_pix_fmt_desc_get(format);
    if ((descriptor->flags & AV_PIX_FMT_FLAG_RGB) == 0) {
      // AVColorSpace and SWS_CS number the matrices alike; "unspecified" and what it does not know
      // mean BT.601 to swscale.
      sws_setColorspaceDetails(sws_.get(), sws_getCoefficients(space),
                               range == AVCOL_RANGE_JPEG ? 1 : 0,
                               sws_getCoefficients(SWS_CS_DEFAULT), 1, 0, 1 << 16, 1 << 16);
    }
    if (rgb_ != nullptr) return absl::OkStatus();
    rgb_.reset(av_frame_alloc());
    if (rgb_ == nullptr) return absl::ResourceExhaustedError("the video: out of memory");
    rgb_->width = frame.width;
    rgb_->height = frame.height;
    rgb_->format = AV_PIX_FMT_RGB24;
    const int error = av_frame_get_buffer(rgb_.get(), 0);
    return error < 0 ? Broken("frame", error) : absl::OkStatus();
  }

  SwsContextPtr sws_;
  AvFramePtr rgb_;
  AVPixelFormat format_ = AV_PIX_FMT_NONE;
  int space_ = AVCOL_SPC_UNSPECIFIED;
  int range_ = AVCOL_RANGE_UNSPECIFIED;
};

// Takes decoded frames, holds them against the limits and hands them on.
class FrameReceiver {
 public:
  FrameReceiver(const MediaLimits& limits, const FrameSink& sink, int orientation)
      : limits_(limits), sink_(sink), orientation_(orientation) {}

  absl::Status Take(const AVFrame& frame) {
    if ((frame.flags & AV_FRAME_FLAG_CORRUPT) != 0 || frame.decode_error_flags != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the video's frame ", num_frames_, " is damaged"));
    }
    if (num_frames_ == 0) {
      KINO_RETURN_IF_ERROR(CheckSize("the video's frame", frame.width, frame.height, limits_));
      width_ = frame.width;
      height_ = frame.height;
    } else if (frame.width != width_ || frame.height != height_) {
      return absl::InvalidArgumentError(absl::StrCat("the video changes its size from ", width_,
                                                     "x", height_, " to ", frame.width, "x",
                                                     frame.height, " at frame ", num_frames_));
    }
    if (num_frames_ == limits_.max_frames) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the video has more than ", limits_.max_frames, " frames"));
    }
    ++num_frames_;
    if (3LL * width_ * height_ * num_frames_ > limits_.max_output_bytes) {
      return absl::ResourceExhaustedError(absl::StrCat("the video's frames take more than ",
                                                       limits_.max_output_bytes, " bytes as RGB"));
    }
    KINO_ASSIGN_OR_RETURN(RgbImage image, converter_.Convert(frame));
    return sink_(ApplyOrientation(std::move(image), orientation_));
  }

  int num_frames() const { return num_frames_; }
  int shown_width() const { return orientation_ >= 5 ? height_ : width_; }
  int shown_height() const { return orientation_ >= 5 ? width_ : height_; }

 private:
  const MediaLimits& limits_;
  const FrameSink& sink_;
  const int orientation_;
  RgbConverter converter_;
  int width_ = 0;
  int height_ = 0;
  int num_frames_ = 0;
};

// A null packet drains the decoder.
absl::Status DecodePacket(AVCodecContext* decoder, const AVPacket* packet, AVFrame* frame,
                          FrameReceiver& receiver) {
  int error = avcodec_send_packet(decoder, packet);
  if (error < 0) return Broken("cannot be decoded", error);
  while (true) {
    error = avcodec_receive_frame(decoder, frame);
    if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return absl::OkStatus();
    if (error < 0) return Broken("cannot be decoded", error);
    const absl::Status status = receiver.Take(*frame);
    av_frame_unref(frame);
    KINO_RETURN_IF_ERROR(status);
  }
}

absl::Status DecodeTrack(Demuxer& demuxer, AVCodecContext* decoder, FrameReceiver& receiver) {
  const AvPacketPtr packet(av_packet_alloc());
  const AvFramePtr frame(av_frame_alloc());
  if (packet == nullptr || frame == nullptr) {
    return absl::ResourceExhaustedError("the video: out of memory");
  }
  while (true) {
    const int error = av_read_frame(demuxer.format, packet.get());
    if (error == AVERROR_EOF) break;
    if (error < 0) return Broken("cannot be read", error);
    absl::Status status;
    if (packet->stream_index == demuxer.track->index) {
      status = (packet->flags & AV_PKT_FLAG_CORRUPT) != 0
                   ? absl::InvalidArgumentError("the video is truncated or damaged")
                   : DecodePacket(decoder, packet.get(), frame.get(), receiver);
    }
    av_packet_unref(packet.get());
    KINO_RETURN_IF_ERROR(status);
  }
  if (demuxer.format->pb->error < 0) return Broken("cannot be read", demuxer.format->pb->error);
  return DecodePacket(decoder, nullptr, frame.get(), receiver);
}

// FFmpeg believes the counts in a file's tables and would make room for 2 GB of entries that are
// not there. One piece of memory is at most so much, a frame of eight bytes a pixel among them. The
// limit is the process's.
void LimitFfmpegMemory(const MediaLimits& limits) {
  constexpr size_t kLeast = size_t{256} << 20;
  av_max_alloc(std::max(kLeast, 8 * static_cast<size_t>(limits.max_pixels) + (size_t{1} << 20)));
}

}  // namespace

absl::StatusOr<VideoInfo> DecodeVideo(std::string_view bytes, const MediaLimits& limits,
                                      const FrameSink& sink) {
  RouteFfmpegLog();
  LimitFfmpegMemory(limits);
  Demuxer demuxer;
  KINO_RETURN_IF_ERROR(OpenDemuxer(bytes, demuxer));
  const AVCodecParameters& parameters = *demuxer.track->codecpar;
  if (parameters.width != 0 || parameters.height != 0) {
    KINO_RETURN_IF_ERROR(
        CheckSize("the video's frame", parameters.width, parameters.height, limits));
  }
  KINO_ASSIGN_OR_RETURN(const AvCodecContextPtr decoder, OpenDecoder(*demuxer.track, limits));
  if (const int error = avformat_find_stream_info(demuxer.format, nullptr); error < 0) {
    return Broken("cannot be read", error);
  }
  KINO_ASSIGN_OR_RETURN(const int orientation, Orientation(*demuxer.track));
  FrameReceiver receiver(limits, sink, orientation);
  KINO_RETURN_IF_ERROR(DecodeTrack(demuxer, decoder.get(), receiver));
  if (receiver.num_frames() == 0) {
    return absl::InvalidArgumentError("the video has no frame, or is truncated");
  }
  return VideoInfo{.width = receiver.shown_width(),
                   .height = receiver.shown_height(),
                   .num_frames = receiver.num_frames(),
                   .frame_rate = TrackFrameRate(*demuxer.track),
                   .codec = avcodec_get_name(parameters.codec_id)};
}

}  // namespace kino::engine
