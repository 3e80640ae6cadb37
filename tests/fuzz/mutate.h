// Random changes to an input, in the manner of fuzzers: bits, ranges, numbers, pieces of other
// inputs. The same generator state gives the same result everywhere. Pure but for the generator.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace kino::fuzz {

// SplitMix64.
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  // REQUIRES: sides > 0. Returns 0 .. sides - 1.
  uint64_t Roll(uint64_t sides) {
    uint64_t z = state_ += 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % sides;
  }

 private:
  uint64_t state_;
};

// One of `seeds`, changed one to eight times. REQUIRES: seeds is not empty.
std::string Mutate(const std::vector<std::string>& seeds, Dice& dice);

}  // namespace kino::fuzz
