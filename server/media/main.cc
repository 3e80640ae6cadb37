// kino-media: decodes one untrusted image or video in a process of its own. It reads the file from
// an inherited descriptor, gives up every right it does not need (sandbox.h), and leaves a
// MediaHeader and the frames in another descriptor. An error is one line on stderr, "CODE:
// message", and an exit status that is the code's number (3 INVALID_ARGUMENT, 8 RESOURCE_EXHAUSTED,
// 12 UNIMPLEMENTED, 13 INTERNAL). decode_client.h starts it.
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/core/log.h"
#include "engine/core/status.h"
#include "engine/media/image_decode.h"
#include "engine/media/video_decode.h"
#include "server/command_line/command_line.h"
#include "server/media/media_wire.h"
#include "server/media/sandbox.h"

namespace kino::media {
namespace {

struct Arguments {
  int input_fd = kInputFd;
  int output_fd = kOutputFd;
  bool is_probe = false;
  std::optional<int> parent_pid;
  std::optional<uint64_t> max_side_px, max_pixels, max_frames, max_output_bytes;
  std::optional<double> max_aspect_ratio;
  std::optional<uint64_t> max_input_bytes, memory_bytes, cpu_seconds;
};

void AddOptions(CLI::App& app, Arguments* to) {
  using command_line::AddOption;
  AddOption(app, "--input-fd", &to->input_fd, "N", "the file to read (default 3)");
  AddOption(app, "--output-fd", &to->output_fd, "N", "a file or memfd to write (default 4)");
  app.add_flag("--probe", to->is_probe, "decode everything, but write no frame");
  AddOption(app, "--max-side-px", &to->max_side_px, "N", "largest width or height (8192)");
  AddOption(app, "--max-pixels", &to->max_pixels, "N", "largest picture (33554432)");
  AddOption(app, "--max-aspect-ratio", &to->max_aspect_ratio, "X", "longer to shorter side (20)");
  AddOption(app, "--max-frames", &to->max_frames, "N", "most frames of a video (1024)");
  AddOption(app, "--max-output-bytes", &to->max_output_bytes, "N", "all frames together (1 GiB)");
  AddOption(app, "--max-input-bytes", &to->max_input_bytes, "N", "largest file (256 MiB)");
  AddOption(app, "--memory-bytes", &to->memory_bytes, "N",
            "address space beyond the start (1 GiB)");
  AddOption(app, "--cpu-seconds", &to->cpu_seconds, "N", "processor time (30)");
  AddOption(app, "--parent-pid", &to->parent_pid, "PID", "end with this process, which starts it");
}

engine::MediaLimits MakeLimits(const Arguments& arguments) {
  engine::MediaLimits limits;
  constexpr uint64_t kMaxInt = 1 << 30;
  if (arguments.max_side_px) {
    limits.max_side_px = static_cast<int>(std::min(*arguments.max_side_px, kMaxInt));
  }
  if (arguments.max_pixels) limits.max_pixels = static_cast<int64_t>(*arguments.max_pixels);
  if (arguments.max_aspect_ratio) limits.max_aspect_ratio = *arguments.max_aspect_ratio;
  if (arguments.max_frames) {
    limits.max_frames = static_cast<int>(std::min(*arguments.max_frames, kMaxInt));
  }
  if (arguments.max_output_bytes) {
    limits.max_output_bytes = static_cast<int64_t>(*arguments.max_output_bytes);
  }
  return limits;
}

absl::Status SystemError(std::string_view what) {
  const int error = errno;
  const std::string message =
      absl::StrCat(absl::string_view(what.data(), what.size()), ": ", std::strerror(error));
  return error == ENOSPC || error == ENOMEM || error == EFBIG
             ? absl::ResourceExhaustedError(message)
             : absl::InternalError(message);
}

// A regular file is read from its beginning, wherever its offset stands; anything else from here
// on.
absl::StatusOr<std::string> ReadInput(int fd, size_t max_bytes) {
  struct stat status;
  // glibc's fstat() is newfstatat, which the sandbox denies; both fill the same structure.
  if (syscall(SYS_fstat, fd, &status) != 0) return SystemError("cannot read the input");
  const bool has_offset = S_ISREG(status.st_mode);
  const auto too_large = [&] {
    return absl::ResourceExhaustedError(
        absl::StrCat("the file has more than ", max_bytes, " bytes"));
  };
  std::string bytes;
  if (has_offset) {
    if (static_cast<uint64_t>(status.st_size) > max_bytes) return too_large();
    bytes.reserve(static_cast<size_t>(status.st_size));
  }
  std::vector<char> block(1 << 16);
  while (true) {
    const ssize_t got =
        has_offset ? pread(fd, block.data(), block.size(), static_cast<off_t>(bytes.size()))
                   : read(fd, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return SystemError("cannot read the input");
    if (got == 0) return bytes;
    if (bytes.size() + static_cast<size_t>(got) > max_bytes) return too_large();
    bytes.append(block.data(), static_cast<size_t>(got));
  }
}

absl::Status WriteAt(int fd, const void* data, size_t size, int64_t offset) {
  const auto* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t put = pwrite(fd, from, size, offset);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return SystemError("cannot write the frames");
    from += put;
    size -= static_cast<size_t>(put);
    offset += put;
  }
  return absl::OkStatus();
}

template <size_t size>
void CopyName(std::string_view name, char (&out)[size]) {
  name.copy(out, size - 1);
}

absl::Status Decode(const Arguments& arguments, std::string_view bytes,
                    const engine::MediaLimits& limits) {
  const std::optional<engine::MediaType> type = engine::SniffMediaType(bytes);
  if (!type) {
    return absl::InvalidArgumentError(
        absl::StrCat("the file is ", engine::DescribeUnreadable(bytes)));
  }
  MediaHeader header = {};
  std::memcpy(header.magic, kMediaMagic, sizeof(kMediaMagic));
  header.has_frames = arguments.is_probe ? 0 : 1;
  CopyName(engine::MimeType(*type), header.mime_type);
  int64_t at = sizeof(MediaHeader);
  const auto write = [&](const engine::RgbImage& frame) -> absl::Status {
    if (arguments.is_probe) return absl::OkStatus();
    KINO_RETURN_IF_ERROR(WriteAt(arguments.output_fd, frame.rgb.data(), frame.rgb.size(), at));
    at += static_cast<int64_t>(frame.rgb.size());
    return absl::OkStatus();
  };
  if (engine::IsVideo(*type)) {
    KINO_ASSIGN_OR_RETURN(const engine::VideoInfo info, engine::DecodeVideo(bytes, limits, write));
    header.width = static_cast<uint32_t>(info.width);
    header.height = static_cast<uint32_t>(info.height);
    header.num_frames = static_cast<uint32_t>(info.num_frames);
    header.fps_num = static_cast<uint32_t>(info.frame_rate.num);
    header.fps_den = static_cast<uint32_t>(info.frame_rate.den);
    CopyName(info.codec, header.codec);
  } else {
    KINO_ASSIGN_OR_RETURN(const engine::RgbImage image, engine::DecodeImage(bytes, limits));
    header.width = static_cast<uint32_t>(image.width);
    header.height = static_cast<uint32_t>(image.height);
    header.num_frames = 1;
    header.fps_den = 1;
    KINO_RETURN_IF_ERROR(write(image));
  }
  return WriteAt(arguments.output_fd, &header, sizeof(header), 0);
}

absl::Status Run(const Arguments& arguments) {
  const engine::MediaLimits limits = MakeLimits(arguments);
  const auto or_default = [](const std::optional<uint64_t>& value, uint64_t otherwise) {
    return value.value_or(otherwise);
  };
  KINO_RETURN_IF_ERROR(EnterSandbox(
      {.memory_bytes = static_cast<int64_t>(or_default(arguments.memory_bytes, 1ULL << 30)),
       .cpu_seconds = static_cast<int>(or_default(arguments.cpu_seconds, 30)),
       .file_bytes = limits.max_output_bytes + static_cast<int64_t>(sizeof(MediaHeader)),
       .parent = arguments.parent_pid.value_or(0)}));
  KINO_ASSIGN_OR_RETURN(
      const std::string bytes,
      ReadInput(arguments.input_fd, or_default(arguments.max_input_bytes, 256ULL << 20)));
  return Decode(arguments, bytes, limits);
}

void PrintLine(std::string_view line) {
  static_cast<void>(!write(STDERR_FILENO, line.data(), line.size()));
}

void OnOutOfMemory() {
  PrintLine("RESOURCE_EXHAUSTED: decoding needs more memory than it is granted\n");
  _exit(static_cast<int>(absl::StatusCode::kResourceExhausted));
}

int Main(int argc, char** argv) {
  Arguments arguments;
  CLI::App app(
      "Decodes one image or video, read from a descriptor, to raw RGB frames in another. Started "
      "by "
      "Kino's other programs.",
      "kino-media");
  command_line::SetUp(app);
  AddOptions(app, &arguments);
  const absl::StatusOr<std::string> text =
      command_line::Parse(app, command_line::Arguments(argc, argv));
  if (text.ok() && !text->empty()) {
    std::printf("%s", text->c_str());
    return 0;
  }
  absl::Status status = text.status();
  engine::SetLogSink([](engine::LogLevel, std::string_view) {});
  std::set_new_handler(OnOutOfMemory);
  if (status.ok()) status = Run(arguments);
  if (!status.ok()) {
    std::string line =
        absl::StrCat(absl::StatusCodeToString(status.code()), ": ", status.message());
    std::replace(line.begin(), line.end(), '\n', ' ');
    PrintLine(line + "\n");
  }
  // Past the libraries' exit handlers, which may want system calls that are gone.
  _exit(static_cast<int>(status.code()));
}

}  // namespace
}  // namespace kino::media

int main(int argc, char** argv) { return kino::media::Main(argc, argv); }
