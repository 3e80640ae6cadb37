// A model's folder with configs and next to no weights: enough to describe it, not to run it.
#pragma once

#include <map>
#include <string>

#include "nlohmann/json.hpp"
#include "tests/support/safetensors_writer.h"
#include "tests/support/temp_dir.h"

namespace kino::testing {

// What differs from the defaults of diffusers' classes.
struct BareModel {
  std::string pipeline_class;
  nlohmann::json transformer = nlohmann::json::object();
  nlohmann::json vae = nlohmann::json::object();
  nlohmann::json scheduler = nlohmann::json::object();
  // Of its encoders, each with its class among its "architectures".
  std::map<std::string, nlohmann::json> encoders = {
      {"text_encoder",
       {{"architectures", {"T5EncoderModel"}}, {"feed_forward_proj", "gated-gelu"}}}};
  // Other configs, by their paths in the folder.
  std::map<std::string, nlohmann::json> files = {};
};

// variant: of its weight files; empty: the plain ones.
inline void WriteBareModel(const TempDir& folder, const BareModel& model,
                           const std::string& variant = "") {
  nlohmann::json index = {{"_class_name", model.pipeline_class},
                          {"transformer", {"diffusers", "Transformer3DModel"}},
                          {"vae", {"diffusers", "AutoencoderKL"}}};
  std::map<std::string, nlohmann::json> configs = model.encoders;
  for (const auto& [name, config] : configs)
    index[name] = {"transformers", config["architectures"][0]};
  configs["transformer"] = model.transformer;
  configs["vae"] = model.vae;
  folder.Write("model_index.json", index.dump());
  folder.Write("scheduler/scheduler_config.json", model.scheduler.dump());
  for (const auto& [path, config] : model.files) folder.Write(path, config.dump());
  for (const auto& [name, config] : configs) {
    folder.Write(name + "/config.json", config.dump());
    folder.Write(name + ("/model" + (variant.empty() ? "" : "." + variant) + ".safetensors"),
                 SafetensorsOf({{"weight", {1}, {1}}}));
  }
}

}  // namespace kino::testing
