// The configuration file, and the packets between kinod and the frontend.
#include <fstream>
#include <sstream>

#include "server/config/config.h"
#include "server/config/control.h"
#include "tests/fuzz/fuzz_target.h"

namespace kino::fuzz {
namespace {

bool RunConfig(std::string_view bytes) {
  // An include makes the parser open whatever file the input names, devices among them.
  if (bytes.find("include") != std::string_view::npos) return false;
  const auto config = config::ParseConfig(std::string(bytes), "fuzz.yaml");
  if (!config.ok()) {
    Require(!config.status().message().empty(), "a refusal says why");
    return false;
  }
  Require(!config->workers.empty(), "a configuration has a worker");
  for (const config::ModelConfig& model : config->models) {
    Require(config::IsValidName(model.name), "a model's name follows the rule");
  }
  return true;
}

std::vector<std::string> ConfigSeeds() {
  std::vector<std::string> seeds = {
      "{}",
      "listen: {address: \"127.0.0.1:0\"}\nlimits: {}\nretention: {results: 1h30m}\n"
      "workers:\n- {name: cpu, device: cpu, threads: 2, count: 2}\n"
      "models:\n- name: demo\n  folder: ../models/demo\n",
  };
  std::ostringstream text;
  text << std::ifstream(std::string(KINO_SOURCE_DIR) + "/config/models/demo.yaml").rdbuf();
  seeds.push_back(text.str());
  return seeds;
}

bool RunControl(std::string_view bytes) {
  const auto message = config::DecodeControl(std::string(bytes));
  if (!message.ok()) return false;
  const auto again = config::DecodeControl(config::EncodeControl(*message));
  Require(again.ok() && config::EncodeControl(*again) == config::EncodeControl(*message),
          "a packet survives the way there and back");
  return true;
}

std::vector<std::string> ControlSeeds() {
  return {config::EncodeControl(config::WorkerStarted{"cpu-0", 4711}),
          config::EncodeControl(config::WorkerExited{"cpu-0", 4711, 9, 0}),
          config::EncodeControl(config::KillWorker{"gpu-1", 4712}),
          config::EncodeControl(config::MachineStopping{})};
}

}  // namespace

std::vector<FuzzTarget> ConfigTargets() {
  return {{"config", RunConfig, ConfigSeeds, 2000}, {"control", RunControl, ControlSeeds, 4000}};
}

}  // namespace kino::fuzz
