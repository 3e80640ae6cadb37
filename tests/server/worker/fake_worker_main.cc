// kino-worker with tests/support/fake_engine in place of the engine, for tests of the server that
// need no torch. A condition's file is a script: "wait FILE" decodes until FILE exists or the
// attempt is cancelled, "slow" takes longer than the decoder's timeout, "short" finds no
// descriptor, "by PROGRAM" is decoded as the real worker does, with that program in kino-media's
// place; an empty one is broken, one larger than the limits is refused, and every other is a
// picture of one pixel.
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>

#include "absl/time/clock.h"
#include "server/convert/condition_media.h"
#include "server/worker/worker_main.h"
#include "tests/support/fake_engine.h"

namespace {

namespace fs = std::filesystem;

absl::StatusOr<kino::engine::MediaInput> Decode(const std::string& path,
                                                kino::engine::ConditionKind kind,
                                                kino::media::DecodeOptions options) {
  std::error_code error;
  const auto size = fs::file_size(path, error);
  if (size == 0 || error) return absl::InvalidArgumentError("not an image or video");
  if (static_cast<int64_t>(size) > options.max_input_bytes) {
    return absl::ResourceExhaustedError("the file is larger than the limit");
  }
  std::string what, until;
  std::ifstream(path) >> what >> until;
  if (what == "by") {
    options.kino_media_path = until;
    return kino::convert::DecodeCondition(path, kind, options);
  }
  if (what == "short") return absl::UnavailableError("cannot start kino-media");
  if (what == "slow") return absl::DeadlineExceededError("decoding takes longer than 60 s");
  while (what == "wait" && !fs::exists(until)) {
    if (absl::Status status = options.cancel->Check(); !status.ok()) return status;
    absl::SleepFor(absl::Milliseconds(1));
  }
  return kino::engine::MediaInput{.width = 1, .height = 1, .num_frames = 1, .rgb = {0, 0, 0}};
}

}  // namespace

int main(int argc, char** argv) {
  return kino::worker::WorkerMain(
      argc, argv,
      [](const kino::engine::EngineOptions&)
          -> absl::StatusOr<std::unique_ptr<kino::engine::Engine>> {
        kino::support::FakeEngineOptions options;
        if (const char* const script = std::getenv("KINO_FAKE_CHECK_SCRIPT")) {
          options.check_script = script;
        }
        return std::make_unique<kino::support::FakeEngine>(options);
      },
      Decode);
}
