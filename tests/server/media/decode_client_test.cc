#include "server/media/decode_client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <map>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "engine/media/npy.h"
#include "engine/media/video_decode.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/media/media_fixtures.h"

namespace kino::media {
namespace {

using engine::PillowCorpus;
using engine::ReadFile;
using engine::RunCommand;
using engine::ScratchFolder;
using engine::VideoCorpus;
using engine::WriteFile;
using ::testing::HasSubstr;

DecodeOptions Options() { return {.kino_media_path = KINO_BIN_DIR "/kino-media"}; }

void ExpectFrames(const DecodedMedia& media, const std::string& npy_path) {
  const auto want = engine::ReadNpy(npy_path);
  ASSERT_TRUE(want.ok()) << want.status();
  const bool is_clip = want->shape.size() == 4;
  EXPECT_EQ(media.num_frames(), is_clip ? want->shape[0] : 1);
  EXPECT_EQ(media.height(), want->shape[is_clip ? 1 : 0]);
  EXPECT_EQ(media.width(), want->shape[is_clip ? 2 : 1]);
  ASSERT_EQ(3LL * media.num_frames() * media.height() * media.width(), want->element_count());
  EXPECT_EQ(std::memcmp(media.frame(0), want->data.data(), want->data.size()), 0);
  EXPECT_EQ(media.frame(1) - media.frame(0), 3LL * media.height() * media.width());
}

TEST(DecodeClientTest, ImagesComeThroughTheSandboxUnchanged) {
  int count = 0;
  for (const auto& row : PillowCorpus().index) {
    if (row[0] != "image" || ++count % 15 != 0) continue;
    SCOPED_TRACE(row[1]);
    const auto media = DecodeMediaFile(PillowCorpus().scratch.path(row[1]), Options());
    EXPECT_TRUE(media.ok()) << media.status();
    if (!media.ok()) continue;
    ExpectFrames(*media, PillowCorpus().scratch.path(row[2]));
    EXPECT_FALSE(media->is_video());
    EXPECT_EQ(media->fps_num(), 0);
    const std::string kind = row[1].substr(row[1].rfind('.') + 1);
    EXPECT_EQ(media->mime_type(), "image/" + (kind == "jpg" ? "jpeg" : kind));
  }
  EXPECT_GT(count, 400);
}

TEST(DecodeClientTest, VideosComeThroughTheSandboxUnchanged) {
  int count = 0;
  for (const auto& row : VideoCorpus().index) {
    if (row[0] != "video") continue;
    ++count;
    SCOPED_TRACE(row[1]);
    const std::string bytes = ReadFile(VideoCorpus().scratch.path(row[1]));
    const auto media = DecodeMediaBytes(bytes, Options());
    EXPECT_TRUE(media.ok()) << media.status();
    if (!media.ok()) continue;
    int frames = 0, differing = 0;
    const auto info = engine::DecodeVideo(bytes, {}, [&](const engine::RgbImage& frame) {
      if (frames < media->num_frames()) {
        differing += std::memcmp(media->frame(frames), frame.rgb.data(), frame.rgb.size()) != 0;
      }
      ++frames;
      return absl::OkStatus();
    });
    EXPECT_TRUE(info.ok()) << info.status();
    if (!info.ok()) continue;
    EXPECT_EQ(media->num_frames(), frames);
    EXPECT_EQ(media->width(), info->width);
    EXPECT_EQ(media->height(), info->height);
    EXPECT_EQ(differing, 0);
    EXPECT_TRUE(media->is_video());
    EXPECT_EQ(media->codec(), row[3]);
    EXPECT_EQ(std::to_string(media->fps_num()), row[4]);
    EXPECT_EQ(std::to_string(media->fps_den()), row[5]);
    const std::map<std::string, std::string> types = {{"mp4", "mp4"},   {"mov", "mp4"},
                                                      {"webm", "webm"}, {"mkv", "x-matroska"},
                                                      {"ts", "mp2t"},   {"m2ts", "mp2t"}};
    EXPECT_EQ(media->mime_type(), "video/" + types.at(row[1].substr(row[1].rfind('.') + 1)));
  }
  EXPECT_GT(count, 60);
}

TEST(DecodeClientTest, ProbeTellsTheSizeAndKeepsNoFrame) {
  DecodeOptions options = Options();
  options.is_probe = true;
  const auto image = DecodeMediaFile(PillowCorpus().scratch.path("jpeg_exif6.jpg"), options);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->width(), 24);  // stored as 40x24 and turned
  EXPECT_EQ(image->height(), 40);
  EXPECT_EQ(image->frame(0), nullptr);
  const auto video = DecodeMediaFile(VideoCorpus().scratch.path("vp9.webm"), options);
  ASSERT_TRUE(video.ok()) << video.status();
  EXPECT_EQ(video->num_frames(), 9);
  EXPECT_EQ(video->frame(0), nullptr);
  // A probe decodes: a file that is broken behind its header is refused.
  std::string bytes = ReadFile(PillowCorpus().scratch.path("jpeg_exif6.jpg"));
  bytes.resize(bytes.size() / 2);
  EXPECT_EQ(DecodeMediaBytes(bytes, options).status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(DecodeClientTest, BrokenFilesAreInvalidWithAReason) {
  for (const engine::Corpus* corpus : {&PillowCorpus(), &VideoCorpus()}) {
    int count = 0;
    for (const auto& row : corpus->index) {
      if (row[0] != "refused" || ++count % 3 != 0) continue;
      const auto media = DecodeMediaFile(corpus->scratch.path(row[1]), Options());
      EXPECT_EQ(media.status().code(), absl::StatusCode::kInvalidArgument) << row[1];
      EXPECT_THAT(std::string(media.status().message()), ::testing::Not(HasSubstr("INVALID")));
      EXPECT_FALSE(media.status().message().empty());
    }
    EXPECT_GT(count, 5);
  }
}

TEST(DecodeClientTest, PicturesThatAreNotReadAreNamed) {
  const std::string heic(
      "\0\0\0\x18"
      "ftypheic\0\0\0\0mif1heic",
      24);
  const auto media = DecodeMediaBytes(heic + std::string(1000, 'x'), Options());
  EXPECT_EQ(media.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(std::string(media.status().message()),
            "the file is a HEIC picture; save it as PNG, JPEG or WebP");
}

TEST(DecodeClientTest, LimitsReachTheDecoder) {
  const std::string image = PillowCorpus().scratch.path("png_type2_8_64x48.png");
  const std::string video = VideoCorpus().scratch.path("h264.mp4");
  const auto code = [](const std::string& path, const auto& change) {
    DecodeOptions options = Options();
    change(options);
    return DecodeMediaFile(path, options).status().code();
  };
  constexpr auto kExhausted = absl::StatusCode::kResourceExhausted;
  EXPECT_EQ(code(image, [](DecodeOptions& o) { o.max_side_px = 63; }), kExhausted);
  EXPECT_EQ(code(image, [](DecodeOptions& o) { o.max_pixels = 64 * 48 - 1; }), kExhausted);
  EXPECT_EQ(code(image, [](DecodeOptions& o) { o.max_aspect_ratio = 1.3; }), kExhausted);
  EXPECT_EQ(code(image, [](DecodeOptions& o) { o.max_input_bytes = 100; }), kExhausted);
  EXPECT_EQ(code(video, [](DecodeOptions& o) { o.max_frames = 8; }), kExhausted);
  EXPECT_EQ(code(video, [](DecodeOptions& o) { o.max_output_bytes = 1000; }), kExhausted);
  EXPECT_EQ(code(video, [](DecodeOptions& o) { o.max_frames = 9; }), absl::StatusCode::kOk);
}

// The largest picture that is allowed fits into the memory that is granted, in the formats that
// take the most.
TEST(DecodeClientTest, LargestPictureFitsTheMemoryGranted) {
  const ScratchFolder scratch;
  RunCommand(std::string(KINO_PYTHON) +
             " -c \"import sys; from PIL import Image; d = sys.argv[1] + '/'\n"
             "image = Image.new('RGB', (8192, 4096), (200, 100, 50))\n"
             "image.save(d + 'a.png', compress_level=1)\n"
             "image.save(d + 'a.jpg', progressive=True, exif=b'Exif\\0\\0MM\\0*\\0\\0\\0\\x08"
             "\\0\\x01\\x01\\x12\\0\\x03\\0\\0\\0\\x01\\0\\x06\\0\\0\\0\\0\\0\\0')\" " +
             scratch.folder());
  for (const std::string name : {"a.png", "a.jpg"}) {
    const auto media = DecodeMediaFile(scratch.path(name), Options());
    EXPECT_TRUE(media.ok()) << name << media.status();
    if (!media.ok()) continue;
    EXPECT_EQ(media->width(), name == "a.png" ? 8192 : 4096);
    EXPECT_NEAR(media->frame(0)[3LL * 8192 * 4096 - 1], 50, 2) << name;
#ifndef KINO_SANITIZED
    // And not into less; a sanitizer's shadow memory allows no such limit.
    DecodeOptions options = Options();
    options.memory_bytes = 64 << 20;
    EXPECT_EQ(DecodeMediaFile(scratch.path(name), options).status().code(),
              absl::StatusCode::kResourceExhausted)
        << name;
#endif
  }
}

TEST(DecodeClientTest, DescriptorsAreReadFromTheirBeginningAndStayOpen) {
  const std::string path = PillowCorpus().scratch.path("png_exif8.png");
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  ASSERT_GE(fd, 0);
  ASSERT_EQ(lseek(fd, 10, SEEK_SET), 10);
  const auto media = DecodeMedia(fd, Options());
  ASSERT_TRUE(media.ok()) << media.status();
  ExpectFrames(*media, path + ".npy");
  EXPECT_EQ(lseek(fd, 0, SEEK_CUR), 10);
  close(fd);
  EXPECT_EQ(DecodeMedia(fd, Options()).status().code(), absl::StatusCode::kInternal);
  EXPECT_EQ(DecodeMediaFile("/no-such-file", Options()).status().code(),
            absl::StatusCode::kNotFound);
}

TEST(DecodeClientTest, PipeThatStaysEmptyEndsAtTheTimeout) {
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  DecodeOptions options = Options();
  options.timeout = absl::Milliseconds(200);
  EXPECT_EQ(DecodeMedia(ends[0], options).status().code(), absl::StatusCode::kDeadlineExceeded);
  // A pipe that is filled and closed is read to its end.
  const std::string bytes = ReadFile(PillowCorpus().scratch.path("png_exif8.png"));
  ASSERT_EQ(write(ends[1], bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
  close(ends[1]);
  EXPECT_TRUE(DecodeMedia(ends[0], Options()).ok());
  close(ends[0]);
}

// A user without privileges enters the sandbox another way than root does.
class OwnerTest : public ::testing::TestWithParam<const char*> {};

TEST_P(OwnerTest, DecoderEndsWithTheProcessThatStartedIt) {
  constexpr uid_t kNobody = 65534;
  int ends[2];
  ASSERT_EQ(pipe2(ends, O_CLOEXEC), 0);
  const pid_t owner = fork();
  if (owner == 0) {
    close(ends[1]);
    if (GetParam() == std::string("nobody") && setresuid(kNobody, kNobody, kNobody) != 0) _exit(1);
    DecodeOptions options = Options();
    options.timeout = absl::Hours(1);
    (void)DecodeMedia(ends[0], options);
    _exit(1);
  }
  ASSERT_GT(owner, 0);
  close(ends[0]);
  const std::string owned = "/proc/" + std::to_string(owner);
  const std::string children = owned + "/task/" + std::to_string(owner) + "/children";
  std::string decoder;
  while ((decoder = ReadFile(children)).empty()) {
    if (waitpid(owner, nullptr, WNOHANG) == owner) {
      close(ends[1]);
      GTEST_SKIP() << "nobody may not become another user here, or not run kino-media";
    }
    std::this_thread::yield();
  }
  // In its sandbox it waits for the first byte.
  const std::string status = "/proc/" + decoder.substr(0, decoder.find(' ')) + "/status";
  while (ReadFile(status).find("Seccomp:\t2") == std::string::npos) std::this_thread::yield();
  kill(owner, SIGKILL);
  ASSERT_EQ(waitpid(owner, nullptr, 0), owner);
  // Both have read from the pipe: it is broken once both are gone.
  pollfd watched{.fd = ends[1], .events = 0, .revents = 0};
  EXPECT_EQ(poll(&watched, 1, 30'000), 1) << "the decoder is still there";
  EXPECT_TRUE((watched.revents & POLLERR) != 0);
  close(ends[1]);
}
INSTANTIATE_TEST_SUITE_P(Users, OwnerTest, ::testing::Values("same", "nobody"));

TEST(DecodeClientTest, NoDescriptorLeftIsUnavailableAtAnyStep) {
  const std::string picture = PillowCorpus().scratch.path("png_exif8.png");
  rlimit before{};
  ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &before), 0);
  const rlimit few{64, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<int> taken;
  for (int fd = open("/dev/null", O_RDONLY); fd >= 0; fd = open("/dev/null", O_RDONLY))
    taken.push_back(fd);
  // From none that is free, the file's own, to as many as it takes.
  std::vector<absl::Status> refused;
  absl::Status status = DecodeMediaFile(picture, Options()).status();
  for (; !status.ok() && !taken.empty(); status = DecodeMediaFile(picture, Options()).status()) {
    refused.push_back(status);
    close(taken.back());
    taken.pop_back();
  }
  for (const int fd : taken) close(fd);
  ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_GT(refused.size(), 3u);
  for (const absl::Status& each : refused)
    EXPECT_EQ(each.code(), absl::StatusCode::kUnavailable) << each;
}

TEST(DecodeClientTest, AbsentProgramIsUnimplemented) {
  DecodeOptions options = Options();
  options.kino_media_path = "/no-such-folder/kino-media";
  const auto media = DecodeMediaBytes("x", options);
  EXPECT_EQ(media.status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(media.status().message()), HasSubstr("/no-such-folder/kino-media"));
}

// kino-media after a break-in: whatever it does, the caller gets a status.
class HostileDecoderTest : public ::testing::Test {
 protected:
  absl::Status Run(const std::string& script) {
    const std::string path = scratch_.path("decoder");
    WriteFile(path, "#!/bin/sh\n" + script + "\n");
    chmod(path.c_str(), 0700);
    DecodeOptions options = Options();
    options.kino_media_path = path;
    options.timeout = absl::Seconds(20);
    return DecodeMediaBytes("x", options).status();
  }

  // The header of a 1x1 PNG followed by three bytes, with the field at `offset` replaced.
  static std::string Header(const std::string& fields, const std::string& mime = "image/png",
                            const std::string& pixels = "abc") {
    return "{ printf 'KINOMED1" + fields + "'; printf '" + mime + "'; head -c " +
           std::to_string(32 - mime.size() + 64) + " /dev/zero; printf '" + pixels + "'; } >&4";
  }

  ScratchFolder scratch_;
};

constexpr char kOnePixel[] =
    "\\1\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0";

TEST_F(HostileDecoderTest, CancelKillsAndReapsTheDecoder) {
  const std::string path = scratch_.path("decoder"), started = scratch_.path("started");
  WriteFile(path, "#!/bin/sh\necho $$ > " + started + ".new && mv " + started + ".new " + started +
                      "\nexec sleep 1000\n");
  chmod(path.c_str(), 0700);
  DecodeOptions options = Options();
  options.kino_media_path = path;
  options.timeout = absl::Seconds(60);
  engine::CancelToken cancel;
  options.cancel = &cancel;
  absl::Status status;
  std::thread decoding([&] { status = DecodeMediaBytes("x", options).status(); });
  while (access(started.c_str(), R_OK) != 0) usleep(1000);
  const int pid = std::stoi(ReadFile(started));
  EXPECT_EQ(kill(pid, 0), 0);
  cancel.Cancel();
  decoding.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kCancelled) << status;
  EXPECT_EQ(kill(pid, 0), -1) << "it is neither alive nor a zombie";
  EXPECT_EQ(errno, ESRCH);
}

TEST_F(HostileDecoderTest, ATokenThatIsSetBeforeEndsItAtOnceAndOneThatIsNotChangesNothing) {
  engine::CancelToken cancel;
  DecodeOptions options = Options();
  options.cancel = &cancel;
  const std::string picture = PillowCorpus().scratch.path("png_exif8.png");
  EXPECT_TRUE(DecodeMediaFile(picture, options).ok());
  cancel.Cancel();
  EXPECT_EQ(DecodeMediaFile(picture, options).status().code(), absl::StatusCode::kCancelled);
}

TEST_F(HostileDecoderTest, EndsAreMappedToStatuses) {
  EXPECT_TRUE(Run(Header(kOnePixel)).ok()) << Run(Header(kOnePixel));
  EXPECT_EQ(Run("kill -SEGV $$").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Run("kill -XCPU $$").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Run("kill -XFSZ $$").code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(Run("exit 77").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Run("exit 0").code(), absl::StatusCode::kInternal);
  EXPECT_EQ(Run("exit 5").code(), absl::StatusCode::kInternal);
}

TEST_F(HostileDecoderTest, MessagesAreOneCleanShortLine) {
  const absl::Status status =
      Run("printf 'INVALID_ARGUMENT: red \\033[31m text\\nsecond line' >&2; exit 3");
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "red ?[31m text");
  const absl::Status flooded = Run("head -c 300000 /dev/zero | tr '\\0' x >&2; exit 3");
  EXPECT_EQ(flooded.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_LE(flooded.message().size(), 1024u);
}

TEST_F(HostileDecoderTest, ImpossibleHeadersAreRefused) {
  const std::vector<std::string> scripts = {
      "echo hello >&4", Header(kOnePixel, "image/png", "ab"),
      Header(kOnePixel, "image/png", "abcd"), Header(kOnePixel, "text/html"),
      Header(kOnePixel, "video/mp4"),
      // Width 2^31 - 1, height 0, no frame, 2^32 - 1 frames, a probe's answer.
      Header("\\377\\377\\377\\177\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0"),
      Header("\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0"),
      Header("\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0"),
      Header("\\1\\0\\0\\0\\1\\0\\0\\0\\377\\377\\377\\377\\0\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0"),
      Header("\\1\\0\\0\\0\\1\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0\\1\\0\\0\\0\\0\\0\\0\\0")};
  for (const std::string& script : scripts) {
    EXPECT_EQ(Run(script).code(), absl::StatusCode::kInternal) << script;
  }
}

TEST_F(HostileDecoderTest, NoOtherDescriptorOrVariableIsInherited) {
  const int leaked = fcntl(STDERR_FILENO, F_DUPFD, 40);  // inheritable on purpose
  ASSERT_GE(leaked, 40);
  setenv("KINO_SECRET_FOR_TEST", "x", 1);
  const std::string fd = "/proc/$$/fd/" + std::to_string(leaked);
  const absl::Status status =
      Run("[ -e " + fd + " ] && exit 3; [ -n \"$KINO_SECRET_FOR_TEST\" ] && exit 8; " +
          Header(kOnePixel));
  EXPECT_TRUE(status.ok()) << status;
  unsetenv("KINO_SECRET_FOR_TEST");
  close(leaked);
}

TEST(DecodeClientTest, ThreadsDecodeAtOnce) {
  const std::string bytes = ReadFile(PillowCorpus().scratch.path("webp_rgb_exact_63x48.webp"));
  std::vector<std::thread> threads;
  std::vector<absl::Status> statuses(6);
  for (size_t i = 0; i < statuses.size(); ++i) {
    threads.emplace_back([&, i] {
      for (int round = 0; round < 5 && statuses[i].ok(); ++round) {
        statuses[i] = DecodeMediaBytes(bytes, Options()).status();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  for (const absl::Status& status : statuses) EXPECT_TRUE(status.ok()) << status;
}

TEST(KinoMediaTest, HelpAndVersionAreTold) {
  EXPECT_THAT(RunCommand(KINO_BIN_DIR "/kino-media --version"), HasSubstr("kino-media 0."));
  EXPECT_THAT(RunCommand(KINO_BIN_DIR "/kino-media --help"), HasSubstr("--max-side-px"));
  EXPECT_THAT(RunCommand(KINO_BIN_DIR "/kino-media --nonsense 2>&1 || echo status $?"),
              HasSubstr("INVALID_ARGUMENT"));
}

}  // namespace
}  // namespace kino::media
