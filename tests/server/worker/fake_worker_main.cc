// kino-worker with tests/support/fake_engine in place of the engine, for tests of the server that
// need no torch.
#include <filesystem>

#include "server/worker/worker_main.h"
#include "tests/support/fake_engine.h"

int main(int argc, char** argv) {
  return kino::worker::WorkerMain(
      argc, argv,
      [](const kino::engine::EngineOptions&)
          -> absl::StatusOr<std::unique_ptr<kino::engine::Engine>> {
        return std::make_unique<kino::support::FakeEngine>();
      },
      [](const std::string& path,
         kino::engine::ConditionKind) -> absl::StatusOr<kino::engine::MediaInput> {
        std::error_code error;
        if (std::filesystem::file_size(path, error) == 0 || error) {
          return absl::InvalidArgumentError("not an image or video");
        }
        return kino::engine::MediaInput{1, 1, 1, {0, 0, 0}};
      });
}
