#include "engine/media/video_decode.h"

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/core/status.h"
#include "engine/media/ffmpeg_handles.h"
#include "engine/media/frame_convert.h"
#include "engine/media/frame_timing.h"
#include "engine/media/time_jumps.h"

extern "C" {
#include "libavutil/display.h"
#include "libavutil/mathematics.h"
#include "libavutil/mem.h"
}

namespace kino::engine {
namespace {

constexpr int kIoBufferBytes = 1 << 16;
constexpr int kMaxTracks = 32;

// FFmpeg's decoder of a codec: its own wherever it has one, not an external library's that it might
// prefer. Its own "av1" is for hardware alone.
std::string DecoderName(std::string_view codec) {
  return codec == "av1" ? "libdav1d" : std::string(codec);
}

// Those of kVideoCodecs that this FFmpeg decodes: "h264, hevc, ...".
std::string ReadableCodecs() {
  std::vector<std::string> codecs;
  for (const std::string_view codec : kVideoCodecs) {
    if (avcodec_find_decoder_by_name(DecoderName(codec).c_str()) != nullptr) {
      codecs.emplace_back(codec);
    }
  }
  return absl::StrJoin(codecs, ", ");
}

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

struct Container {
  const char* format;     // the demuxer, by one of its names
  const char* whitelist;  // the demuxer, by all of them
};

Container ContainerOf(MediaType type) {
  switch (type) {
    case MediaType::kMp4:
      return {"mp4", "mov,mp4,m4a,3gp,3g2,mj2"};
    case MediaType::kMpegTs:
      return {"mpegts", "mpegts"};
    default:
      return {"matroska", "matroska,webm"};
  }
}

absl::Status OpenDemuxer(std::string_view bytes, Demuxer& demuxer) {
  const std::optional<MediaType> type = SniffMediaType(bytes);
  if (!type) {
    return absl::InvalidArgumentError(absl::StrCat("the video is ", DescribeUnreadable(bytes)));
  }
  if (!IsVideo(*type)) return absl::InvalidArgumentError("the video is a picture");
  const Container container = ContainerOf(*type);
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
  std::vector<std::string> decoders;
  for (const std::string_view codec : kVideoCodecs) decoders.push_back(DecoderName(codec));
  AVDictionary* options = nullptr;
  av_dict_set(&options, "protocol_whitelist", "", 0);
  av_dict_set(&options, "format_whitelist", container.whitelist, 0);
  av_dict_set(&options, "codec_whitelist", absl::StrJoin(decoders, ",").c_str(), 0);
  // The container is named, so nothing is probed. A failure frees the context and clears the
  // pointer.
  const int error = avformat_open_input(&demuxer.format, nullptr,
                                        av_find_input_format(container.format), &options);
  av_dict_free(&options);
  return error < 0 ? Broken("cannot be opened", error) : absl::OkStatus();
}

bool IsVideoTrack(const AVStream& stream) {
  return stream.codecpar->codec_type == AVMEDIA_TYPE_VIDEO &&
         (stream.disposition & AV_DISPOSITION_ATTACHED_PIC) == 0;
}

absl::Status CheckDeclaredSize(const AVStream& track, const MediaLimits& limits) {
  const AVCodecParameters& parameters = *track.codecpar;
  if (parameters.width == 0 && parameters.height == 0) return absl::OkStatus();
  return CheckSize("the video's frame", parameters.width, parameters.height, limits);
}

// Of several video tracks the ffmpeg program takes the one that is marked as the default, then the
// largest, then the first. Nothing more is read of the others.
absl::Status ChooseTrack(Demuxer& demuxer) {
  constexpr int64_t kDefaultIsWorth = 5'000'000;
  int64_t best = -1;
  for (unsigned i = 0; i < demuxer.format->nb_streams; ++i) {
    AVStream* const stream = demuxer.format->streams[i];
    stream->discard = AVDISCARD_ALL;
    if (!IsVideoTrack(*stream)) continue;
    const int64_t score =
        int64_t{stream->codecpar->width} * stream->codecpar->height +
        ((stream->disposition & AV_DISPOSITION_DEFAULT) != 0 ? kDefaultIsWorth : 0);
    if (score <= best) continue;
    best = score;
    demuxer.track = stream;
  }
  if (demuxer.track == nullptr) {
    return absl::InvalidArgumentError("the video file has no video track");
  }
  demuxer.track->discard = AVDISCARD_DEFAULT;
  return absl::OkStatus();
}

absl::StatusOr<AvCodecContextPtr> OpenDecoder(const AVStream& track, const MediaLimits& limits) {
  const std::string name = avcodec_get_name(track.codecpar->codec_id);
  if (std::count(std::begin(kVideoCodecs), std::end(kVideoCodecs), name) == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("the video's codec is ", name, "; can be read: ", ReadableCodecs()));
  }
  const AVCodec* const codec = avcodec_find_decoder_by_name(DecoderName(name).c_str());
  if (codec == nullptr) {
    return absl::UnimplementedError(absl::StrCat("the video's codec is ", name,
                                                 ", for which this FFmpeg has no decoder; can be "
                                                 "read: ",
                                                 ReadableCodecs()));
  }
  AvCodecContextPtr context(avcodec_alloc_context3(codec));
  if (context == nullptr) return absl::ResourceExhaustedError("the video: out of memory");
  int error = avcodec_parameters_to_context(context.get(), track.codecpar);
  context->thread_count = 1;  // the sandbox grants no thread
  // Decoders hold their padded buffers against it; each frame's own size is checked when it comes.
  context->max_pixels = 2 * limits.max_pixels + (1 << 16);
  context->err_recognition = AV_EF_CRCCHECK;
  context->pkt_timebase = track.time_base;
  if (error >= 0) error = avcodec_open2(context.get(), codec, nullptr);
  if (error < 0) return Broken("decoder cannot be opened", error);
  return context;
}

const int32_t* DisplayMatrix(const AVStream& track, const AVFrame& frame) {
  constexpr size_t kBytes = 9 * sizeof(int32_t);
  // H.264 and HEVC may tell it themselves, which goes first.
  const AVFrameSideData* const of_frame =
      av_frame_get_side_data(&frame, AV_FRAME_DATA_DISPLAYMATRIX);
  if (of_frame != nullptr && of_frame->size >= kBytes) {
    return reinterpret_cast<const int32_t*>(of_frame->data);
  }
#if LIBAVCODEC_VERSION_INT >= AV_VERSION_INT(60, 31, 100)
  const AVPacketSideData* const side_data =
      av_packet_side_data_get(track.codecpar->coded_side_data, track.codecpar->nb_coded_side_data,
                              AV_PKT_DATA_DISPLAYMATRIX);
  if (side_data == nullptr || side_data->size < kBytes) return nullptr;
  return reinterpret_cast<const int32_t*>(side_data->data);
#else
  size_t size = 0;
  const uint8_t* const matrix = av_stream_get_side_data(&track, AV_PKT_DATA_DISPLAYMATRIX, &size);
  if (matrix == nullptr || size < kBytes) return nullptr;
  return reinterpret_cast<const int32_t*>(matrix);
#endif
}

// The display matrix as EXIF's orientation: x' = a x + c y, y' = b x + d y.
absl::StatusOr<int> Orientation(const int32_t* matrix) {
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

bool IsPositive(AVRational rate) { return rate.num > 0 && rate.den > 0; }

// The rate at which the ffmpeg program gives a track's frames.
FrameRate GivenRate(AVFormatContext* format, AVStream* track) {
  const AVRational rate = av_guess_frame_rate(format, track, nullptr);
  if (IsPositive(rate)) return {rate.num, rate.den};
  return {25, 1};  // the program's choice where a file says nothing
}

// Whether its clock may be set anew in the middle.
bool MayJump(const AVFormatContext& format) {
  return (format.iformat->flags & AVFMT_TS_DISCONT) != 0;
}

// When the file begins, in the track's ticks.
int64_t FileBegins(const AVFormatContext& format, const AVStream& track) {
  constexpr AVRational kMicroseconds = {1, AV_TIME_BASE};
  int64_t begins = format.start_time == AV_NOPTS_VALUE ? 0 : format.start_time;
  // Where times may jump, tracks that are not read do not count.
  if (MayJump(format) && track.start_time != AV_NOPTS_VALUE) {
    begins = std::max(begins, av_rescale_q(track.start_time, track.time_base, kMicroseconds));
  }
  return av_rescale_q(begins, kMicroseconds, track.time_base);
}

int64_t FrameDuration(const AVFrame& frame) {
#if LIBAVUTIL_VERSION_INT >= AV_VERSION_INT(57, 30, 100)
  return std::max<int64_t>(frame.duration, 0);
#else
  return std::max<int64_t>(frame.pkt_duration, 0);
#endif
}

// Takes decoded frames, holds them against the limits and hands them on at a constant rate.
class FrameReceiver {
 public:
  FrameReceiver(const MediaLimits& limits, const FrameSink& sink, Demuxer& demuxer)
      : limits_(limits),
        sink_(sink),
        track_(*demuxer.track),
        begins_(FileBegins(*demuxer.format, *demuxer.track)),
        rate_(GivenRate(demuxer.format, demuxer.track)),
        timing_({.rate = {rate_.num, rate_.den},
                 .track_time_base = track_.time_base,
                 .average_rate = track_.avg_frame_rate,
                 .skips_the_lead = demuxer.format->nb_streams == 1}) {}

  absl::Status Take(const AVFrame& frame, AVRational codec_rate) {
    if ((frame.flags & AV_FRAME_FLAG_CORRUPT) != 0 || frame.decode_error_flags != 0) {
      return absl::InvalidArgumentError(
          absl::StrCat("the video's frame ", num_decoded_, " is damaged"));
    }
    if (num_decoded_ == 0) {
      KINO_RETURN_IF_ERROR(CheckSize("the video's frame", frame.width, frame.height, limits_));
      width_ = frame.width;
      height_ = frame.height;
      KINO_ASSIGN_OR_RETURN(orientation_, Orientation(DisplayMatrix(track_, frame)));
      converter_.emplace(orientation_);
    } else if (frame.width != width_ || frame.height != height_) {
      return absl::InvalidArgumentError(absl::StrCat("the video changes its size from ", width_,
                                                     "x", height_, " to ", frame.width, "x",
                                                     frame.height, " at frame ", num_decoded_));
    }
    ++num_decoded_;
    const ConstantRate::Counts counts = timing_.Add(TimesOf(frame, codec_rate));
    KINO_RETURN_IF_ERROR(Give(num_decoded_ > 1 ? counts.previous : 0));
    KINO_ASSIGN_OR_RETURN(last_, converter_->Convert(frame));
    return Give(num_decoded_ > 1 ? counts.current : counts.previous + counts.current);
  }

  absl::Status Finish() { return Give(timing_.Finish()); }

  int num_frames() const { return num_frames_; }
  FrameRate rate() const { return rate_; }
  int shown_width() const { return orientation_ >= 5 ? height_ : width_; }
  int shown_height() const { return orientation_ >= 5 ? width_ : height_; }

 private:
  ConstantRate::Times TimesOf(const AVFrame& frame, AVRational codec_rate) const {
    ConstantRate::Times times;
    times.duration = FrameDuration(frame);
    if (frame.best_effort_timestamp != AV_NOPTS_VALUE) {
      times.shown_at = av_sat_sub64(frame.best_effort_timestamp, begins_);
    }
    if (IsPositive(codec_rate)) {
      const AVRational field = av_div_q({1, 2}, codec_rate);
      times.codec_duration =
          av_rescale_q(std::max(frame.repeat_pict, 0) + 2, field, track_.time_base);
    }
    return times;
  }

  // The last frame so many times.
  absl::Status Give(int64_t count) {
    for (; count > 0; --count) {
      if (num_frames_ == limits_.max_frames) {
        return absl::ResourceExhaustedError(absl::StrCat("the video has more than ",
                                                         limits_.max_frames, " frames at ",
                                                         rate_.num, "/", rate_.den, " a second"));
      }
      ++num_frames_;
      if (3LL * width_ * height_ * num_frames_ > limits_.max_output_bytes) {
        return absl::ResourceExhaustedError(absl::StrCat(
            "the video's frames take more than ", limits_.max_output_bytes, " bytes as RGB"));
      }
      KINO_RETURN_IF_ERROR(sink_(last_));
    }
    return absl::OkStatus();
  }

  const MediaLimits& limits_;
  const FrameSink& sink_;
  const AVStream& track_;
  const int64_t begins_;
  const FrameRate rate_;
  ConstantRate timing_;
  std::optional<FrameConverter> converter_;
  RgbImage last_;
  int orientation_ = 1;
  int width_ = 0;
  int height_ = 0;
  int num_decoded_ = 0;
  int num_frames_ = 0;
};

// A null packet drains the decoder, which an empty one would do too: that stands for no frame.
absl::Status DecodePacket(AVCodecContext* decoder, const AVPacket* packet, AVFrame* frame,
                          FrameReceiver& receiver) {
  if (packet != nullptr && packet->size == 0) return absl::OkStatus();
  int error = avcodec_send_packet(decoder, packet);
  if (error < 0) return Broken("cannot be decoded", error);
  while (true) {
    error = avcodec_receive_frame(decoder, frame);
    if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return absl::OkStatus();
    if (error < 0) return Broken("cannot be decoded", error);
    const absl::Status status = receiver.Take(*frame, decoder->framerate);
    av_frame_unref(frame);
    KINO_RETURN_IF_ERROR(status);
  }
}

// The track's packets in the order of decoding.
class PacketReader {
 public:
  // rate: of its frames.
  PacketReader(Demuxer& demuxer, const FrameRate& rate)
      : demuxer_(demuxer),
        // FFmpeg before 7 guesses the durations of MP4's reordered frames from the rate, though the
        // file gives them: as the time to the next packet.
        is_mp4_(std::string_view(demuxer.format->iformat->name).starts_with("mov,")),
        jumps_(MayJump(*demuxer.format), demuxer.track->time_base, {rate.num, rate.den}) {}

  // False at the end.
  absl::StatusOr<bool> Next(AVPacket* out) {
    if (next_ == nullptr) {
      next_.reset(av_packet_alloc());
      if (next_ == nullptr) return absl::ResourceExhaustedError("the video: out of memory");
      KINO_RETURN_IF_ERROR(Read());
      first_dts_ = next_->dts;
      first_shown_ = last_shown_ = next_->pts;
    }
    if (!has_next_) return false;
    av_packet_unref(out);
    av_packet_move_ref(out, next_.get());
    KINO_RETURN_IF_ERROR(Read());
    if (is_mp4_ && out->dts != AV_NOPTS_VALUE) SetDuration(out);
    jumps_.Mend(*out);
    return true;
  }

 private:
  void SetDuration(AVPacket* out) {
    first_shown_ = std::min(first_shown_, out->pts);
    last_shown_ = std::max(last_shown_, out->pts);
    int64_t duration = av_sat_sub64(has_next_ ? next_->dts : EndAfter(first_dts_), out->dts);
    // Some files count their duration from the first frame that is shown.
    if (duration <= 0 && !has_next_) duration = av_sat_sub64(EndAfter(first_shown_), last_shown_);
    if (duration > 0) out->duration = duration;
  }

  int64_t EndAfter(int64_t begin) const {
    const int64_t duration = demuxer_.track->duration;
    if (begin == AV_NOPTS_VALUE || duration == AV_NOPTS_VALUE) return AV_NOPTS_VALUE;
    return av_sat_add64(begin, duration);
  }

  absl::Status Read() {
    has_next_ = false;
    while (true) {
      const int error = av_read_frame(demuxer_.format, next_.get());
      if (error == AVERROR_EOF) break;
      if (error < 0) return Broken("cannot be read", error);
      if (next_->stream_index == demuxer_.track->index) {
        if ((next_->flags & AV_PKT_FLAG_CORRUPT) != 0) {
          return absl::InvalidArgumentError("the video is truncated or damaged");
        }
        has_next_ = true;
        return absl::OkStatus();
      }
      av_packet_unref(next_.get());
    }
    const int error = demuxer_.format->pb->error;
    return error < 0 ? Broken("cannot be read", error) : absl::OkStatus();
  }

  Demuxer& demuxer_;
  const bool is_mp4_;
  AvPacketPtr next_;
  TimeJumps jumps_;
  bool has_next_ = false;
  int64_t first_dts_ = AV_NOPTS_VALUE;
  int64_t first_shown_ = AV_NOPTS_VALUE;
  int64_t last_shown_ = AV_NOPTS_VALUE;
};

absl::Status DecodeTrack(Demuxer& demuxer, AVCodecContext* decoder, FrameReceiver& receiver) {
  const AvPacketPtr packet(av_packet_alloc());
  const AvFramePtr frame(av_frame_alloc());
  if (packet == nullptr || frame == nullptr) {
    return absl::ResourceExhaustedError("the video: out of memory");
  }
  PacketReader reader(demuxer, receiver.rate());
  while (true) {
    KINO_ASSIGN_OR_RETURN(const bool has_packet, reader.Next(packet.get()));
    if (!has_packet) break;
    KINO_RETURN_IF_ERROR(DecodePacket(decoder, packet.get(), frame.get(), receiver));
  }
  KINO_RETURN_IF_ERROR(DecodePacket(decoder, nullptr, frame.get(), receiver));
  return receiver.Finish();
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
  for (unsigned i = 0; i < demuxer.format->nb_streams; ++i) {
    const AVStream& track = *demuxer.format->streams[i];
    if (!IsVideoTrack(track)) continue;
    KINO_RETURN_IF_ERROR(CheckDeclaredSize(track, limits));
  }
  if (const int error = avformat_find_stream_info(demuxer.format, nullptr); error < 0) {
    return Broken("cannot be read", error);
  }
  KINO_RETURN_IF_ERROR(ChooseTrack(demuxer));
  KINO_RETURN_IF_ERROR(CheckDeclaredSize(*demuxer.track, limits));
  KINO_ASSIGN_OR_RETURN(const AvCodecContextPtr decoder, OpenDecoder(*demuxer.track, limits));
  FrameReceiver receiver(limits, sink, demuxer);
  KINO_RETURN_IF_ERROR(DecodeTrack(demuxer, decoder.get(), receiver));
  if (receiver.num_frames() == 0) {
    return absl::InvalidArgumentError("the video has no frame, or is truncated");
  }
  return VideoInfo{.width = receiver.shown_width(),
                   .height = receiver.shown_height(),
                   .num_frames = receiver.num_frames(),
                   .frame_rate = receiver.rate(),
                   .codec = avcodec_get_name(demuxer.track->codecpar->codec_id)};
}

}  // namespace kino::engine
