// `kino doctor`: what is found on a node, and what to do about it. Free functions.
#pragma once

#include <string>
#include <vector>

#include "server/config/config.h"
#include "server/doctor/node.h"

namespace kino::doctor {

enum class Verdict { kOk, kWarning, kFailure };
const char* VerdictName(Verdict verdict);  // "ok", "warning", "failure"

struct Finding {
  std::string name{};
  Verdict verdict = Verdict::kOk;
  std::string found{};
  std::string advice{};  // empty where nothing has to be done
};

// `config` may be null: then only the machine is judged. A failure is what Kino, as it is
// configured, cannot run with.
std::vector<Finding> Judge(const NodeFacts& facts, const config::Config* config);

// A line for each, the advice below it, and a last one that counts.
std::string AsText(const std::vector<Finding>& findings);

}  // namespace kino::doctor
