// The doors through which bytes of strangers come in, each as a function that a fuzzer can drive.
// Two drivers share them: libFuzzer (the fuzz preset, one program a target; scripts/check fuzz) and
// fuzz_test.cc, which runs the seeds and some thousand mutations of them in every scripts/test.
// Functions hold no state but fixtures made once; one thread at a time.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace kino::fuzz {

struct FuzzTarget {
  std::string name;
  // Parses the bytes; true when they were accepted. Ends the process when what was accepted breaks
  // the parser's promises.
  bool (*run)(std::string_view bytes);
  // Small inputs, all of them accepted.
  std::vector<std::string> (*seeds)();
  // How many mutations fuzz_test.cc tries: a second's worth at most.
  int mutations;
};

const std::vector<FuzzTarget>& FuzzTargets();
// Ends the process when there is no such target.
const FuzzTarget& FindFuzzTarget(std::string_view name);

// Ends the process with the promise's name, so that either driver keeps the input, unless it holds.
void Require(bool holds, const char* promise);

std::vector<FuzzTarget> BpeTargets();
std::vector<FuzzTarget> CheckpointTargets();
std::vector<FuzzTarget> ConfigTargets();
std::vector<FuzzTarget> LinkTargets();
std::vector<FuzzTarget> MediaTargets();
std::vector<FuzzTarget> RequestTargets();
std::vector<FuzzTarget> RpcTargets();
std::vector<FuzzTarget> StreamTargets();
std::vector<FuzzTarget> TextTargets();
std::vector<FuzzTarget> WorkerTargets();

}  // namespace kino::fuzz
