// What the media tests share: a folder that goes away, files, programs with their output, and
// frames to encode.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "engine/media/frames.h"

namespace kino::engine {

// A fresh folder, removed with everything in it.
class ScratchFolder {
 public:
  ScratchFolder();
  ~ScratchFolder();
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string path(const std::string& name) const { return folder_ + "/" + name; }
  const std::string& folder() const { return folder_; }

 private:
  std::string folder_;
};

std::string ReadFile(const std::string& path);
void WriteFile(const std::string& path, const std::string& bytes);

// The standard output of a shell command; a test failure when it does not exit with 0.
std::string RunCommand(const std::string& command);

// Smooth colours that move, all channels different. Seeded by `index` alone.
RgbImage MovingPicture(int width, int height, int index);

// The corpus that `script` beside this file writes, made once per process; its index split into
// words by line.
struct Corpus {
  ScratchFolder scratch;
  std::vector<std::vector<std::string>> index;
};
const Corpus& PillowCorpus();
const Corpus& VideoCorpus();

}  // namespace kino::engine
