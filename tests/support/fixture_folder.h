// A temporary folder that goes away with the object, and the oracle's Python run into it.
#pragma once

#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <string>

namespace kino::engine {

class FixtureFolder {
 public:
  FixtureFolder() {
    std::string path = (std::filesystem::temp_directory_path() / "kino-text-XXXXXX").string();
    if (mkdtemp(path.data()) != nullptr) path_ = path;
  }
  ~FixtureFolder() {
    std::error_code error;
    if (!path_.empty()) std::filesystem::remove_all(path_, error);
  }
  FixtureFolder(const FixtureFolder&) = delete;
  FixtureFolder& operator=(const FixtureFolder&) = delete;

  const std::string& path() const { return path_; }

  void Write(const std::string& name, const std::string& bytes) const {
    std::ofstream(path_ + "/" + name, std::ios::binary) << bytes;
  }
  std::string Read(const std::string& name) const {
    std::stringstream text;
    text << std::ifstream(path_ + "/" + name, std::ios::binary).rdbuf();
    return text.str();
  }

  // Runs a script of this folder's tests with the oracle's Python: arguments are the folder and
  // `arguments`. Limits on the instruction set (scripts/check cpu) are Kino's alone: under
  // ONEDNN_MAX_CPU_ISA=AVX2 torch's int8 product saturates on a CPU that has VNNI.
  void RunOracle(const std::string& script, const std::string& arguments) const {
    const std::string command = "env -u ONEDNN_MAX_CPU_ISA -u ATEN_CPU_CAPABILITY " +
                                std::string(KINO_PYTHON) + " " + KINO_SOURCE_DIR +
                                "/tests/engine/" + script + " '" + path_ + "' " + arguments +
                                " 2>'" + path_ + "/oracle.log'";
    const int status = std::system(command.c_str());
    ASSERT_EQ(status, 0) << command << "\n" << Read("oracle.log");
  }

 private:
  std::string path_;
};

// KINO_TEST_SEED, else a fixed seed; printed, so that a failure can be run again.
inline unsigned TestSeed() {
  const char* given = std::getenv("KINO_TEST_SEED");
  const unsigned seed =
      given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : 20261122u;
  std::printf("seed: KINO_TEST_SEED=%u\n", seed);
  return seed;
}

}  // namespace kino::engine
