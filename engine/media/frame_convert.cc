#include "engine/media/frame_convert.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "engine/core/status.h"

extern "C" {
#include "libavutil/pixdesc.h"
}

namespace kino::engine {
namespace {

// A field of a C enum's type, in which FFmpeg keeps what a file says, whatever that is. To read it
// as the enum would be undefined where the enum has no such value.
template <typename Enum>
int Code(const Enum& field) {
  static_assert(sizeof(Enum) == sizeof(int));
  int code = 0;
  std::memcpy(&code, &field, sizeof(code));
  return code;
}

const AVPixFmtDescriptor& Descriptor(int format) {
  return *av_pix_fmt_desc_get(static_cast<AVPixelFormat>(format));
}

absl::StatusOr<AvFramePtr> NewFrame(int width, int height, int format) {
  AvFramePtr frame(av_frame_alloc());
  if (frame == nullptr) return absl::ResourceExhaustedError("the video: out of memory");
  frame->width = width;
  frame->height = height;
  frame->format = format;
  const int error = av_frame_get_buffer(frame.get(), 0);
  if (error < 0) return AvError(absl::StatusCode::kInvalidArgument, "the video's frame", error);
  return frame;
}

// Planes with coarser chroma are turned before the conversion, which joins chroma otherwise across
// than down. Where chroma is coarse in one direction alone, no format holds the planes with their
// sides exchanged, and the pixels are turned behind it.
bool IsTurnedFirst(const AVPixFmtDescriptor& descriptor, int orientation) {
  if (orientation == 1 || (descriptor.flags & AV_PIX_FMT_FLAG_PLANAR) == 0 ||
      (descriptor.flags & AV_PIX_FMT_FLAG_RGB) != 0) {
    return false;
  }
  const int across = descriptor.log2_chroma_w, down = descriptor.log2_chroma_h;
  return (across != 0 || down != 0) && (across == down || orientation < 5);
}

// REQUIRES: each plane holds one component, as the planar formats with coarser chroma do.
void TurnPlanes(const AVFrame& frame, int orientation, AVFrame& out) {
  const AVPixFmtDescriptor& descriptor = Descriptor(frame.format);
  for (int i = 0; i < descriptor.nb_components; ++i) {
    const AVComponentDescriptor& component = descriptor.comp[i];
    const bool is_chroma = i == 1 || i == 2;
    const int across = is_chroma ? descriptor.log2_chroma_w : 0;
    const int down = is_chroma ? descriptor.log2_chroma_h : 0;
    TurnPlane(frame.data[component.plane], frame.linesize[component.plane],
              AV_CEIL_RSHIFT(frame.width, across), AV_CEIL_RSHIFT(frame.height, down),
              component.step, orientation, out.data[component.plane],
              out.linesize[component.plane]);
  }
}

}  // namespace

absl::StatusOr<RgbImage> FrameConverter::Convert(const AVFrame& frame) {
  if (!IsTurnedFirst(Descriptor(frame.format), orientation_)) {
    KINO_ASSIGN_OR_RETURN(RgbImage image, ToRgb(frame));
    return ApplyOrientation(std::move(image), orientation_);
  }
  const bool is_transposed = orientation_ >= 5;
  const int width = is_transposed ? frame.height : frame.width;
  const int height = is_transposed ? frame.width : frame.height;
  if (turned_ == nullptr || turned_->format != frame.format) {
    KINO_ASSIGN_OR_RETURN(turned_, NewFrame(width, height, frame.format));
  }
  TurnPlanes(frame, orientation_, *turned_);
  const int space = Code(frame.colorspace), range = Code(frame.color_range);
  std::memcpy(&turned_->colorspace, &space, sizeof(space));
  std::memcpy(&turned_->color_range, &range, sizeof(range));
  return ToRgb(*turned_);
}

absl::StatusOr<RgbImage> FrameConverter::ToRgb(const AVFrame& frame) {
  KINO_RETURN_IF_ERROR(Prepare(frame));
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

absl::Status FrameConverter::Prepare(const AVFrame& frame) {
  const int space = Code(frame.colorspace), range = Code(frame.color_range);
  if (sws_ != nullptr && frame.width == width_ && frame.height == height_ &&
      frame.format == format_ && space == space_ && range == range_) {
    return absl::OkStatus();
  }
  width_ = frame.width;
  height_ = frame.height;
  format_ = frame.format;
  space_ = space;
  range_ = range;
  const auto format = static_cast<AVPixelFormat>(format_);
  sws_.reset(sws_getContext(width_, height_, format, width_, height_, AV_PIX_FMT_RGB24, SWS_BICUBIC,
                            nullptr, nullptr, nullptr));
  if (sws_ == nullptr) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the video's pixel format ", av_get_pix_fmt_name(format), " cannot be converted to RGB"));
  }
  if ((Descriptor(format_).flags & AV_PIX_FMT_FLAG_RGB) == 0) {
    // AVColorSpace and SWS_CS number the matrices alike; "unspecified" and what it does not know
    // mean BT.601 to swscale.
    sws_setColorspaceDetails(sws_.get(), sws_getCoefficients(space),
                             range == AVCOL_RANGE_JPEG ? 1 : 0, sws_getCoefficients(SWS_CS_DEFAULT),
                             1, 0, 1 << 16, 1 << 16);
  }
  if (rgb_ != nullptr && rgb_->width == width_ && rgb_->height == height_) return absl::OkStatus();
  KINO_ASSIGN_OR_RETURN(rgb_, NewFrame(width_, height_, AV_PIX_FMT_RGB24));
  return absl::OkStatus();
}

}  // namespace kino::engine
