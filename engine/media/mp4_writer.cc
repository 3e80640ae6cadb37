#include "engine/media/mp4_writer.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/color.h"
#include "engine/media/ffmpeg_handles.h"
#include "engine/media/frame_rate.h"

extern "C" {
#include "libavutil/opt.h"
}

namespace kino::engine {
namespace {

constexpr int kMaxSidePx = 8192;
constexpr int kIoBufferBytes = 1 << 16;

absl::Status CheckOptions(const Mp4Options& options) {
  const auto is_bad_side = [](int side) { return side < 2 || side > kMaxSidePx || side % 2 != 0; };
  if (is_bad_side(options.width) || is_bad_side(options.height)) {
    return absl::InvalidArgumentError(
        absl::StrCat("MP4: frames of ", options.width, "x", options.height,
                     "; both sides must be even and 2 to ", kMaxSidePx));
  }
  if (options.quality < 0 || options.quality > 100) {
    return absl::InvalidArgumentError(
        absl::StrCat("MP4: quality is ", options.quality, "; expected 0 to 100"));
  }
  if (options.fragment_frames < 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("MP4: fragment_frames is ", options.fragment_frames, "; expected 0 or more"));
  }
  if (options.threads < 1 || options.threads > 16) {
    return absl::InvalidArgumentError(
        absl::StrCat("MP4: threads is ", options.threads, "; expected 1 to 16"));
  }
  if (options.lossless && options.encoder == H264Encoder::kNvenc) {
    return absl::InvalidArgumentError("MP4: lossless is written by libx264 only, not by NVENC");
  }
  return absl::OkStatus();
}

int FragmentFrames(const Mp4Options& options, FrameRate rate) {
  if (options.fragment_frames > 0) return options.fragment_frames;
  return std::clamp(static_cast<int>(std::lround(rate.value() / 2)), 4, 24);
}

int ConstantRateFactor(int quality) { return static_cast<int>(std::lround(48 - 0.4 * quality)); }

// `codec` opened for the options, or why not.
absl::StatusOr<AvCodecContextPtr> OpenEncoder(const char* codec, const Mp4Options& options,
                                              FrameRate rate, int fragment_frames) {
  const AVCodec* const found = avcodec_find_encoder_by_name(codec);
  if (found == nullptr) {
    return absl::UnavailableError(absl::StrCat("MP4: this FFmpeg has no encoder ", codec));
  }
  AvCodecContextPtr context(avcodec_alloc_context3(found));
  if (context == nullptr) return absl::ResourceExhaustedError("MP4: out of memory");
  const std::string_view name(codec);
  const bool is_rgb = name == "libx264rgb";
  const bool is_nvenc = name == "h264_nvenc";
  context->width = options.width;
  context->height = options.height;
  context->pix_fmt = is_rgb ? AV_PIX_FMT_RGB24 : AV_PIX_FMT_YUV420P;
  context->time_base = {rate.den, rate.num};
  context->framerate = {rate.num, rate.den};
  context->color_primaries = AVCOL_PRI_BT709;
  context->color_trc = AVCOL_TRC_BT709;
  context->colorspace = is_rgb ? AVCOL_SPC_RGB : AVCOL_SPC_BT709;
  context->color_range = is_rgb ? AVCOL_RANGE_JPEG : AVCOL_RANGE_MPEG;
  if (!is_rgb) context->chroma_sample_location = AVCHROMA_LOC_LEFT;
  context->max_b_frames = 0;
  context->gop_size = fragment_frames;
  context->flags |= AV_CODEC_FLAG_GLOBAL_HEADER | AV_CODEC_FLAG_BITEXACT;
  context->thread_count = options.threads;
  context->thread_type = FF_THREAD_SLICE;  // frame threads would hold frames back

  const std::string factor = absl::StrCat(ConstantRateFactor(options.quality));
  int error = av_opt_set(context->priv_data, "forced-idr", "1", 0);
  const auto set = [&](const char* key, const char* value) {
    if (error >= 0) error = av_opt_set(context->priv_data, key, value, 0);
  };
  if (is_nvenc) {
    set("preset", "p5");
    set("rc", "vbr");
    set("cq", factor.c_str());
    set("delay", "0");
    set("zerolatency", "1");
    if (options.gpu >= 0) set("gpu", absl::StrCat(options.gpu).c_str());
    context->bit_rate = 0;
  } else {
    set("preset", "medium");
    set("tune", "zerolatency");
    set("x264-params", "scenecut=0");  // key frames at the fragments' heads only
    if (options.lossless) {
      set("qp", "0");
    } else {
      set("crf", factor.c_str());
    }
  }
  if (error < 0) {
    return AvError(absl::StatusCode::kInternal, absl::StrCat("MP4: options of ", codec), error);
  }
  error = avcodec_open2(context.get(), found, nullptr);
  if (error < 0) {
    return AvError(absl::StatusCode::kUnavailable, absl::StrCat("MP4: cannot open ", codec), error);
  }
  return context;
}

absl::StatusOr<AvCodecContextPtr> OpenChosenEncoder(const Mp4Options& options, FrameRate rate,
                                                    int fragment_frames) {
  if (options.lossless) return OpenEncoder("libx264rgb", options, rate, fragment_frames);
  if (options.encoder != H264Encoder::kX264) {
    auto nvenc = OpenEncoder("h264_nvenc", options, rate, fragment_frames);
    if (nvenc.ok() || options.encoder == H264Encoder::kNvenc) return nvenc;
  }
  return OpenEncoder("libx264", options, rate, fragment_frames);
}

}  // namespace

struct Mp4Writer::Stream {
  ~Stream() {
    // The muxer's private data is freed only with its context; no trailer is written for an
    // abandoned file.
    if (muxer != nullptr) avformat_free_context(muxer);
  }

  static int OnMuxerBytes(void* opaque, uint8_t* bytes, int size) {
    static_cast<Stream*>(opaque)->pending.append(reinterpret_cast<const char*>(bytes), size);
    return size;
  }

  absl::Status OpenMuxer(FrameRate rate) {
    int error = avformat_alloc_output_context2(&muxer, nullptr, "mp4", nullptr);
    if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: no muxer", error);
    auto* buffer = static_cast<uint8_t*>(av_malloc(kIoBufferBytes));
    io.reset(avio_alloc_context(buffer, kIoBufferBytes, 1, this, nullptr, OnMuxerBytes, nullptr));
    track = avformat_new_stream(muxer, nullptr);
    if (io == nullptr || track == nullptr)
      return absl::ResourceExhaustedError("MP4: out of memory");
    io->seekable = 0;
    muxer->pb = io.get();
    muxer->flags |= AVFMT_FLAG_BITEXACT;
    track->time_base = encoder->time_base;
    track->avg_frame_rate = {rate.num, rate.den};
    track->r_frame_rate = {rate.num, rate.den};
    error = avcodec_parameters_from_context(track->codecpar, encoder.get());
    AVDictionary* settings = nullptr;
    // frag_custom: a fragment ends where we say. empty_moov: the head needs no frame. skip_trailer:
    // no index at the end, so that the file is its head and its fragments and nothing else.
    av_dict_set(&settings, "movflags", "frag_custom+empty_moov+default_base_moof+skip_trailer", 0);
    if (error >= 0) error = avformat_write_header(muxer, &settings);
    av_dict_free(&settings);
    if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: cannot write the head", error);
    return HandOver();
  }

  absl::Status HandOver() {
    avio_flush(io.get());
    if (pending.empty()) return absl::OkStatus();
    const absl::Status status = sink(pending);
    pending.clear();
    return status;
  }

  // Null drains the encoder.
  absl::Status Encode(const AVFrame* picture) {
    int error = avcodec_send_frame(encoder.get(), picture);
    if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: cannot encode", error);
    while (true) {
      error = avcodec_receive_packet(encoder.get(), packet.get());
      if (error == AVERROR(EAGAIN) || error == AVERROR_EOF) return absl::OkStatus();
      if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: cannot encode", error);
      // The last frame of a fragment has no successor to tell its length.
      packet->duration = 1;
      packet->stream_index = track->index;
      av_packet_rescale_ts(packet.get(), encoder->time_base, track->time_base);
      error = av_write_frame(muxer, packet.get());
      av_packet_unref(packet.get());
      if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: cannot write", error);
      ++packets;
      if (packets % fragment_frames == 0) KINO_RETURN_IF_ERROR(EndFragment());
    }
  }

  absl::Status EndFragment() {
    const int error = av_write_frame(muxer, nullptr);
    if (error < 0) return AvError(absl::StatusCode::kInternal, "MP4: cannot end a fragment", error);
    return HandOver();
  }

  Mp4Options options;
  ByteSink sink;
  int fragment_frames = 0;
  AvCodecContextPtr encoder;
  AVFormatContext* muxer = nullptr;
  AvioContextPtr io;
  AVStream* track = nullptr;  // owned by the muxer
  AvFramePtr frame;
  AvPacketPtr packet;
  std::string pending;  // what the muxer wrote and the sink has not got
  int64_t frames = 0;
  int64_t packets = 0;
  absl::Status failure;  // the first error; every later call returns it
};

Mp4Writer::Mp4Writer(std::unique_ptr<Stream> stream) : stream_(std::move(stream)) {}
Mp4Writer::~Mp4Writer() = default;

absl::StatusOr<std::unique_ptr<Mp4Writer>> Mp4Writer::Create(const Mp4Options& options,
                                                             ByteSink sink) {
  RouteFfmpegLog();
  KINO_RETURN_IF_ERROR(CheckOptions(options));
  KINO_ASSIGN_OR_RETURN(const FrameRate rate, ToFrameRate(options.fps));
  auto stream = std::make_unique<Stream>();
  stream->options = options;
  stream->sink = std::move(sink);
  stream->fragment_frames = FragmentFrames(options, rate);
  KINO_ASSIGN_OR_RETURN(stream->encoder, OpenChosenEncoder(options, rate, stream->fragment_frames));
  stream->packet.reset(av_packet_alloc());
  stream->frame.reset(av_frame_alloc());
  if (stream->packet == nullptr || stream->frame == nullptr) {
    return absl::ResourceExhaustedError("MP4: out of memory");
  }
  AVFrame& frame = *stream->frame;
  frame.width = options.width;
  frame.height = options.height;
  frame.format = stream->encoder->pix_fmt;
  frame.color_primaries = stream->encoder->color_primaries;
  frame.color_trc = stream->encoder->color_trc;
  frame.colorspace = stream->encoder->colorspace;
  frame.color_range = stream->encoder->color_range;
  if (const int error = av_frame_get_buffer(&frame, 0); error < 0) {
    return AvError(absl::StatusCode::kInternal, "MP4: no frame", error);
  }
  KINO_RETURN_IF_ERROR(stream->OpenMuxer(rate));
  return std::unique_ptr<Mp4Writer>(new Mp4Writer(std::move(stream)));
}

absl::Status Mp4Writer::AddFrame(const uint8_t* rgb) {
  Stream& stream = *stream_;
  KINO_RETURN_IF_ERROR(stream.failure);
  AVFrame& frame = *stream.frame;
  if (const int error = av_frame_make_writable(&frame); error < 0) {
    return stream.failure = AvError(absl::StatusCode::kInternal, "MP4: no frame", error);
  }
  const int width = stream.options.width;
  if (frame.format == AV_PIX_FMT_RGB24) {
    for (int y = 0; y < stream.options.height; ++y) {
      std::copy_n(rgb + 3 * static_cast<size_t>(width) * y, 3 * static_cast<size_t>(width),
                  frame.data[0] + static_cast<ptrdiff_t>(frame.linesize[0]) * y);
    }
  } else {
    RgbToYuv420Bt709(rgb, width, stream.options.height,
                     {.y = frame.data[0],
                      .u = frame.data[1],
                      .v = frame.data[2],
                      .y_stride = static_cast<size_t>(frame.linesize[0]),
                      .uv_stride = static_cast<size_t>(frame.linesize[1])});
  }
  frame.pts = stream.frames;
  frame.pict_type =
      stream.frames % stream.fragment_frames == 0 ? AV_PICTURE_TYPE_I : AV_PICTURE_TYPE_NONE;
  ++stream.frames;
  return stream.failure = stream.Encode(&frame);
}

absl::Status Mp4Writer::Finish() {
  Stream& stream = *stream_;
  KINO_RETURN_IF_ERROR(stream.failure);
  if (stream.frames == 0) {
    return stream.failure = absl::FailedPreconditionError("MP4: no frame was given");
  }
  stream.failure = stream.Encode(nullptr);
  KINO_RETURN_IF_ERROR(stream.failure);
  if (stream.packets != stream.frames) {
    return stream.failure =
               absl::InternalError(absl::StrCat("MP4: the encoder gave ", stream.packets,
                                                " pictures for ", stream.frames, " frames"));
  }
  if (const int error = av_write_trailer(stream.muxer); error < 0) {
    return stream.failure = AvError(absl::StatusCode::kInternal, "MP4: cannot end", error);
  }
  return stream.failure = stream.HandOver();
}

std::string_view Mp4Writer::encoder_name() const { return stream_->encoder->codec->name; }

}  // namespace kino::engine
