#include "tests/engine/media/media_fixtures.h"

#include <sys/wait.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "gtest/gtest.h"

namespace kino::engine {
namespace {

std::unique_ptr<Corpus> MakeCorpus(const std::string& script) {
  auto corpus = std::make_unique<Corpus>();
  RunCommand(std::string("PYTHONDONTWRITEBYTECODE=1 HF_HUB_OFFLINE=1 " KINO_PYTHON
                         " " KINO_SOURCE_DIR "/tests/engine/media/") +
             script + " " + corpus->scratch.folder());
  std::istringstream lines(ReadFile(corpus->scratch.path("index")));
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::vector<std::string> row;
    for (std::string word; words >> word;) row.push_back(word);
    corpus->index.push_back(row);
  }
  return corpus;
}

}  // namespace

ScratchFolder::ScratchFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "kino-media-XXXXXX").string();
  if (mkdtemp(pattern.data()) == nullptr) std::abort();
  folder_ = pattern;
}

ScratchFolder::~ScratchFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(folder_, ignored);
}

std::string ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  EXPECT_TRUE(file.good()) << path;
  std::ostringstream bytes;
  bytes << file.rdbuf();
  return bytes.str();
}

void WriteFile(const std::string& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  file << bytes;
  ASSERT_TRUE(file.good()) << path;
}

std::string RunCommand(const std::string& command) {
  std::FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) {
    ADD_FAILURE() << "cannot run: " << command;
    return "";
  }
  std::string output;
  char block[4096];
  for (size_t got; (got = fread(block, 1, sizeof(block), pipe)) > 0;) output.append(block, got);
  const int status = pclose(pipe);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << command << "\n" << output;
  return output;
}

RgbImage MovingPicture(int width, int height, int index) {
  RgbImage image{width, height, {}};
  image.rgb.reserve(3 * static_cast<size_t>(width) * height);
  for (int y = 0; y < height; ++y) {
    for (int x = 0; x < width; ++x) {
      for (int c = 0; c < 3; ++c) {
        const double wave = std::sin((x + 2.0 * index) / (11.0 + 4 * c) + y / (17.0 - 3 * c) + c);
        image.rgb.push_back(static_cast<uint8_t>(std::lround(127.5 + 110 * wave)));
      }
    }
  }
  return image;
}

const Corpus& PillowCorpus() {
  static const std::unique_ptr<Corpus> corpus = MakeCorpus("pillow_corpus.py");
  return *corpus;
}

const Corpus& VideoCorpus() {
  static const std::unique_ptr<Corpus> corpus = MakeCorpus("video_corpus.py");
  return *corpus;
}

}  // namespace kino::engine
