// fuzz_seeds FOLDER: writes each target's seeds to FOLDER/<target>/, for libFuzzer.
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "tests/fuzz/fuzz_target.h"

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: fuzz_seeds FOLDER\n");
    return 2;
  }
  for (const kino::fuzz::FuzzTarget& target : kino::fuzz::FuzzTargets()) {
    const std::filesystem::path folder = std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const std::string& seed : target.seeds()) {
      std::ofstream file(folder / ("seed-" + std::to_string(number++)), std::ios::binary);
      if (!(file << seed).flush()) {
        std::fprintf(stderr, "cannot write seeds to '%s'\n", folder.c_str());
        return 1;
      }
    }
  }
  return 0;
}
