#include "server/media/decode_client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "engine/core/status.h"
#include "engine/media/frames.h"
#include "server/media/media_wire.h"

namespace kino::media {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kMaxMessageBytes = 1024;
// How often a cancel token is looked at.
constexpr int64_t kCancelLookMs = 20;

// A descriptor that is closed with its owner.
class OwnedFd {
 public:
  explicit OwnedFd(int fd = -1) : fd_(fd) {}
  ~OwnedFd() { Reset(); }
  OwnedFd(OwnedFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  OwnedFd& operator=(OwnedFd&& other) noexcept {
    Reset(std::exchange(other.fd_, -1));
    return *this;
  }

  void Reset(int fd = -1) {
    if (fd_ >= 0) close(fd_);
    fd_ = fd;
  }
  int get() const { return fd_; }

 private:
  int fd_;
};

absl::Status SystemError(std::string_view what, int error) {
  const std::string message =
      absl::StrCat(absl::string_view(what.data(), what.size()), ": ", std::strerror(error));
  return error == EMFILE || error == ENFILE || error == ENOMEM || error == EAGAIN
             ? absl::UnavailableError(message)
             : absl::InternalError(message);
}

std::string ProgramPath(const DecodeOptions& options) {
  if (!options.kino_media_path.empty()) return options.kino_media_path;
  std::string self(4096, '\0');
  const ssize_t size = readlink("/proc/self/exe", self.data(), self.size());
  self.resize(size > 0 ? static_cast<size_t>(size) : 0);
  return self.substr(0, self.rfind('/') + 1) + "kino-media";
}

std::vector<std::string> ProgramArguments(const std::string& path, const DecodeOptions& options) {
  std::vector<std::string> arguments = {
      path,
      absl::StrCat("--max-side-px=", options.max_side_px),
      absl::StrCat("--max-pixels=", options.max_pixels),
      absl::StrCat("--max-aspect-ratio=", options.max_aspect_ratio),
      absl::StrCat("--max-frames=", options.max_frames),
      absl::StrCat("--max-output-bytes=", options.max_output_bytes),
      absl::StrCat("--max-input-bytes=", options.max_input_bytes),
      absl::StrCat("--memory-bytes=", options.memory_bytes),
      absl::StrCat("--cpu-seconds=", options.cpu_seconds),
      absl::StrCat("--parent-pid=", getpid()),
  };
  if (options.is_probe) arguments.push_back("--probe");
  return arguments;
}

// A child that is killed and reaped with its owner, whatever happens in between.
class Child {
 public:
  Child() = default;
  ~Child() {
    if (pid_ > 0) {
      kill(pid_, SIGKILL);
      Reap();
    }
  }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;

  // Starts the program with its input, its output and its stderr, and no other descriptor of ours.
  absl::Status Start(const DecodeOptions& options, int input, int output, int errors) {
    const std::string path = ProgramPath(options);
    if (access(path.c_str(), X_OK) != 0) {
      return absl::UnimplementedError(
          absl::StrCat("images and videos cannot be read: '", path, "': ", std::strerror(errno)));
    }
    std::vector<std::string> words = ProgramArguments(path, options);
    std::vector<char*> argv;
    for (std::string& word : words) argv.push_back(word.data());
    argv.push_back(nullptr);
    // The loader's search path and the sanitizers' settings, nothing else.
    std::vector<std::string> settings;
    for (const char* const name : {"LD_LIBRARY_PATH", "ASAN_OPTIONS", "UBSAN_OPTIONS"}) {
      if (const char* const value = std::getenv(name)) {
        settings.push_back(absl::StrCat(name, "=", value));
      }
    }
    std::vector<char*> environment;
    for (std::string& setting : settings) environment.push_back(setting.data());
    environment.push_back(nullptr);

    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attributes);
    posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&actions, STDOUT_FILENO, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&actions, errors, STDERR_FILENO);
    posix_spawn_file_actions_adddup2(&actions, input, kInputFd);
    posix_spawn_file_actions_adddup2(&actions, output, kOutputFd);
    posix_spawn_file_actions_addclosefrom_np(&actions, kOutputFd + 1);
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setsigdefault(&attributes, &all);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    const int error =
        posix_spawn(&pid_, path.c_str(), &actions, &attributes, argv.data(), environment.data());
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attributes);
    if (error != 0) {
      pid_ = -1;
      return SystemError(absl::StrCat("cannot start '", path, "'"), error);
    }
    return absl::OkStatus();
  }

  // Waits for its end while collecting what it says, then gives its wait status.
  absl::StatusOr<int> Wait(int errors, Clock::time_point deadline,
                           const engine::CancelToken* cancel, std::string& message) {
    const OwnedFd pidfd(static_cast<int>(syscall(SYS_pidfd_open, pid_, 0)));
    if (pidfd.get() < 0) return SystemError("pidfd_open", errno);
    pollfd watched[2] = {{pidfd.get(), POLLIN, 0}, {errors, POLLIN, 0}};
    while (Clock::now() < deadline) {
      if (cancel != nullptr) KINO_RETURN_IF_ERROR(cancel->Check());
      const auto left =
          std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now()).count();
      const int64_t most = cancel != nullptr ? kCancelLookMs : int64_t{1} << 30;
      const int ready = poll(watched, 2, static_cast<int>(std::clamp<int64_t>(left + 1, 0, most)));
      if (ready < 0 && errno != EINTR) return SystemError("poll", errno);
      if (ready <= 0) continue;
      // What it said is read to the end before its end is looked at.
      if (watched[1].revents != 0) {
        char block[512];
        const ssize_t got = read(errors, block, sizeof(block));
        if (got > 0) {
          message.append(block, std::min<size_t>(got, kMaxMessageBytes - message.size()));
        } else if (got == 0 || (errno != EAGAIN && errno != EINTR)) {
          watched[1].fd = -1;
        }
      } else if (watched[0].revents != 0) {
        return Reap();
      }
    }
    return absl::DeadlineExceededError("");
  }

 private:
  int Reap() {
    int status = 0;
    while (waitpid(pid_, &status, 0) < 0 && errno == EINTR) {
    }
    pid_ = -1;
    return status;
  }

  pid_t pid_ = -1;
};

// The text after "CODE: ", with nothing in it that a terminal or a log would act on.
std::string CleanMessage(std::string message) {
  message = message.substr(0, message.find('\n'));
  const size_t colon = message.find(": ");
  if (colon != std::string::npos) message = message.substr(colon + 2);
  for (char& c : message) {
    if (!absl::ascii_isprint(static_cast<unsigned char>(c))) c = '?';
  }
  return message;
}

absl::Status StatusOfEnd(int wait_status, const std::string& message,
                         const DecodeOptions& options) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    if (signal == SIGXCPU) {
      return absl::ResourceExhaustedError(absl::StrCat(
          "decoding takes more than ", options.cpu_seconds, " seconds of processor time"));
    }
    if (signal == SIGXFSZ) {
      return absl::ResourceExhaustedError(
          absl::StrCat("the frames take more than ", options.max_output_bytes, " bytes"));
    }
    return absl::InternalError(
        absl::StrCat("kino-media was ended by signal ", signal, " while it read the file"));
  }
  const auto code = static_cast<absl::StatusCode>(WEXITSTATUS(wait_status));
  switch (code) {
    case absl::StatusCode::kOk:
      return absl::OkStatus();
    case absl::StatusCode::kInvalidArgument:
    case absl::StatusCode::kResourceExhausted:
    case absl::StatusCode::kUnimplemented:
      return absl::Status(code, CleanMessage(message));
    default:
      return absl::InternalError(absl::StrCat(
          "kino-media failed with status ", WEXITSTATUS(wait_status), ": ", CleanMessage(message)));
  }
}

bool IsOneOf(std::string_view word, std::initializer_list<std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// The decoder has met a stranger's file, so a header that could not be true is taken for a
// break-in.
absl::Status CheckHeader(const MediaHeader& header, const DecodeOptions& options) {
  const std::string_view mime(header.mime_type, strnlen(header.mime_type, 32));
  const std::string_view codec(header.codec, strnlen(header.codec, 32));
  const bool is_image = IsOneOf(mime, {"image/png", "image/jpeg", "image/webp"}) && codec.empty() &&
                        header.num_frames == 1;
  const bool is_video =
      IsOneOf(mime, {"video/mp4", "video/webm", "video/x-matroska", "video/mp2t"}) &&
      std::count(std::begin(engine::kVideoCodecs), std::end(engine::kVideoCodecs), codec) > 0;
  const auto side = static_cast<uint32_t>(std::max(options.max_side_px, 0));
  const auto frames = static_cast<uint32_t>(std::max(options.max_frames, 1));
  constexpr uint32_t kMaxFpsPart = 1u << 31;
  if (std::memcmp(header.magic, kMediaMagic, sizeof(kMediaMagic)) != 0 ||
      (!is_image && !is_video) || header.width == 0 || header.width > side || header.height == 0 ||
      header.height > side || header.num_frames == 0 || header.num_frames > frames ||
      header.fps_den == 0 || header.fps_den >= kMaxFpsPart || header.fps_num >= kMaxFpsPart ||
      (header.has_frames == 1) == options.is_probe) {
    return absl::InternalError("kino-media left an impossible header");
  }
  return absl::OkStatus();
}

}  // namespace

DecodedMedia::~DecodedMedia() {
  if (mapping_ != nullptr) munmap(mapping_, mapping_bytes_);
}

DecodedMedia::DecodedMedia(DecodedMedia&& other) noexcept { *this = std::move(other); }

DecodedMedia& DecodedMedia::operator=(DecodedMedia&& other) noexcept {
  std::swap(width_, other.width_);
  std::swap(height_, other.height_);
  std::swap(num_frames_, other.num_frames_);
  std::swap(fps_num_, other.fps_num_);
  std::swap(fps_den_, other.fps_den_);
  std::swap(mime_type_, other.mime_type_);
  std::swap(codec_, other.codec_);
  std::swap(mapping_, other.mapping_);
  std::swap(mapping_bytes_, other.mapping_bytes_);
  return *this;
}

const uint8_t* DecodedMedia::frame(int index) const {
  if (mapping_ == nullptr) return nullptr;
  return static_cast<const uint8_t*>(mapping_) + sizeof(MediaHeader) +
         3 * static_cast<size_t>(width_) * height_ * index;
}

absl::StatusOr<DecodedMedia> ReadOutput(int fd, const DecodeOptions& options) {
  // Nobody may change the frames from now on; the seal is refused while someone still could.
  if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
    return SystemError("cannot seal the frames", errno);
  }
  struct stat status;
  if (fstat(fd, &status) != 0) return SystemError("cannot read the frames", errno);
  MediaHeader header;
  if (pread(fd, &header, sizeof(header), 0) != static_cast<ssize_t>(sizeof(header))) {
    return absl::InternalError("kino-media left no header");
  }
  KINO_RETURN_IF_ERROR(CheckHeader(header, options));
  // Sides are at most 2^31 and frames 2^31, so this needs more than 64 bits before the limits are
  // applied.
  const auto frame_bytes = static_cast<__int128>(3) * header.width * header.height;
  const __int128 want =
      sizeof(MediaHeader) + (options.is_probe ? 0 : frame_bytes * header.num_frames);
  if (status.st_size != want) {
    return absl::InternalError("kino-media left another number of bytes than its header says");
  }
  DecodedMedia media;
  media.width_ = static_cast<int>(header.width);
  media.height_ = static_cast<int>(header.height);
  media.num_frames_ = static_cast<int>(header.num_frames);
  media.fps_num_ = static_cast<int>(header.fps_num);
  media.fps_den_ = static_cast<int>(header.fps_den);
  media.mime_type_ = header.mime_type;
  media.codec_ = header.codec;
  if (options.is_probe) return media;
  void* const mapping =
      mmap(nullptr, static_cast<size_t>(status.st_size), PROT_READ, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) return SystemError("cannot map the frames", errno);
  media.mapping_ = mapping;
  media.mapping_bytes_ = static_cast<size_t>(status.st_size);
  return media;
}

absl::StatusOr<DecodedMedia> DecodeMedia(int fd, const DecodeOptions& options) {
  const auto deadline = Clock::now() + absl::ToChronoNanoseconds(options.timeout);
  // High numbers, so that moving one into its place in the child overwrites none of the others.
  constexpr int kLowest = 16;
  const OwnedFd input(fcntl(fd, F_DUPFD_CLOEXEC, kLowest));
  if (input.get() < 0) return SystemError("cannot use the input's descriptor", errno);
  const OwnedFd memory(memfd_create("kino-media", MFD_CLOEXEC | MFD_ALLOW_SEALING));
  if (memory.get() < 0) return SystemError("cannot make the decoder's output", errno);
  const OwnedFd output(fcntl(memory.get(), F_DUPFD_CLOEXEC, kLowest));
  int pipe_ends[2] = {-1, -1};
  if (output.get() < 0 || pipe2(pipe_ends, O_CLOEXEC | O_NONBLOCK) != 0) {
    return SystemError("cannot make the decoder's output", errno);
  }
  const OwnedFd errors(pipe_ends[0]);
  OwnedFd low_child_errors(pipe_ends[1]);
  OwnedFd child_errors(fcntl(low_child_errors.get(), F_DUPFD_CLOEXEC, kLowest));
  low_child_errors.Reset();
  if (child_errors.get() < 0) return SystemError("cannot make the decoder's output", errno);

  Child child;
  KINO_RETURN_IF_ERROR(child.Start(options, input.get(), output.get(), child_errors.get()));
  child_errors.Reset();
  std::string message;
  const absl::StatusOr<int> wait_status =
      child.Wait(errors.get(), deadline, options.cancel, message);
  if (absl::IsDeadlineExceeded(wait_status.status())) {
    return absl::DeadlineExceededError(
        absl::StrCat("decoding takes longer than ", absl::FormatDuration(options.timeout)));
  }
  KINO_RETURN_IF_ERROR(wait_status.status());
  KINO_RETURN_IF_ERROR(StatusOfEnd(*wait_status, message, options));
  return ReadOutput(output.get(), options);
}

absl::StatusOr<DecodedMedia> DecodeMediaFile(const std::string& path,
                                             const DecodeOptions& options) {
  const OwnedFd file(open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (file.get() < 0) {
    const int error = errno;
    const std::string what = absl::StrCat("cannot open '", path, "'");
    if (absl::Status status = SystemError(what, error); absl::IsUnavailable(status)) return status;
    return absl::NotFoundError(absl::StrCat(what, ": ", std::strerror(error)));
  }
  return DecodeMedia(file.get(), options);
}

absl::StatusOr<DecodedMedia> DecodeMediaBytes(std::string_view bytes,
                                              const DecodeOptions& options) {
  const OwnedFd file(memfd_create("kino-media-input", MFD_CLOEXEC));
  if (file.get() < 0) return SystemError("cannot hold the input", errno);
  while (!bytes.empty()) {
    const ssize_t put = write(file.get(), bytes.data(), bytes.size());
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return SystemError("cannot hold the input", errno);
    bytes.remove_prefix(static_cast<size_t>(put));
  }
  return DecodeMedia(file.get(), options);
}

}  // namespace kino::media
